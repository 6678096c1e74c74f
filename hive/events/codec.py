"""Events to JSON text and back, old shapes included. Used by the journal, the projections and the audit."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from hive.errors import CorruptState
from hive.events import EVENT_TYPES, AnyEvent
from hive.events.base import Event

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
"""The data of one version to that of the next."""

UPCASTS: Final[dict[tuple[str, int], Upcast]] = {}
"""By event name and the version the function reads. Empty while every event has its first shape."""

VERSION_KEY = "_v"
"""In the data of an event whose version is not 1."""


class Codec:
    """Encodes the events of one vocabulary and decodes every shape they ever had."""

    def __init__(self, types: dict[str, type[Event]] = EVENT_TYPES, upcasts: dict[tuple[str, int], Upcast] = UPCASTS):
        self._encode = msgspec.json.Encoder().encode
        self._decoders = {name: msgspec.json.Decoder(cls).decode for name, cls in types.items()}
        self.types = types
        """By name in the log."""
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
                f"The log holds {name!r}, which this hive does not know: it was written by a newer one."
            ) from None
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CorruptState(f"The log holds a {name} that cannot be read: {error}.") from error

    def _upcast(self, name: str, data: str) -> AnyEvent:
        cls = self.types[name]
        fields = msgspec.json.decode(data)
        stored = fields.pop(VERSION_KEY, 1)
        if stored > cls.version:
            raise CorruptState(
                f"The log holds {name} in shape {stored}; this hive knows up to {cls.version}: use a newer one."
            )
        for version in range(stored, cls.version):
            fields = self._upcasts[name, version](fields)
        return msgspec.convert(fields, cls)  # type: ignore[return-value]
