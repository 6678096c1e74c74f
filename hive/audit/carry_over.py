"""Carries a log of schema 1 over to today's, once: the daemon does it at its first start on such a log."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hive.audit import anchors
from hive.audit.anchor_check import refuse_truncated
from hive.audit.reading import TELL_EVERY_ROWS, Tell, translating_sqlite_errors
from hive.clock import TimeMs
from hive.errors import CorruptState
from hive.events.base import Seq, actor
from hive.events.chain import GENESIS, Head, Row
from hive.events.codec import Codec
from hive.events.daemon import LogCarriedOver
from hive.events.log import EventLog, stamp
from hive.events.schema import schema_version, sync_folder
from hive.events.sqlite import connect
from hive.paths import Paths
from hive.projections.store import discard

OLD_SCHEMA: Final = 1
UNDER_WAY_NAME: Final = ".importing"
"""A folder in the state folder: an incomplete log never has the log's name."""
BATCH_ROWS: Final = 2_000
"""Events per commit."""


def old_hash(before: bytes, seq: Seq, at: str, type_: str, data: str, by: str) -> bytes:
    """A row's hash in schema 1. It covers `data` itself, so no data could be erased."""
    return hashlib.sha256(before + f"{seq}\n{at}\n{type_}\n{by}\n{data}".encode()).digest()


def end_carried(log: EventLog, old_head: Head, now: TimeMs) -> None:
    """Record the head of the old log as the first new event."""
    event = LogCarriedOver(schema=OLD_SCHEMA, events=old_head.seq, head=old_head.hash.hex())
    log.append([(stamp(now), type(event).__name__, Codec().encode(event), str(actor("daemon")))])


def is_due(paths: Paths) -> bool:
    """Whether the log has schema 1. The caller holds the state's lock."""
    if not paths.events.exists():
        return False
    with translating_sqlite_errors(paths.events):
        db = connect(paths.events, write=False, daemon_runs=False)
        try:
            return schema_version(db, paths.events) == OLD_SCHEMA
        finally:
            db.close()


def carry_over(paths: Paths, now: TimeMs, tell: Tell) -> Head:
    """Import every event with a new salt and keep the old file beside the new one; returns the old head.

    The caller holds the state's lock. A process killed in here leaves the old log in place, and the next start
    begins again. Positions and texts stay; hashes change, so the old anchors are kept beside the old log.

    Raises:
        CorruptState: the old log does not verify. Nothing was changed.
    """
    with translating_sqlite_errors(paths.events):
        _one_file(paths.events)
        refuse_truncated(paths, open_log=_OldLog)
        under_way = paths.state / UNDER_WAY_NAME
        shutil.rmtree(under_way, ignore_errors=True)  # Left by a killed process.
        under_way.mkdir(mode=0o700)
        try:
            old_head = _fill(under_way, paths, now, tell)
            _keep_old(paths)
            (under_way / paths.events.name).rename(paths.events)
        finally:
            shutil.rmtree(under_way)
        sync_folder(paths.state)
        _anchor(paths, now)
    return old_head


def _fill(folder: Path, paths: Paths, now: TimeMs, tell: Tell) -> Head:
    old, log = _OldLog(paths.state, daemon_runs=False), EventLog(folder)
    try:
        batch = list[tuple[str, str, str, str]]()
        last, seq = GENESIS, 0
        for row in old.rows():
            last, seq = old_hash(last, *row[:5]), seq + 1
            if row.seq != seq or last != row.hash:
                raise CorruptState(
                    f"Event {seq} of {paths.events} is missing or was changed, so the log is not carried over."
                    " Restore it from a backup."
                )
            batch.append((row.at, row.type, row.data, row.by))
            if len(batch) == BATCH_ROWS:
                log.append(batch)
                batch = []
            if seq % TELL_EVERY_ROWS == 0:
                tell(seq)
        log.append(batch)
        end_carried(log, Head(seq, last), now)
        return Head(seq, last)
    finally:
        old.close()
        log.close()


class _OldLog:
    """A reader of a log of schema 1 that no daemon has open."""

    def __init__(self, folder: Path, *, daemon_runs: bool):
        self._db = connect(folder / "events.db", write=False, daemon_runs=daemon_runs)

    def rows(self) -> Iterator[Row]:
        return map(Row._make, self._db.execute("SELECT seq, at, type, data, by, hash, NULL, NULL, NULL FROM events"))

    def head(self) -> Head:
        found = self._db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return Head(*found) if found else Head(0, GENESIS)

    def hash_at(self, seq: Seq) -> bytes | None:
        found = self._db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        return None if found is None else found[0]

    def close(self) -> None:
        self._db.close()


def _one_file(path: Path) -> None:
    """Checkpoint the WAL of a killed daemon into the file."""
    db = connect(path, write=True)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()


def _keep_old(paths: Paths) -> None:
    """Give the old log and its anchors second names; drop the projections, which are at old hashes."""
    paths.old_events.unlink(missing_ok=True)
    os.link(paths.events, paths.old_events)
    if paths.anchors.exists():
        paths.anchors.replace(paths.old_anchors)
    discard(paths.projections)


def _anchor(paths: Paths, now: TimeMs) -> None:
    log = EventLog(paths.state)
    head = log.head
    log.close()
    anchors.add(paths.anchors, head, now)
    owner = paths.old_events.stat()
    for path in (paths.events, paths.anchors):
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.chown(path, owner.st_uid, owner.st_gid)
