"""Pages of the log for a fold: one SQL statement builds a page as JSON text, one call decodes it."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, cast

import apsw

from hive.errors import CorruptState
from hive.events.base import Seq

PAGE_ROWS: Final = 1_024
"""Larger pages use more memory and are not faster."""
PAGES_AHEAD: Final = 2
"""One page is read while another waits to be decoded."""

_TEXT: Final = (
    "SELECT '[[\"' || group_concat(concat(type, '\",', seq, ',\"', at, '\",', json_quote(by), ',', data), '],[\"')"
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


def text_pages(db: apsw.Connection, first: Seq, last: Seq) -> Iterator[Page]:
    """Rows first..last.

    Raises:
        CorruptState: SQLite cannot read them.
    """
    while first <= last:
        until = min(first + PAGE_ROWS - 1, last)
        text = _value(db, _TEXT, first, until)
        if text is not None:
            yield Page(cast(str, text), _entries(db, first, until))
            first = until + 1
        else:  # Events are missing: continue at the next one.
            first = cast(Seq, _value(db, "SELECT coalesce(min(seq), ?2 + 1) FROM events WHERE seq > ?1", until, last))


@contextlib.contextmanager
def read_ahead(pages: Iterator[Page]) -> Iterator[Iterator[Page]]:
    """The same pages, read by a separate thread: SQLite releases the GIL while it reads, and the fold uses it.

    No other thread may use the connection inside the block. The thread has ended after it.
    """
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        yield _ahead(pages, reader)


def _ahead(pages: Iterator[Page], reader: ThreadPoolExecutor) -> Iterator[Page]:
    ahead = deque(reader.submit(next, pages, None) for _ in range(PAGES_AHEAD))
    while (page := ahead.popleft().result()) is not None:
        ahead.append(reader.submit(next, pages, None))
        yield Page(page.text, functools.partial(_result, reader, page.entries))


def _result(reader: ThreadPoolExecutor, read: Callable[[], list[Entry]]) -> list[Entry]:
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


def _entries(db: apsw.Connection, first: Seq, last: Seq) -> Callable[[], list[Entry]]:
    def read() -> list[Entry]:
        with locating_damage(first):
            return cast(list[Entry], db.execute(_ENTRIES, (first, last)).fetchall())

    return read


def _value(db: apsw.Connection, query: str, first: Seq, last: Seq) -> object:
    with locating_damage(first):
        return db.execute(query, (first, last)).fetchall()[0][0]
