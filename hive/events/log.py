"""The ground state: an append-only, hash-chained table of events. One writer, any number of readers."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import apsw

from hive.clock import MS_PER_S, parse_rfc3339, rfc3339
from hive.errors import CorruptState, Unavailable
from hive.events.base import Seq
from hive.events.pages import Page, locating_damage, text_pages
from hive.events.sqlite import connect

FILE_NAME: Final = "events.db"
APPLICATION_ID: Final = 0x68697665
"""`hive` in ASCII; tells the file from any other database."""
SCHEMA_VERSION: Final = 1
PAGE_BYTES: Final = 8_192
"""Of a new log: the usual page of 4 KiB holds a dozen rows and wastes the place of another, a twelfth of the file."""
WAL_PAGES: Final = 2_000
"""About 16 MiB: checkpointed from here on, then overwritten; a WAL that grows syncs half as fast."""
PAGE_ROWS: Final = 2_000
"""Rows read by one statement, so that no reader holds back a checkpoint for long."""
INSERT_SIZES: Final = (64, 8, 1)
"""Rows inserted by one statement, the largest that fits first; each size is prepared once."""
GENESIS: Final = b"\0" * 32
"""What the first event is chained to."""

STAMP_CHARS: Final = len("2026-01-31T09:30:00.125Z")

_NEVER_REPLACED = """
CREATE TRIGGER IF NOT EXISTS events_are_never_replaced BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE seq = new.seq)
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
"""
"""INSERT OR REPLACE deletes what is in its way, and SQLite calls no DELETE trigger for that."""
_SCHEMA = f"""
CREATE TABLE events(
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    by TEXT NOT NULL,
    hash BLOB NOT NULL
);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
{_NEVER_REPLACED}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_COLUMNS = "seq, at, type, data, by, hash"
_CHAINED = (
    "seq, CASE WHEN typeof(at) = 'text' AND typeof(type) = 'text' AND typeof(data) = 'text' AND typeof(by) = 'text'"
    " AND instr(at || type || by, char(10)) = 0"
    " THEN CAST(seq || char(10) || at || char(10) || type || char(10) || by || char(10) || data AS BLOB) ELSE x'' END,"
    " hash"
)
"""What `chained` hashes, put together by SQLite; nothing for a row that `chained` would not take."""
_INSERTS = {size: "INSERT INTO events VALUES" + ",".join(["(?,?,?,?,?,?)"] * size) for size in INSERT_SIZES}


class Row(NamedTuple):
    """One line of the log, undecoded."""

    seq: Seq
    at: str
    """RFC 3339 UTC."""
    type: str
    data: str
    """JSON."""
    by: str
    hash: bytes
    """SHA-256 over the hash before and this row."""


class Head(NamedTuple):
    """The end of the chain."""

    seq: Seq
    hash: bytes


def chained(before: bytes, seq: Seq, at: str, type_: str, data: str, by: str) -> bytes:
    """The hash of a row. `data` stands last: the fields before it hold no newline, so none can pass for another."""
    return hashlib.sha256(before + f"{seq}\n{at}\n{type_}\n{by}\n{data}".encode()).digest()


class EventLog:
    """The writer's side. Owned by one thread; the caller holds the daemon's lock."""

    def __init__(self, folder: Path):
        self.path = folder / FILE_NAME
        if not self.path.exists():
            _create(self.path)
        self._db = connect(self.path, write=True)
        _refuse_foreign(self._db, self.path)
        self._db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0").fetchall()
        self._db.execute(_NEVER_REPLACED)  # A log that is older than this trigger gets it, too.
        self.head = _head(self._db)

    def append(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        """Chain and commit (at, type, data, by) rows; durable when it returns.

        Raises:
            Unavailable: the disk refused; nothing was appended.
        """
        seq, last = self.head
        chain = []
        for at, type_, data, by in rows:
            seq += 1
            last = chained(last, seq, at, type_, data, by)
            chain.append((seq, at, type_, data, by, last))
        try:
            self._db.execute("BEGIN IMMEDIATE")
            _insert(self._db, chain)
            self._db.execute("COMMIT")
        except apsw.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise Unavailable(f"The log cannot be written: {error}. Free disk space or check the disk.") from error
        self.head = Head(seq, last)

    def rows(self, first: Seq, last: Seq | None = None) -> Iterator[Row]:
        """Rows first..last, oldest first."""
        return _pages(self._db, first, self.head.seq if last is None else last)

    def pages(self, first: Seq, last: Seq | None = None) -> Iterator[Page]:
        """The same for a fold, page by page."""
        return text_pages(self._db, first, self.head.seq if last is None else last)

    def hash_at(self, seq: Seq) -> bytes | None:
        """The chain's hash at a position; None beyond the head."""
        return _hash_at(self._db, seq)

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
        _refuse_foreign(self._db, path)

    def head(self) -> Head:
        """The newest committed event."""
        return _head(self._db)

    def rows(self, first: Seq, last: Seq | None = None) -> Iterator[Row]:
        """Rows first..last (default: the head when called), oldest first."""
        return _pages(self._db, first, self.head().seq if last is None else last)

    def pages(self, first: Seq, last: Seq | None = None) -> Iterator[Page]:
        """The same for a fold, page by page."""
        return text_pages(self._db, first, self.head().seq if last is None else last)

    def chain(self, first: Seq = 1) -> Iterator[list[tuple[Seq, bytes, bytes]]]:
        """From `first` to the head: seq, the bytes that are hashed, the hash; or an odd row's `b""` in their place."""
        return cast(Iterator[list[tuple[Seq, bytes, bytes]]], _paged(self._db, _CHAINED, first, self.head().seq))

    def newest(self, limit: int, types: tuple[str, ...] = (), agent: str | None = None, first: Seq = 1) -> list[Row]:
        """The newest `limit` rows that match, oldest first. `agent` matches by who caused it or whom it is about."""
        where, values = _filter(types, agent)
        query = f"SELECT {_COLUMNS} FROM events WHERE seq >= ? {where} ORDER BY seq DESC LIMIT ?"
        return [Row(*row) for row in self._db.execute(query, (first, *values, limit))][::-1]

    def matching(self, first: Seq, limit: int, types: tuple[str, ...] = (), agent: str | None = None) -> list[Row]:
        """The oldest `limit` rows from `first` on that match."""
        where, values = _filter(types, agent)
        query = f"SELECT {_COLUMNS} FROM events WHERE seq >= ? {where} ORDER BY seq LIMIT ?"
        return [Row(*row) for row in self._db.execute(query, (first, *values, limit))]

    def where(self, condition: str, values: tuple[object, ...] = ()) -> Iterator[Row]:
        """Every row for which an SQL condition over the columns holds, oldest first."""
        query = f"SELECT {_COLUMNS} FROM events WHERE {condition} ORDER BY seq"
        return map(Row._make, self._db.execute(query, values))

    def last_until(self, at: str) -> Seq:
        """The newest event at or before an RFC 3339 time as `at` is written; 0 when there is none."""
        query = "SELECT seq FROM events WHERE at <= ? ORDER BY seq DESC LIMIT 1"
        row = self._db.execute(query, (at,)).fetchone()
        return int(row[0]) if row else 0

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file itself; None when it is sound."""
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()
        return None if found is None or found[0] == "ok" else str(found[0])

    def hash_at(self, seq: Seq) -> bytes | None:
        """The chain's hash at a position; None beyond the head."""
        return _hash_at(self._db, seq)

    def close(self) -> None:
        self._db.close()


class ChainError(NamedTuple):
    """Where the chain does not hold."""

    seq: Seq
    why: str


def verify(rows: Iterable[Row]) -> tuple[int, ChainError | None]:
    """Walk the chain from the first event: how many hold, and the first that does not."""
    last, expected = GENESIS, 1
    for seq, at, type_, data, by, stored in rows:
        if seq != expected:
            return expected - 1, ChainError(expected, f"is missing: the next event in the log is {seq}")
        if "\n" in at or "\n" in type_ or "\n" in by:
            return expected - 1, ChainError(seq, "has a line break where none can be")
        last = chained(last, seq, at, type_, data, by)
        if last != stored:
            return expected - 1, ChainError(seq, "does not match its hash: it or the chain before it was changed")
        expected += 1
    return expected - 1, None


def intact_length(pages: Iterable[list[tuple[Seq, bytes, bytes]]], tell: Callable[[Seq], None]) -> int | None:
    """How many events a chain has that holds throughout; None for one that does not, and `verify` says where."""
    last, expected, sha256 = GENESIS, 1, hashlib.sha256
    for page in pages:
        for seq, text, stored in page:
            last = sha256(last + text).digest()
            if seq != expected or last != stored or not text:
                return None
            expected += 1
        tell(expected - 1)
    return expected - 1


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


def _create(path: Path) -> None:
    """Make the file whole before it has its name: one that is there is never half made."""
    fresh = path.with_name(path.name + ".new")
    for left in (fresh, fresh.with_name(fresh.name + "-journal")):
        left.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    db = connect(fresh, write=True)
    db.execute(f"PRAGMA page_size={PAGE_BYTES};BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT").fetchall()
    db.close()
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _insert(db: apsw.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Many rows by one statement: a statement a row gives the interpreter away at each, to whoever computes beside."""
    done = 0
    for size in INSERT_SIZES:
        while len(rows) - done >= size:
            values = [value for row in rows[done : done + size] for value in row]
            db.execute(_INSERTS[size], values)
            done += size


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


def _pages(db: apsw.Connection, first: Seq, last: Seq) -> Iterator[Row]:
    for page in _paged(db, _COLUMNS, first, last):
        yield from map(Row._make, page)


def _paged(db: apsw.Connection, columns: str, first: Seq, last: Seq) -> Iterator[list[tuple[Any, ...]]]:
    query = f"SELECT {columns} FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
    while first <= last:
        with locating_damage(first):
            page = db.execute(query, (first, last, PAGE_ROWS)).fetchall()
        if not page:
            return
        yield page
        first = int(page[-1][0]) + 1  # type: ignore[arg-type]  # The column is an INTEGER PRIMARY KEY.


def _head(db: apsw.Connection) -> Head:
    row = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, GENESIS)


def _hash_at(db: apsw.Connection, seq: Seq) -> bytes | None:
    if seq == 0:
        return GENESIS
    row = db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
    return row[0] if row else None


def _refuse_foreign(db: apsw.Connection, path: Path) -> None:
    application, version = db.pragma("application_id"), db.pragma("user_version")
    if application != APPLICATION_ID:
        raise CorruptState(f"{path} is not a hive's log.")
    if version != SCHEMA_VERSION:
        raise CorruptState(
            f"{path} has schema {version}; this hive reads {SCHEMA_VERSION}. Use the hive that wrote it."
        )
