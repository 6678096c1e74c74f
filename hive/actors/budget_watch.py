"""Resumes an agent when its budget window has room again."""

from typing import Literal

import pykka

from hive.actors import mail
from hive.actors.deadlines import Deadlines
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock
from hive.deciders.budgets import CheckBudget
from hive.events.agents import BudgetReached
from hive.events.base import actor
from hive.names import AgentName

BY = actor("budget_watch")


class BudgetWatch(pykka.ThreadingActor):
    """A crash loses nothing: the next actor reads the agents paused by a budget from the agents projection."""

    use_daemon_thread = True

    def __init__(self, journal: BlockingJournalClient, clock: Clock):
        super().__init__()
        self._journal = journal
        self._numbers: dict[AgentName, int] = {}
        self._deadlines = Deadlines(clock, lambda: mail.tell(self.actor_ref, "due"))

    def on_start(self) -> None:
        for row in self._journal.read(lambda hive: hive.agents.living()):
            if row.budget_until_ms is not None:
                self._deadlines.set(self._number(row.name), row.budget_until_ms)

    def on_receive(self, message: BudgetReached | Literal["due"]) -> None:
        match message:
            case BudgetReached(agent=name, until_ms=until):
                self._deadlines.set(self._number(name), until)
            case "due":
                names = {number: name for name, number in self._numbers.items()}
                for passed in self._deadlines.passed():
                    # If it was resumed or destroyed meanwhile, the rule does nothing.
                    self._journal.tell(CheckBudget(by=BY, agent=names[passed]))

    def on_stop(self) -> None:
        self._deadlines.close()

    def _number(self, name: AgentName) -> int:
        return self._numbers.setdefault(name, len(self._numbers))
