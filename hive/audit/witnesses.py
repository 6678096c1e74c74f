"""What else has seen the log: projections.db, the anchor file, the system journal. For verify and `hive up`."""

import os
from typing import Final, Literal, NamedTuple

import msgspec

from hive.audit import anchors
from hive.audit.reading import projections_db, refusing_damage
from hive.audit.system_journal import Noted, SystemJournal
from hive.errors import CorruptState, HiveError, Unavailable
from hive.events.base import Seq
from hive.events.log import Broken, LogReader
from hive.paths import Paths
from hive.projections.store import stored_positions

JOURNAL: Final = "system journal"


class Witness(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of them, and what came of the comparison."""

    where: str
    state: Literal["agrees", "contradicts", "nothing to compare", "missing", "unreadable"]
    anchors: int = 0
    """Positions that were compared."""
    seq: Seq | None = None
    """The newest that agrees."""
    note: str | None = None
    """What is wrong with the witness itself, for people; no failure of the log."""


class Seen(NamedTuple):
    """One position with the chain's hash there."""

    seq: Seq
    hash: str
    """Hex."""


class Testimony(NamedTuple):
    """What one of them has seen, not compared yet."""

    where: str
    seen: list[Seen]
    missing: Literal["missing", "unreadable"] | None = None
    note: str | None = None


def testimonies(paths: Paths, first: bytes | None, journal: SystemJournal | None) -> list[Testimony]:
    """`first`: the hash of the log's first event, by which a journal knows the log."""
    found = [_of_projections(paths), _of_anchors(paths)]
    return found if journal is None else [*found, _of_journal(paths, first, journal)]


def refuse_cut(paths: Paths) -> str | None:
    """Compare the log with the newest that lies beside it, before a daemon goes on from its end; costs two looks.

    The caller holds the state's lock. Returns what is wrong with the anchor file itself, for people.

    Raises:
        CorruptState: the log has lost events that it had, or holds others in their place.
    """
    file = _of_anchors(paths)
    for one in (file, _of_projections(paths, daemon_runs=False)):
        if one.seen:
            _refuse(paths, one.where, max(one.seen))
    return None if file.note is None else f"{paths.anchors}: {file.note}"


def _refuse(paths: Paths, where: str, newest: Seen) -> None:
    end, found = 0, None
    if paths.events.exists():
        with refusing_damage(paths.events):
            reader = LogReader(paths.state, daemon_runs=False)
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
    reader: LogReader, count: int, testimonies: list[Testimony], *, is_whole: bool
) -> tuple[tuple[Witness, ...], Broken | None]:
    """Each against the chain of `count` events that hold, and the first event that one of them contradicts.

    A chain that was cut, or made anew from some event on, still holds; only who saw it before can tell. One that is not
    whole is compared as far as it holds.
    """
    witnesses, broken = [], list[Broken]()
    for one in testimonies:
        seen = sorted(one.seen if is_whole else (each for each in one.seen if each.seq <= count))
        agreed: Seq | None = None
        contradiction: Broken | None = None
        for seq, hash_ in seen:
            contradiction = _contradiction(reader, count, one.where, Seen(seq, hash_))
            if contradiction is not None:
                broken.append(contradiction)
                break
            agreed = seq
        state = one.missing or ("contradicts" if contradiction else "agrees" if seen else "nothing to compare")
        witnesses.append(Witness(where=one.where, state=state, anchors=len(seen), seq=agreed, note=one.note))
    return tuple(witnesses), min(broken, default=None)


def _contradiction(reader: LogReader, count: int, where: str, seen: Seen) -> Broken | None:
    if seen.seq > count:
        return Broken(count + 1, f"is missing: {where} has seen events up to {seen.seq}")
    found = reader.hash_at(seen.seq)
    if found is None or found.hex() != seen.hash:
        return Broken(seen.seq, f"is not the event that {where} has seen: the chain was made anew")
    return None


def _of_projections(paths: Paths, *, daemon_runs: bool | None = None) -> Testimony:
    where = paths.projections.name
    if not paths.projections.exists():
        return Testimony(where, [], "missing")
    try:
        with projections_db(paths, daemon_runs=daemon_runs) as db:
            return Testimony(where, [Seen(one.seq, one.hash.hex()) for one in stored_positions(db) if one.seq])
    except (HiveError, AttributeError, TypeError) as error:  # Disposable, and not what is verified here.
        return Testimony(where, [], "unreadable", str(error))


def _of_anchors(paths: Paths) -> Testimony:
    where = paths.anchors.name
    try:
        kept = anchors.read(paths.anchors)
    except FileNotFoundError:
        return Testimony(where, [], "missing")
    except OSError as error:
        return Testimony(where, [], "unreadable", error.strerror)
    lines = ", ".join(map(str, kept.damaged[:3])) + ("…" if len(kept.damaged) > 3 else "")
    note = f"damaged lines, not compared: {lines}" if kept.damaged else None
    return Testimony(where, [Seen(one.seq, one.hash) for one in kept.anchors], None, note)


def _of_journal(paths: Paths, first: bytes | None, journal: SystemJournal) -> Testimony:
    log = first or b""
    owners = {0, os.geteuid(), paths.events.stat().st_uid}
    try:
        noted = journal.noted(paths.state, log, owners)
    except Unavailable as error:
        return Testimony(JOURNAL, [], "unreadable", str(error))
    ours = [Seen(one.seq, one.hash) for one in noted if one.log == log.hex()]
    return Testimony(JOURNAL, ours, None, _of_others(log, noted))


def _of_others(log: bytes, noted: list[Noted]) -> str | None:
    """A log that was made anew from its very first event is another one to the journal; so is an honest new start."""
    others = [one for one in noted if one.log != log.hex()]
    if not others:
        return None
    newest = max(others, key=lambda one: one.at)
    return f"another log lay in this folder: it had event {newest.seq} on {newest.at}. Was it begun anew on purpose?"
