"""Compares the log with heads recorded in projections.db, the anchor file and the system journal."""

import os
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from hive.audit import anchors
from hive.audit.reading import projections_db, translating_sqlite_errors
from hive.audit.system_journal import JournalAnchor, SystemJournal
from hive.errors import CorruptState, HiveError, Unavailable
from hive.events.base import Seq
from hive.events.chain import ChainError, Head
from hive.events.log import LogReader
from hive.paths import Paths
from hive.projections.store import stored_positions

JOURNAL: Final = "system journal"


class AnchorComparison(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The comparison with one source."""

    where: str
    state: Literal["agrees", "contradicts", "nothing to compare", "missing", "unreadable"]
    anchors: int = 0
    """Number of compared positions."""
    seq: Seq | None = None
    """The newest position that agrees."""
    note: str | None = None
    """A problem with the source itself, for people; not a failure of the log."""


class Seen(NamedTuple):
    """A position and the chain's hash there."""

    seq: Seq
    hash: str
    """Hex."""


class AnchorSource(NamedTuple):
    """Recorded heads of one source, not compared yet."""

    where: str
    seen: list[Seen]
    missing: Literal["missing", "unreadable"] | None = None
    note: str | None = None


def anchor_sources(paths: Paths, first: bytes | None, journal: SystemJournal | None) -> list[AnchorSource]:
    """`first`: the hash of the first event, which identifies the log in the system journal."""
    found = [_of_projections(paths), _of_anchors(paths)]
    return found if journal is None else [*found, _of_journal(paths, first, journal)]


class _Log(Protocol):
    """A reader of a log of any schema."""

    def head(self) -> Head: ...

    def hash_at(self, seq: Seq) -> bytes | None: ...

    def close(self) -> None: ...


class _OpenLog(Protocol):
    def __call__(self, folder: Path, *, daemon_runs: bool) -> _Log: ...


def refuse_truncated(paths: Paths, open_log: _OpenLog = LogReader) -> str | None:
    """Compare the log with the newest recorded head beside it before a daemon appends. Reads two rows.

    The caller holds the state's lock. Returns a problem with the anchor file itself, for people.

    Raises:
        CorruptState: recorded events are missing from the log or differ.
    """
    file = _of_anchors(paths)
    for one in (file, _of_projections(paths, daemon_runs=False)):
        if one.seen:
            _refuse(paths, one.where, max(one.seen), open_log)
    return None if file.note is None else f"{paths.anchors}: {file.note}"


def _refuse(paths: Paths, where: str, newest: Seen, open_log: _OpenLog) -> None:
    end, found = 0, None
    if paths.events.exists():
        with translating_sqlite_errors(paths.events):
            reader = open_log(paths.state, daemon_runs=False)
            try:
                end, found = reader.head().seq, reader.hash_at(newest.seq)
            finally:
                reader.close()
    if found is not None and found.hex() == newest.hash:
        return
    what = f"has another event {newest.seq} than" if found is not None else f"ends at event {end}, not {newest.seq} as"
    raise CorruptState(
        f"The log in {paths.state} {what} {where} has seen it: events were cut off or rewritten, or an older copy was"
        f" put back. See `hive audit verify`; restore the newest backup, or go on without those events by removing"
        f" {paths.anchors.name} and {paths.projections.name} there."
    )


def compared(
    reader: LogReader, count: int, anchor_sources: list[AnchorSource], *, is_whole: bool
) -> tuple[tuple[AnchorComparison, ...], ChainError | None]:
    """Compare each source with the `count` events that verify; also returns the first contradicted event.

    A truncated or rewritten chain still verifies; only an earlier record of its head shows it. A broken chain is
    compared up to the break.
    """
    comparisons, broken = [], list[ChainError]()
    for one in anchor_sources:
        seen = sorted(one.seen if is_whole else (each for each in one.seen if each.seq <= count))
        agreed: Seq | None = None
        contradiction: ChainError | None = None
        for seq, hash_ in seen:
            contradiction = _contradiction(reader, count, one.where, Seen(seq, hash_))
            if contradiction is not None:
                broken.append(contradiction)
                break
            agreed = seq
        state = one.missing or ("contradicts" if contradiction else "agrees" if seen else "nothing to compare")
        comparisons.append(AnchorComparison(where=one.where, state=state, anchors=len(seen), seq=agreed, note=one.note))
    return tuple(comparisons), min(broken, default=None)


def _contradiction(reader: LogReader, count: int, where: str, seen: Seen) -> ChainError | None:
    if seen.seq > count:
        return ChainError(count + 1, f"is missing: {where} has seen events up to {seen.seq}")
    found = reader.hash_at(seen.seq)
    if found is None or found.hex() != seen.hash:
        return ChainError(seen.seq, f"is not the event that {where} has seen: the chain was made anew")
    return None


def _of_projections(paths: Paths, *, daemon_runs: bool | None = None) -> AnchorSource:
    where = paths.projections.name
    if not paths.projections.exists():
        return AnchorSource(where, [], "missing")
    try:
        with projections_db(paths, daemon_runs=daemon_runs) as db:
            return AnchorSource(where, [Seen(one.seq, one.hash.hex()) for one in stored_positions(db) if one.seq])
    except (HiveError, AttributeError, TypeError) as error:  # Disposable and not verified here.
        return AnchorSource(where, [], "unreadable", str(error))


def _of_anchors(paths: Paths) -> AnchorSource:
    where = paths.anchors.name
    try:
        kept = anchors.read(paths.anchors)
    except FileNotFoundError:
        return AnchorSource(where, [], "missing")
    except OSError as error:
        return AnchorSource(where, [], "unreadable", error.strerror)
    lines = ", ".join(map(str, kept.damaged[:3])) + ("…" if len(kept.damaged) > 3 else "")
    note = f"damaged lines, not compared: {lines}" if kept.damaged else None
    return AnchorSource(where, [Seen(one.seq, one.hash) for one in kept.anchors], None, note)


def _of_journal(paths: Paths, first: bytes | None, journal: SystemJournal) -> AnchorSource:
    log = first or b""
    owners = {0, os.geteuid(), paths.events.stat().st_uid}
    try:
        noted = journal.noted(paths.state, log, owners)
    except Unavailable as error:
        return AnchorSource(JOURNAL, [], "unreadable", str(error))
    ours = [Seen(one.seq, one.hash) for one in noted if one.log == log.hex()]
    return AnchorSource(JOURNAL, ours, None, _of_others(log, noted))


def _of_others(log: bytes, noted: list[JournalAnchor]) -> str | None:
    """A log rewritten from its first event looks like another log to the journal; so does a legitimate new start."""
    others = [one for one in noted if one.log != log.hex()]
    if not others:
        return None
    newest = max(others, key=lambda one: one.at)
    return f"another log lay in this folder: it had event {newest.seq} on {newest.at}. Was it begun anew on purpose?"
