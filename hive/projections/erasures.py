"""Erasures that are decided and not finished. The daemon continues them at its start."""

import msgspec

from hive.events.base import Seq
from hive.events.erasing import Erased, ErasureFinished
from hive.projections.table import Projection, Recorded, Table


class PendingErasure(msgspec.Struct, frozen=True):
    """One decided erasure."""

    seq: Seq
    """Of its `Erased` event."""
    erased: Erased


class Erasures(Projection):
    NAME = "erasures"
    VERSION = 1

    def __init__(self) -> None:
        self.pending: Table[Seq, PendingErasure] = Table("erasures", PendingErasure)

    def handlers(self) -> dict[type, object]:
        return {
            Erased: self._on_erased,
            ErasureFinished: lambda event, _: self.pending.drop(event.of),
        }

    def _on_erased(self, event: Erased, recorded: Recorded) -> None:
        self.pending.put(recorded.seq, PendingErasure(recorded.seq, event))
