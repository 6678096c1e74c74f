"""Whether the log is what was written: its hash chain, its file, and the end that the projections have seen."""

import contextlib
from collections.abc import Iterator

import apsw
import msgspec

from hive.audit.reading import Tell, log_reader, projections_db, watched
from hive.errors import HiveError
from hive.events.base import Seq
from hive.events.log import GENESIS, Broken, LogReader, Row, chained, holds, verify
from hive.paths import Paths
from hive.projections.store import Stored, stored_positions


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a walk over the chain found."""

    ok: bool
    events: int
    """Those that hold, from the first on."""
    head: str | None = None
    """Hash of the last of them, hex; to be compared with one kept elsewhere."""
    bad_seq: Seq | None = None
    why: str | None = None


def verify_log(paths: Paths, tell: Tell) -> Verdict:
    """Walk the whole chain.

    Raises:
        Unavailable: there is no log.
        CorruptState: it cannot even be opened as one.
    """
    seen = _seen_by_projections(paths)  # Before the head is read: beside a running daemon they must not be ahead of it.
    with log_reader(paths) as reader:
        count, broken = _walk(reader, tell)
        broken = broken or _cut_or_rewritten(reader, count, seen)
        if broken is not None:
            return Verdict(ok=False, events=count, bad_seq=broken.seq, why=broken.why)
        damage = _damage(reader)
        if damage is not None:
            return Verdict(ok=False, events=count, why=f"every event holds, but the file is damaged: {damage}")
        return Verdict(ok=True, events=count, head=(reader.hash_at(count) or GENESIS).hex())


def _walk(reader: LogReader, tell: Tell) -> tuple[int, Broken | None]:
    with contextlib.suppress(HiveError, apsw.Error, UnicodeDecodeError, TypeError):
        if (count := holds(reader.chain(), tell)) is not None:
            return count, None
    try:
        return verify(watched(reader.rows(1), tell))
    except (HiveError, apsw.Error, UnicodeDecodeError, TypeError) as error:
        return _walk_singly(reader, error)


def _walk_singly(reader: LogReader, error: Exception) -> tuple[int, Broken | None]:
    """A damaged page hides which of its rows is the first that cannot be read: read them one by one."""
    last, seq = GENESIS, 0
    while True:
        seq += 1
        try:
            row = next(_one(reader, seq), None)
        except (apsw.Error, UnicodeDecodeError) as unreadable:
            return seq - 1, Broken(seq, f"cannot be read: {unreadable}")
        if row is None:
            return seq - 1, Broken(seq, f"is missing or cannot be found: {error}")
        if not all(isinstance(value, str) for value in row[1:5]):
            return seq - 1, Broken(seq, "holds a value of the wrong kind")
        last = chained(last, *row[:3], row.data, row.by)
        if last != row.hash:
            return seq - 1, Broken(seq, "does not match its hash: it or the chain before it was changed")


def _one(reader: LogReader, seq: Seq) -> Iterator[Row]:
    return reader.where("seq = ?", (seq,))


def _cut_or_rewritten(reader: LogReader, count: int, seen: list[Stored]) -> Broken | None:
    """A chain that was cut, or made anew from some event on, still holds: what the projections folded tells."""
    for stored in sorted(seen, key=lambda stored: stored.seq):
        if stored.seq > count:
            return Broken(count + 1, f"is missing: the projections had seen events up to {stored.seq}")
        if reader.hash_at(stored.seq) != stored.hash:
            return Broken(stored.seq, "is not the event that the projections had seen: the chain was made anew")
    return None


def _seen_by_projections(paths: Paths) -> list[Stored]:
    try:
        with projections_db(paths) as db:
            return stored_positions(db)
    except HiveError:  # Disposable, and not what is verified here.
        return []


def _damage(reader: LogReader) -> str | None:
    try:
        return reader.damage()
    except (apsw.Error, UnicodeDecodeError) as error:
        return str(error)
