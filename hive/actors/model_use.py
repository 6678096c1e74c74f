"""Adds up what the broker metered until it is recorded. Used by the broker's actor."""

from typing import Final

from hive.broker import wire
from hive.clock import DurationMs
from hive.deciders.egress import RecordModelUse
from hive.events.base import By
from hive.events.egress import ModelUsed
from hive.names import AgentName

RECORD_EVERY_MS: Final[DurationMs] = 60_000
"""Use is recorded at the end of a turn, when it exhausts a budget, and at least this often."""


class ModelUse:
    """Sums by agent and model."""

    def __init__(self) -> None:
        self._sums: dict[tuple[AgentName, str], ModelUsed] = {}

    def add(self, used: wire.Used) -> None:
        key = (used.agent, used.model)
        known = self._sums.get(key) or ModelUsed(agent=used.agent, model=used.model)
        self._sums[key] = known.plus(used)

    def of(self, agent: AgentName) -> list[ModelUsed]:
        """What is not recorded yet."""
        return [used for (name, _), used in self._sums.items() if name == agent]

    def take(self, by: By, agent: AgentName | None = None) -> list[RecordModelUse]:
        """The commands that record the sums of an agent, or of all; they are forgotten here."""
        taken = [key for key in self._sums if agent in (None, key[0])]
        return [RecordModelUse(by=by, used=self._sums.pop(key)) for key in taken]
