"""Moves old events from the log's table into compressed segments. Readers see one log throughout."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import apsw
import msgspec

from hive.errors import CorruptState, Unavailable
from hive.events.base import Seq
from hive.events.chain import Row, link
from hive.events.schema import COLUMNS, sync_folder
from hive.events.segments import Parts, Segment, empty_segment, give_to_owner, opened, write
from hive.events.sqlite import connect
from hive.paths import Paths

SEGMENT_EVENTS: Final = 20_000
"""Events per segment, about. A reader holds one in memory; a commit may wait while the rows of one are deleted."""
SEGMENT_BYTES: Final = 32 * 1024 * 1024
"""Data per segment, about."""

Tell = Callable[[Seq], None]


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved."""

    segments: int
    events: int
    archived_until: Seq
    """The newest event in a segment; 0 without any."""
    bytes: int
    """Of the new files."""


def archive(paths: Paths, before: str, tell: Tell, *, shrink: bool) -> Archived:
    """Move every event up to a time into segments. One archiving at a time; a daemon may append meanwhile.

    A segment is durable and verified before its rows leave the table, in the transaction that lists it. Killed in
    here, the log is whole: the next call removes a file that the log does not list.
    `shrink` returns the free pages to the file system; only without a daemon.

    Raises:
        CorruptState: an event does not verify; it stays. Unavailable: the disk refused.
    """
    db = connect(paths.events, write=True)
    try:
        db.execute("PRAGMA secure_delete=ON; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0").fetchall()
        parts = Parts(db, paths.state)
        parts.folder.mkdir(exist_ok=True, mode=0o700)
        give_to_owner(parts.folder, paths.events)
        sync_folder(paths.state)
        remove_unlisted(parts)
        made = list[Segment]()
        end = _end(db, before)
        while (first := _first(db)) is not None and first <= end:
            made.append(_segment(parts, first, _last(db, first, end)))
            tell(made[-1].last)
        if made:
            db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if shrink else 'PASSIVE'})").fetchall()
        if made and shrink:
            db.execute("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        listed = parts.segments()
    except (apsw.Error, OSError) as error:
        raise Unavailable(f"{paths.events} cannot be archived: {error}. Free disk space or check the disk.") from error
    finally:
        db.close()
    return Archived(
        segments=len(made),
        events=sum(one.last - one.first + 1 for one in made),
        archived_until=listed[-1].last if listed else 0,
        bytes=sum((parts.folder / one.name).stat().st_size for one in made),
    )


def remove_unlisted(parts: Parts) -> None:
    """Delete files that a killed archiving left."""
    listed = {one.name for one in parts.segments()}
    for path in parts.folder.iterdir() if parts.folder.exists() else ():
        if path.name not in listed and path.is_file():
            path.unlink()


def _segment(parts: Parts, first: Seq, last: Seq) -> Segment:
    """Write one segment and read it back before the log lists it."""
    db, fresh = parts.live, empty_segment()
    span = (first, last)
    rows = db.execute("SELECT * FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq", span)
    fresh.execute("BEGIN")
    fresh.executemany("INSERT INTO events VALUES(?,?,?,?,?,?,?)", rows)
    fresh.executemany(
        "INSERT INTO erased VALUES(?,?,?)", db.execute("SELECT * FROM erased WHERE seq BETWEEN ? AND ?", span)
    )
    fresh.execute("COMMIT")
    ends = f"SELECT {COLUMNS} FROM events WHERE seq IN (?, ?) ORDER BY seq"
    found = [Row(*row) for row in db.execute(ends, span)]
    segment = Segment(first, last, found[0].hash, found[-1].hash, found[-1].at)
    path = parts.folder / segment.name
    write(fresh, path)
    fresh.close()
    sync_folder(parts.folder)
    _verify(path, parts.hash_at(first - 1) or b"", segment)
    with db:  # In one transaction: a reader finds an event in exactly one part.
        db.execute("INSERT INTO segments VALUES(?,?,?,?,?)", segment)
        db.execute("DELETE FROM erased WHERE seq BETWEEN ? AND ?", span)
        db.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", span)
    return segment


def _verify(path: Path, before: bytes, segment: Segment) -> None:
    """Raises CorruptState: the file does not hold these events."""
    db, last, expected = opened(path), before, segment.first
    for values in db.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq"):
        row = Row(*values)
        last, why = link(last, row)
        if row.seq != expected or why is not None:
            raise CorruptState(f"Event {expected} {why or 'is missing'}; it is not archived. See `hive audit verify`.")
        expected += 1
    db.close()
    if last != segment.last_hash or expected != segment.last + 1:
        raise CorruptState(f"{path} does not end with event {segment.last}; nothing was removed from the log.")


def _first(db: apsw.Connection) -> Seq | None:
    return cast(Seq | None, db.execute("SELECT min(seq) FROM events").fetchall()[0][0])


def _end(db: apsw.Connection, before: str) -> Seq:
    """The newest event up to a time, but never the head."""
    query = "SELECT coalesce(max(seq), 0) FROM events WHERE at <= ?"
    end = cast(Seq, db.execute(query, (before,)).fetchall()[0][0])
    head = cast(Seq, db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchall()[0][0])
    return end if end < head else _whole(db, head - 1, down=True)


def _last(db: apsw.Connection, first: Seq, end: Seq) -> Seq:
    """The last event of a segment. All events of one decision, which have one time, are in one segment."""
    query = (
        "SELECT seq FROM (SELECT seq, sum(octet_length(data)) OVER (ORDER BY seq) AS size FROM events"
        " WHERE seq BETWEEN ?1 AND ?2) WHERE size > ?3 ORDER BY seq LIMIT 1"
    )
    until = min(first + SEGMENT_EVENTS - 1, end)
    found = db.execute(query, (first, until, SEGMENT_BYTES)).fetchone()
    return min(_whole(db, until if found is None else cast(Seq, found[0]), down=False), end)


def _whole(db: apsw.Connection, seq: Seq, *, down: bool) -> Seq:
    """The nearest position, in one direction, at which a time ends."""
    step = -1 if down else 1
    while seq > 0:
        pair = db.execute("SELECT at FROM events WHERE seq IN (?, ?)", (seq, seq + 1)).fetchall()
        if len(pair) < 2 or pair[0] != pair[1]:
            return seq
        seq += step
    return seq
