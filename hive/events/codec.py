"""Encodes events as JSON text and decodes every stored version. Used by the journal, the projections and the audit."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from hive.errors import CorruptState
from hive.events import EVENT_TYPES, AnyEvent
from hive.events.base import Event

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
"""Converts the data of one version to the next version."""

UPCASTS: Final[dict[tuple[str, int], Upcast]] = {}
"""By event name and source version. Empty while every event has version 1."""

VERSION_KEY = "_v"
"""Key in the data of an event whose version is above 1."""


class Codec:
    """Encodes events of one set of types and decodes every version of them."""

    def __init__(self, types: dict[str, type[Event]] = EVENT_TYPES, upcasts: dict[tuple[str, int], Upcast] = UPCASTS):
        self._encode = msgspec.json.Encoder().encode
        self._decoders = {name: msgspec.json.Decoder(cls).decode for name, cls in types.items()}
        self.types = types
        """By type name."""
        self._upcasts = upcasts
        self._versioned = {name for name, cls in types.items() if cls.version > 1}

    def encode(self, event: Event) -> str:
        """The `data` column."""
        name = type(event).__name__
        if name not in self._versioned:
            return self._encode(event).decode()
        fields = msgspec.to_builtins(event)
        return self._encode({VERSION_KEY: type(event).version, **fields}).decode()

    def decode(self, name: str, data: str) -> AnyEvent:
        """The event of one row.

        Raises:
            CorruptState: a name or version this hive does not know, or data that is not such an event.
        """
        try:
            if name in self._versioned:
                return self._upcast(name, data)
            return self._decoders[name](data)  # type: ignore[return-value]  # The decoders are those of the union.
        except KeyError:
            raise CorruptState(
                f"The log holds {name!r}, which this hive does not know. Use the newer hive that wrote it."
            ) from None
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CorruptState(f"The log holds a {name} that cannot be read: {error}.") from error

    def _upcast(self, name: str, data: str) -> AnyEvent:
        cls = self.types[name]
        fields = msgspec.json.decode(data)
        stored = fields.pop(VERSION_KEY, 1)
        if stored > cls.version:
            raise CorruptState(
                f"The log holds {name} in version {stored}; this hive reads up to {cls.version}. Use a newer hive."
            )
        for version in range(stored, cls.version):
            fields = self._upcasts[name, version](fields)
        return msgspec.convert(fields, cls)  # type: ignore[return-value]
