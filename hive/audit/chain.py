"""Verifies the log: its hash chain, its file, and the heads recorded elsewhere."""

import contextlib
from collections.abc import Iterator

import apsw
import msgspec

from hive.audit.anchor_check import AnchorComparison, AnchorSource, anchor_sources, compared
from hive.audit.reading import Tell, log_reader, watched
from hive.audit.system_journal import SystemJournal
from hive.errors import HiveError
from hive.events.base import Seq
from hive.events.chain import GENESIS, ChainError, Row, intact_length, link, verify
from hive.events.codec import Codec
from hive.events.erasing import Erased, Spans, covers
from hive.events.log import LogReader
from hive.events.pages import read_ahead
from hive.paths import Paths


class Erasure(msgspec.Struct, frozen=True):
    """One decided erasure whose rows verify by their kept content hashes."""

    seq: Seq
    """Of the `Erased` event."""
    at: str
    by: str
    why: str
    rows: int


class Verification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a verification."""

    ok: bool
    events: int
    """Number of events from the first that verify."""
    head: str | None = None
    """Hash of the last verified event, hex."""
    bad_seq: Seq | None = None
    why: str | None = None
    erasures: tuple["Erasure", ...] = ()
    """What was erased, by whom and why."""
    anchors: tuple[AnchorComparison, ...] = ()
    """Comparison with each source of recorded heads."""


def verify_log(paths: Paths, tell: Tell, journal: SystemJournal | None = None) -> Verification:
    """Verify the whole chain and compare it with the anchors beside the log and, if given, in the system journal.

    Raises:
        Unavailable: there is no log.
        CorruptState: it cannot even be opened as one.
    """
    with log_reader(paths) as reader:
        seen = _anchor_sources(paths, reader, journal)  # Before reading the head: a running daemon writes both.
        count, broken = _walk(reader, tell)
        anchors, contradicted = compared(reader, count, seen, is_whole=broken is None)
        broken = broken or contradicted
        if broken is not None:
            return Verification(ok=False, events=count, bad_seq=broken.seq, why=broken.why, anchors=anchors)
        erasures, unexplained = _erasures(reader)
        if unexplained is not None:
            return Verification(
                ok=False, events=unexplained.seq - 1, bad_seq=unexplained.seq, why=unexplained.why, anchors=anchors
            )
        damage = _damage(reader)
        if damage is not None:
            why = f"every event holds, but the file is damaged: {damage}"
            return Verification(ok=False, events=count, why=why, anchors=anchors)
        return Verification(
            ok=True, events=count, head=(reader.hash_at(count) or GENESIS).hex(), anchors=anchors, erasures=erasures
        )


def _anchor_sources(paths: Paths, reader: LogReader, journal: SystemJournal | None) -> list[AnchorSource]:
    try:
        first = reader.hash_at(1)
    except (apsw.Error, UnicodeDecodeError):  # The walk will say so.
        first = None
    return anchor_sources(paths, first, journal)


def _walk(reader: LogReader, tell: Tell) -> tuple[int, ChainError | None]:
    with contextlib.suppress(HiveError, apsw.Error, UnicodeDecodeError, TypeError):
        with read_ahead(reader.chain()) as pages:
            count = intact_length(pages, tell)
        if count is not None:
            return count, None
    try:
        return verify(watched(reader.rows(1), tell))
    except (HiveError, apsw.Error, UnicodeDecodeError, TypeError) as error:
        return _walk_singly(reader, error)


def _walk_singly(reader: LogReader, error: Exception) -> tuple[int, ChainError | None]:
    """SQLite does not name the row of a damaged page, so read the rows one by one."""
    last, seq = GENESIS, 0
    while True:
        seq += 1
        try:
            row = next(_one(reader, seq), None)
        except (HiveError, apsw.Error, UnicodeDecodeError) as unreadable:
            return seq - 1, ChainError(seq, f"cannot be read: {unreadable}")
        if row is None:
            return seq - 1, ChainError(seq, f"is missing or cannot be found: {error}")
        last, why = link(last, row)
        if why is not None:
            return seq - 1, ChainError(seq, why)


def _one(reader: LogReader, seq: Seq) -> Iterator[Row]:
    return reader.rows(seq, seq)


def _erasures(reader: LogReader) -> tuple[tuple[Erasure, ...], ChainError | None]:
    """Every erased row must be one that an `Erased` event names."""
    named: dict[Seq, Spans] = {}
    counts: dict[Seq, int] = {}
    for seq, of in reader.erased():
        if of not in named:
            named[of] = _spans(reader, of)
        if not covers(named[of], seq):
            return (), ChainError(seq, f"is erased, but event {of} is no `Erased` event that names it")
        counts[of] = counts.get(of, 0) + 1
    rows = ((next(reader.rows(of, of)), count) for of, count in sorted(counts.items()))
    return tuple(Erasure(row.seq, row.at, row.by, _why(row), count) for row, count in rows), None


def _spans(reader: LogReader, of: Seq) -> Spans:
    row = next(reader.rows(of, of), None)
    event = None if row is None or row.type != Erased.__name__ else Codec().decode(row.type, row.data)
    return event.rows if isinstance(event, Erased) else ()


def _why(row: Row) -> str:
    event = Codec().decode(row.type, row.data)
    assert isinstance(event, Erased), "its spans were read"
    return event.why


def _damage(reader: LogReader) -> str | None:
    try:
        return reader.damage()
    except (apsw.Error, UnicodeDecodeError) as error:
        return str(error)
