"""Typed in-memory rows with change tracking. Projections write them; the store saves them."""

from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from hive.clock import TimeMs
from hive.events import AnyEvent
from hive.events.base import Seq
from hive.events.log import stamped_ms

K = TypeVar("K", bound=int | str | tuple[Any, ...])
R = TypeVar("R", bound=msgspec.Struct)


class Recorded(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event at its place in the log."""

    seq: Seq
    at: str
    """RFC 3339 UTC, as `stamp` writes it."""
    by: str
    event: AnyEvent

    @property
    def at_ms(self) -> TimeMs:
        """The same in Unix milliseconds; computed on demand, since few events need it."""
        return stamped_ms(self.at)


class Table(Generic[K, R]):
    """Rows by key. A key of several parts is a tuple; its parts are the row's first fields, in order."""

    def __init__(self, name: str, row_type: type[R], key_parts: int = 1):
        self.name = name
        self.row_type = row_type
        self.key_parts = key_parts
        self.rows: dict[K, R] = {}
        self.changed: set[K] = set()

    def put(self, key: K, row: R) -> None:
        """Insert or replace."""
        self.rows[key] = row
        self.changed.add(key)

    def drop(self, key: K) -> None:
        """Remove a row, if it exists."""
        if self.rows.pop(key, None) is not None:
            self.changed.add(key)

    def __getitem__(self, key: K) -> R:
        return self.rows[key]

    def get(self, key: K) -> R | None:
        return self.rows.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows.values())


class Projection:
    """One fold. A subclass has its tables as attributes and one `_on_…` method per event type."""

    NAME: ClassVar[str]
    VERSION: ClassVar[int]
    """Increased when the fold or its rows change; the next start then refolds the projection."""

    def tables(self) -> list[Table[Any, Any]]:
        """Every table, in a fixed order."""
        return [value for value in vars(self).values() if isinstance(value, Table)]

    def handlers(self) -> dict[type, Any]:
        """By event class, a method that takes the event and its Recorded."""
        raise NotImplementedError

    def restored(self) -> None:
        """Rebuild derived values after the rows were loaded."""
