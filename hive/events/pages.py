"""Pages of the log for a fold: one SQL statement builds a page as JSON text, one call decodes it."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar, cast

import apsw

from hive.errors import CorruptState
from hive.events.base import Seq
from hive.events.chain import ChainPage, Row
from hive.events.schema import CHAIN_PAGE, COLUMNS
from hive.events.segments import Parts

PAGE_ROWS: Final = 1_024
"""Larger pages use more memory and are not faster."""
PAGES_AHEAD: Final = 2
"""One page is read while another waits to be decoded."""

_TEXT: Final = (
    "SELECT min(seq),"
    " '[[\"' || group_concat(concat(type, '\",', seq, ',\"', at, '\",', json_quote(by), ',', data), '],[\"')"
    " || ']]' FROM events WHERE seq BETWEEN ? AND ?"
)
_ENTRIES: Final = "SELECT seq, at, by, type, data FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq"

Entry = tuple[Seq, str, str, str, str]
"""seq, at, by, type, data: a row without its hash."""


class Page(NamedTuple):
    """Consecutive rows."""

    text: str
    """`[["MessageSent",7,"2026-01-31T09:30:00.125Z","agent:coder",{…}],…]`: type, seq, at, by and data of each."""
    entries: Callable[[], list[Entry]]
    """Reads the rows one by one; used when the text does not decode."""


P = TypeVar("P", Page, ChainPage)


def text_pages(parts: Parts, first: Seq, last: Seq) -> Iterator[Page]:
    """Rows first..last, over every part of the log.

    Raises:
        CorruptState: SQLite cannot read them.
    """
    while first <= last:
        db, end = parts.part(first, last)
        until = min(first + PAGE_ROWS - 1, end)
        text, found = _page(db, first, until)
        if found != first and parts.was_archived(db, first):
            continue
        if text is not None:
            yield Page(text, _entries(parts, first, until))
            first = until + 1
        else:  # Events are missing: continue at the next one.
            first = _value(db, "SELECT coalesce(min(seq), ?2 + 1) FROM events WHERE seq > ?1", until, end)


def chain_pages(parts: Parts, first: Seq, last: Seq) -> Iterator[ChainPage]:
    """The hashed values of rows first..last, over every part of the log. Raises CorruptState as `text_pages`."""
    while first <= last:
        db, end = parts.part(first, last)
        until = min(first + PAGE_ROWS - 1, end)
        with locating_damage(first):
            found: tuple[Any, ...] = db.execute(CHAIN_PAGE, (first, until)).fetchall()[0]
        rows = until - first + 1
        if found[0] != rows and parts.was_archived(db, first):
            continue
        yield ChainPage._make((rows, *found, _rows(parts, first, until)))
        first = until + 1


@contextlib.contextmanager
def read_ahead(pages: Iterator[P]) -> Iterator[Iterator[P]]:
    """The same pages, read by a separate thread: SQLite releases the GIL while it reads, and the fold uses it.

    No other thread may use the connection inside the block. The thread has ended after it.
    """
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        yield _ahead(pages, reader)


def _ahead(pages: Iterator[P], reader: ThreadPoolExecutor) -> Iterator[P]:
    ahead = deque(reader.submit(next, pages, None) for _ in range(PAGES_AHEAD))
    while (page := ahead.popleft().result()) is not None:
        ahead.append(reader.submit(next, pages, None))
        yield page._replace(entries=functools.partial(_result, reader, page.entries))


def _result(reader: ThreadPoolExecutor, read: Callable[[], list[Any]]) -> list[Any]:
    return reader.submit(read).result()


@contextlib.contextmanager
def locating_damage(first: Seq) -> Iterator[None]:
    """Adds the position to SQLite's error about a damaged page."""
    try:
        yield
    except apsw.CorruptError as error:
        raise CorruptState(
            f"The log is damaged somewhere after event {first - 1} ({error}); `hive audit verify` names the place."
            " Restore it from a backup."
        ) from error


def _entries(parts: Parts, first: Seq, last: Seq) -> Callable[[], list[Entry]]:
    def read() -> list[Entry]:
        db, _ = parts.part(first, last)
        with locating_damage(first):
            return cast(list[Entry], db.execute(_ENTRIES, (first, last)).fetchall())

    return read


def _rows(parts: Parts, first: Seq, last: Seq) -> Callable[[], list[Row]]:
    def read() -> list[Row]:
        db, _ = parts.part(first, last)
        with locating_damage(first):
            found = db.execute(f"SELECT {COLUMNS} FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last))
            return [Row(*row) for row in found]

    return read


def _page(db: apsw.Connection, first: Seq, last: Seq) -> tuple[str | None, Seq | None]:
    """The text of a page, and the first event on it."""
    with locating_damage(first):
        found, text = db.execute(_TEXT, (first, last)).fetchall()[0]
        return cast(str | None, text), cast(Seq | None, found)


def _value(db: apsw.Connection, query: str, first: Seq, last: Seq) -> Seq:
    with locating_damage(first):
        return cast(Seq, db.execute(query, (first, last)).fetchall()[0][0])
