"""Compares the stored projections with a replay of the log."""

from typing import Literal

import apsw
import msgspec

from hive.audit.reading import Tell, log_reader, projections_db
from hive.errors import Unavailable
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.pages import read_ahead
from hive.paths import Paths
from hive.projections.hive import Hive, digest
from hive.projections.replay import replay
from hive.projections.store import read_rows, stored_positions

State = Literal["stored", "same", "different", "unreadable", "other version", "other log", "missing"]


class Position(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stored projection."""

    projection: str
    state: State
    """`stored` if nothing was compared."""
    seq: Seq | None = None
    behind: int | None = None
    """Events between it and the head; above 0 is normal while a daemon runs."""
    digest: str | None = None
    replayed: str | None = None
    """Digest of the replay up to `seq`."""

    @property
    def is_sound(self) -> bool:
        return self.state in ("stored", "same")


def positions(paths: Paths) -> list[Position]:
    """Every projection as it is stored. Raises Unavailable without the files, CorruptState for damaged ones."""
    stored = _stored(paths)
    with log_reader(paths) as reader:
        head = reader.head().seq
        return [
            row if row.seq is None else _against(row, row.seq, head, is_of_log=reader.hash_at(row.seq) == hash_)
            for row, hash_ in stored
        ]


def check(paths: Paths, tell: Tell) -> list[Position]:
    """Replay the log beside the stored projections and compare, each at its own position. Raises as `positions`."""
    found = positions(paths)
    replayed: dict[str, str] = {}
    hive, codec = Hive(), Codec()
    with log_reader(paths) as reader:
        for seq in sorted({row.seq for row in found if row.seq is not None}):
            with read_ahead(reader.pages(hive.seq + 1, seq)) as pages:
                replay(hive, pages, codec, tell)
            here = {row.projection for row in found if row.seq == seq}
            replayed |= {one.NAME: digest(one) for one in hive.projections() if one.NAME in here}
    return [_compared(row, replayed.get(row.projection)) for row in found]


def _stored(paths: Paths) -> list[tuple[Position, bytes]]:
    """The stored position and digest of every projection, with the chain's hash at the position."""
    hive = Hive()
    if paths.events.exists() and not paths.projections.exists():
        raise Unavailable(f"There is no {paths.projections}; make it with `hive projections rebuild`.")
    with projections_db(paths) as db:
        marks = {stored.name: stored for stored in stored_positions(db)}
        rows = []
        for projection in hive.projections():
            mark = marks.get(projection.NAME)
            if mark is None:
                rows.append((Position(projection=projection.NAME, state="missing"), b""))
            elif mark.version != projection.VERSION:
                rows.append((Position(projection=projection.NAME, state="other version"), mark.hash))
            else:
                try:
                    read_rows(db, projection)
                except (apsw.Error, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
                    rows.append((Position(projection=projection.NAME, state="unreadable"), mark.hash))
                else:
                    sound = Position(
                        projection=projection.NAME, state="stored", seq=mark.seq, digest=digest(projection)
                    )
                    rows.append((sound, mark.hash))
        return rows


def _against(row: Position, seq: Seq, head: Seq, *, is_of_log: bool) -> Position:
    state: State = "stored" if is_of_log else "other log"
    return msgspec.structs.replace(row, behind=max(0, head - seq), state=state)


def _compared(row: Position, replayed: str | None) -> Position:
    if row.state != "stored":
        return row
    return msgspec.structs.replace(row, state="same" if replayed == row.digest else "different", replayed=replayed)
