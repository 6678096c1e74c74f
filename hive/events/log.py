"""The ground state: an append-only, hash-chained table of events. One writer, any number of readers."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import apsw

from hive.clock import MS_PER_S, parse_rfc3339, rfc3339
from hive.errors import Unavailable
from hive.events.base import Seq
from hive.events.chain import GENESIS, SALT_BYTES, ChainError, ChainPage, Head, Row, verify
from hive.events.pages import Page, chain_pages, locating_damage, text_pages
from hive.events.schema import (
    COLUMNS,
    NEVER_REPLACED,
    PAGE_BYTES,
    SCHEMA_VERSION,
    create,
    refuse_foreign,
)
from hive.events.segments import Parts
from hive.events.sqlite import connect

__all__ = ["GENESIS", "PAGE_BYTES", "ChainError", "EventLog", "Head", "LogReader", "Row", "verify"]

FILE_NAME: Final = "events.db"
WAL_PAGES: Final = 2_000
"""About 16 MiB: the WAL is checkpointed at this length and then overwritten; a growing WAL syncs half as fast."""
PAGE_ROWS: Final = 2_000
"""Rows per statement, so that no reader delays a checkpoint for long."""
INSERT_SIZES: Final = (8, 1)
"""Rows per INSERT statement, the largest that fits first; each is prepared once. Longer ones cost more per row."""

STAMP_CHARS: Final = len("2026-01-31T09:30:00.125Z")
ROW_VALUES: Final = 7
"""Columns of the table."""
_VALUES: Final = f"({','.join('?' * ROW_VALUES)})"
_INSERTS: Final = {size: "INSERT INTO events VALUES" + ",".join([_VALUES] * size) for size in INSERT_SIZES}


class EventLog:
    """The writer's side. Owned by one thread; the caller holds the daemon's lock."""

    def __init__(self, folder: Path):
        self.path = folder / FILE_NAME
        if not self.path.exists():
            create(self.path)
        self._db = connect(self.path, write=True)
        self._schema = refuse_foreign(self._db, self.path)
        self._db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0").fetchall()
        self._db.execute("PRAGMA secure_delete=ON").fetchall()  # Else the first page keeps a copy of the first rows.
        self._db.execute(NEVER_REPLACED)  # A log that is older than this trigger gets it, too.
        # The triggers double the cost of a row. Plain INSERT, all this connection runs, cannot replace or change one.
        self._db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        self._parts = Parts(self._db, folder)
        self.head = self._parts.head()

    def append(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        """Chain and commit (at, type, data, by) rows with new salts; durable when it returns.

        Raises:
            Unavailable: the disk refused; nothing was appended.
        """
        rows = list(rows)
        salts, place = os.urandom(SALT_BYTES * len(rows)), 0
        seq, last = self.head
        values: list[Any] = []
        for at, type_, data, by in rows:
            seq += 1
            salt = salts[place : place + SALT_BYTES]
            place += SALT_BYTES
            content = sha256(salt + data.encode()).digest()  # As `chain.chained`, without two calls per event.
            last = sha256(last + f"{seq}\n{at}\n{type_}\n{by}\n".encode() + content).digest()
            values += (seq, at, type_, data, by, last, salt)
        self._commit(values, [])
        self.head = Head(seq, last)

    def append_verified(self, rows: Sequence[Row]) -> None:
        """Append rows of another log with their salts and hashes. The caller has verified that they continue this one.

        Raises:
            Unavailable: the disk refused; nothing was appended.
        """
        erased = [(row.seq, row.content, row.erasure) for row in rows if row.salt is None]
        self._commit([value for row in rows for value in row[:ROW_VALUES]], erased)
        if rows:
            self.head = Head(rows[-1].seq, rows[-1].hash)

    def _commit(self, values: list[Any], erased: list[tuple[Any, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if self._schema != SCHEMA_VERSION:  # From here on the log may hold what older hives do not know.
                self._db.pragma("user_version", SCHEMA_VERSION)
            _insert(self._db, values)
            if erased:
                self._db.executemany("INSERT INTO erased VALUES(?,?,?)", erased)
            self._db.execute("COMMIT")
            self._schema = SCHEMA_VERSION
        except apsw.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise Unavailable(f"The log cannot be written: {error}. Free disk space or check the disk.") from error

    def rows(self, first: Seq, last: Seq | None = None) -> Iterator[Row]:
        """Rows first..last, oldest first."""
        return _pages(self._parts, first, self.head.seq if last is None else last)

    def pages(self, first: Seq, last: Seq | None = None) -> Iterator[Page]:
        """The same for a fold, page by page."""
        return text_pages(self._parts, first, self.head.seq if last is None else last)

    def hash_at(self, seq: Seq) -> bytes | None:
        """The chain's hash at a position; None beyond the head."""
        return self._parts.hash_at(seq)

    def forget_segments(self) -> None:
        """Drop the archived events in memory: they may hold what was erased."""
        self._parts.forget()

    def on_wal_growth(self, tell: Callable[[int], None]) -> None:
        """Call `tell` with the length of the WAL in pages after each commit, on the writer's thread."""

        def hook(_db: apsw.Connection, _name: str, pages: int) -> int:
            tell(pages)
            return apsw.SQLITE_OK

        self._db.set_wal_hook(hook)

    def close(self) -> None:
        """Checkpoint and leave no `-wal` behind, where the disk has room for it."""
        with contextlib.suppress(apsw.FullError, apsw.IOError):  # Nothing is lost: the next one reads the `-wal`.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()


class LogReader:
    """A reader's side: of a running daemon's log, a stopped one's, or a copy. Owned by one thread; writes nothing."""

    def __init__(self, folder: Path, *, daemon_runs: bool):
        """Raises Unavailable when there is no log, CorruptState when it is not one of hive's."""
        path = folder / FILE_NAME
        self._db = connect(path, write=False, daemon_runs=daemon_runs)
        refuse_foreign(self._db, path)
        self._parts = Parts(self._db, folder)

    def head(self) -> Head:
        """The newest committed event."""
        return self._parts.head()

    def rows(self, first: Seq, last: Seq | None = None) -> Iterator[Row]:
        """Rows first..last (default: the head when called), oldest first."""
        return _pages(self._parts, first, self.head().seq if last is None else last)

    def pages(self, first: Seq, last: Seq | None = None) -> Iterator[Page]:
        """The same for a fold, page by page."""
        return text_pages(self._parts, first, self.head().seq if last is None else last)

    def chain(self, first: Seq = 1) -> Iterator[ChainPage]:
        """The hashed values from `first` to the head."""
        return chain_pages(self._parts, first, self.head().seq)

    def newest(self, limit: int, types: tuple[str, ...] = (), agent: str | None = None, first: Seq = 1) -> list[Row]:
        """The newest `limit` rows that match, oldest first. `agent` matches by who caused it or whom it is about."""
        where, values = _filter(types, agent)
        return list(self.where(f"seq >= ? {where}", (first, *values), newest=limit, first=first))

    def matching(self, first: Seq, limit: int, types: tuple[str, ...] = (), agent: str | None = None) -> list[Row]:
        """The oldest `limit` rows from `first` on that match."""
        where, values = _filter(types, agent)
        found = self._parts.select(
            f"SELECT {COLUMNS} FROM events WHERE seq >= ? {where} ORDER BY seq", (first, *values), first
        )
        rows = [Row(*row) for row in islice(found, limit)]
        found.close()
        return rows

    def where(
        self,
        condition: str,
        values: tuple[object, ...] = (),
        *,
        newest: int | None = None,
        first: Seq = 1,
        since: str = "",
    ) -> Iterator[Row]:
        """Every row for which an SQL condition over the columns holds, or the newest of them; oldest first.

        `first` and `since` (RFC 3339) only say which parts of the log need not be read.
        """
        query = f"SELECT {COLUMNS} FROM events WHERE {condition} ORDER BY seq"
        if newest is None:
            return map(Row._make, self._parts.select(query, values, first, since))
        found = self._parts.select_newest(f"{query} DESC LIMIT {newest}", values, newest, first)
        return map(Row._make, found[::-1])

    def erased(self) -> Iterator[tuple[Seq, Seq]]:
        """Every erased row and the `Erased` event that it names."""
        return self._parts.select("SELECT seq, erasure FROM erased ORDER BY erasure, seq", ())

    def last_until(self, at: str) -> Seq:
        """The newest event at or before an RFC 3339 time as `at` is written; 0 when there is none."""
        found = self._parts.select_newest("SELECT seq FROM events WHERE at <= ? ORDER BY seq DESC LIMIT 1", (at,), 1)
        return int(found[0][0]) if found else 0

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file itself; None when it is sound."""
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()
        return None if found is None or found[0] == "ok" else str(found[0])

    def hash_at(self, seq: Seq) -> bytes | None:
        """The chain's hash at a position; None beyond the head."""
        return self._parts.hash_at(seq)

    def close(self) -> None:
        self._db.close()


def checkpoint(folder: Path) -> apsw.Connection:
    """A second connection for PASSIVE checkpoints, so that the writer never waits for one."""
    return connect(folder / FILE_NAME, write=True)


def row_json(row: Row) -> dict[str, object]:
    """The keys of `hive log --json`, but `data` still as text."""
    return {"seq": row.seq, "at": row.at, "type": row.type, "data": row.data, "by": row.by, "hash": row.hash.hex()}


@functools.lru_cache(maxsize=4)
def stamp(now_ms: int) -> str:
    """The `at` column. Events come by the dozen in one millisecond."""
    return rfc3339(now_ms)


def stamped_ms(at: str) -> int:
    """Unix milliseconds of an `at` column."""
    if len(at) != STAMP_CHARS or at[-1] != "Z":
        return parse_rfc3339(at)
    try:
        return round(datetime.fromisoformat(at).timestamp() * MS_PER_S)
    except (ValueError, OverflowError):
        return parse_rfc3339(at)


def _insert(db: apsw.Connection, values: list[Any]) -> None:
    """Several rows by one statement: each statement releases the interpreter to a thread that may keep it for long."""
    done = 0
    for size in INSERT_SIZES:
        length = size * ROW_VALUES
        while len(values) - done >= length:
            db.execute(_INSERTS[size], values[done : done + length])
            done += length


def _filter(types: tuple[str, ...], agent: str | None) -> tuple[str, list[object]]:
    where, values = "", list[object]()
    if types:
        where += f"AND type IN ({','.join('?' * len(types))}) "
        values += types
    if agent is not None:
        keys = ("agent", "from", "to", "asker", "target")
        about = " OR ".join(f"data ->> '{key}' = ?" for key in keys)
        where += f"AND (by = ? OR {about}) "
        values += [f"agent:{agent}", *[agent] * len(keys)]
    return where, values


def _pages(parts: Parts, first: Seq, last: Seq) -> Iterator[Row]:
    for page in _paged(parts, COLUMNS, first, last):
        yield from map(Row._make, page)


def _paged(parts: Parts, columns: str, first: Seq, last: Seq) -> Iterator[list[tuple[Any, ...]]]:
    query = f"SELECT {columns} FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
    while first <= last:
        db, until = parts.part(first, last)
        with locating_damage(first):
            page = db.execute(query, (first, until, PAGE_ROWS)).fetchall()
        if (not page or page[0][0] != first) and parts.was_archived(db, first):
            continue
        if page:
            yield page
        elif db is parts.live:
            return
        first = cast(Seq, page[-1][0]) + 1 if page else until + 1
