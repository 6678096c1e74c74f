"""Archived segments of the log, and the log as one: the segments and then the live table. Used by every reader.

A segment is an SQLite database with the tables of the log, compressed with zstd. It is opened in memory.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from hive.errors import CorruptState
from hive.events.base import Seq
from hive.events.chain import GENESIS, Head

FOLDER: Final = "archive"
"""In the state folder."""
SUFFIX: Final = ".zst"
LEVEL: Final = 3
"""Of the compression: higher levels take several times as long for a few percent."""

_LISTED: Final = "SELECT first, last, first_hash, last_hash, last_at FROM segments"
_TABLES: Final = """
CREATE TABLE events(seq INTEGER PRIMARY KEY, at TEXT NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL,
    by TEXT NOT NULL, hash BLOB NOT NULL, salt BLOB);
CREATE TABLE erased(seq INTEGER PRIMARY KEY, content BLOB NOT NULL, erasure INTEGER NOT NULL);
"""


class Segment(NamedTuple):
    """Consecutive events in one file; a row of the log's table `segments`."""

    first: Seq
    last: Seq
    first_hash: bytes
    last_hash: bytes
    last_at: str
    """Of the last event, as its `at` column."""

    @property
    def name(self) -> str:
        return f"events-{self.first:012d}-{self.last:012d}-{self.last_hash.hex()}{SUFFIX}"


class Parts:
    """The log as one. Owned by one thread at a time; keeps the segment that was read last in memory."""

    def __init__(self, db: apsw.Connection, folder: Path):
        self.live = db
        self.folder = folder / FOLDER
        self._opened: tuple[tuple[str, int], apsw.Connection] | None = None

    def segments(self) -> list[Segment]:
        """Every archived segment, oldest first."""
        return [Segment(*row) for row in self.live.execute(f"{_LISTED} ORDER BY first")]

    def segment_at(self, seq: Seq) -> Segment | None:
        """The segment that has this event."""
        found = self.live.execute(f"{_LISTED} WHERE first <= ? ORDER BY first DESC LIMIT 1", (seq,)).fetchone()
        segment = None if found is None else Segment(*found)
        return segment if segment is not None and segment.last >= seq else None

    def part(self, first: Seq, last: Seq) -> tuple[apsw.Connection, Seq]:
        """A connection that has the event `first`, and the last event up to `last` that it has."""
        segment = self.segment_at(first)
        return (self.live, last) if segment is None else (self.open(segment), min(last, segment.last))

    def was_archived(self, db: apsw.Connection, first: Seq) -> bool:
        """Whether an event that was looked for in the live table has moved into a segment meanwhile."""
        return db is self.live and self.segment_at(first) is not None

    def open(self, segment: Segment) -> apsw.Connection:
        """The segment's database, in memory; valid until the next call.

        Raises:
            CorruptState: its file is missing or damaged.
        """
        path = self.folder / segment.name
        known = (segment.name, path.stat().st_ino if path.exists() else 0)  # An erasure writes another file.
        if self._opened is not None and self._opened[0] == known:
            return self._opened[1]
        self._opened = None
        db = opened(path)
        self._opened = (known, db)
        return db

    def forget(self) -> None:
        """Drop the segment in memory: it may hold what was erased."""
        self._opened = None

    def head(self) -> Head:
        """The newest event. It is never archived."""
        row = self.live.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return Head(*row) if row else Head(0, GENESIS)

    def hash_at(self, seq: Seq) -> bytes | None:
        """The chain's hash at a position; None beyond the head. Ends of segments need no file."""
        if seq == 0:
            return GENESIS
        segment = self.segment_at(seq)
        if segment is not None and seq in (segment.first, segment.last):
            return segment.first_hash if seq == segment.first else segment.last_hash
        db = self.live if segment is None else self.open(segment)
        row = db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        if row is None and self.was_archived(db, seq):
            return self.hash_at(seq)
        return row[0] if row else None

    def select(
        self, query: str, values: tuple[object, ...], first: Seq = 1, since: str = ""
    ) -> Generator[Any, None, None]:
        """The rows of a query over `events` in every part, oldest part first; skips parts before an event or a time."""
        done = first - 1
        while True:
            cursor = self.live.execute(query, values)  # Its snapshot also holds the list of segments.
            waiting = [one for one in self.segments() if one.last > done]
            if not waiting:
                yield from cursor
                return
            cursor.close()
            for segment in waiting:
                if segment.last_at >= since:
                    yield from self.open(segment).execute(query, values)
                done = segment.last

    def select_newest(self, query: str, values: tuple[object, ...], limit: int, first: Seq = 1) -> list[Any]:
        """The rows of a query in descending order, from the newest part on until there are `limit`."""
        self.live.execute("BEGIN")
        try:
            found = self.live.execute(query, values).fetchall()[:limit]
            segments = self.segments()
        finally:
            self.live.execute("COMMIT")
        for segment in reversed(segments):
            if len(found) >= limit or segment.last < first:
                break
            found += self.open(segment).execute(query, values).fetchall()[: limit - len(found)]
        return found


def empty_segment() -> apsw.Connection:
    """A database in memory with the tables of a segment."""
    db = apsw.Connection(":memory:")
    db.execute("PRAGMA secure_delete=ON;" + _TABLES).fetchall()
    return db


def opened(path: Path) -> apsw.Connection:
    """A segment's file as a database in memory. Raises CorruptState: missing or damaged."""
    import zstandard

    try:
        content = zstandard.ZstdDecompressor().decompress(path.read_bytes())
        db = apsw.Connection(":memory:")
        db.deserialize("main", content)
        db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except FileNotFoundError as error:
        raise CorruptState(f"{path} is missing: it holds a part of the log. Restore it from a backup.") from error
    except (zstandard.ZstdError, apsw.Error) as error:
        raise CorruptState(f"{path} is damaged ({error}). Restore it from a backup.") from error
    return db


def write(db: apsw.Connection, path: Path) -> None:
    """Write a segment's database durably; the file is complete before it has its name. Raises OSError."""
    import zstandard

    db.execute("VACUUM").fetchall()
    content = db.serialize("main")
    unfinished = path.with_name(path.name + ".new")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        give_to_owner(fd, path.parent)
        file.write(zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(content))
        file.flush()
        os.fsync(fd)
    unfinished.rename(path)


def give_to_owner(made: int | Path, of: Path) -> None:
    """Give what root made to the owner of a file or folder beside it, so that the daemon's own user can use it."""
    owner = of.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(made, owner.st_uid, owner.st_gid)
