"""Transient states of agents. A boot clears all: their guards ended with the previous daemon."""

import msgspec

from hive.clock import TimeMs
from hive.events.daemon import Booted
from hive.events.transient import TransientCleared, TransientKind, TransientSet
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table


class Held(msgspec.Struct, frozen=True):
    agent: AgentName
    kind: TransientKind
    since_ms: TimeMs


class Transient(Projection):
    NAME = "transient"
    VERSION = 1

    def __init__(self) -> None:
        self.held: Table[AgentName, Held] = Table("transient", Held)

    def handlers(self) -> dict[type, object]:
        return {
            TransientSet: self._on_set,
            TransientCleared: lambda event, _: self.held.drop(event.agent),
            Booted: self._on_booted,
        }

    def _on_set(self, event: TransientSet, recorded: Recorded) -> None:
        self.held.put(event.agent, Held(event.agent, event.kind, recorded.at_ms))

    def _on_booted(self, _event: Booted, _: Recorded) -> None:
        for agent in list(self.held.rows):
            self.held.drop(agent)
