"""Erasures. The daemon continues at its start what is not finished; the replica in the swarm follows what is."""

import msgspec

from hive.events.base import Seq
from hive.events.erasing import Erased, ErasureFinished, Spans
from hive.projections.table import Projection, Recorded, Table


class PendingErasure(msgspec.Struct, frozen=True):
    """One decided erasure."""

    seq: Seq
    """Of its `Erased` event."""
    erased: Erased


class DoneErasure(msgspec.Struct, frozen=True):
    """One finished erasure: no file of the state holds the texts of these rows."""

    seq: Seq
    """Of its `Erased` event."""
    rows: Spans


class Erasures(Projection):
    NAME = "erasures"
    VERSION = 2

    def __init__(self) -> None:
        self.pending: Table[Seq, PendingErasure] = Table("erasures", PendingErasure)
        self.done: Table[Seq, DoneErasure] = Table("erasures_done", DoneErasure)

    def handlers(self) -> dict[type, object]:
        return {
            Erased: self._on_erased,
            ErasureFinished: self._on_finished,
        }

    def _on_erased(self, event: Erased, recorded: Recorded) -> None:
        self.pending.put(recorded.seq, PendingErasure(recorded.seq, event))

    def _on_finished(self, event: ErasureFinished, _: Recorded) -> None:
        pending = self.pending.get(event.of)
        self.pending.drop(event.of)
        if pending is not None:
            self.done.put(event.of, DoneErasure(event.of, pending.erased.rows))
