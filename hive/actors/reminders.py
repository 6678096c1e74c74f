"""Delivers reminders when they are due."""

from typing import Literal

import pykka

from hive.actors import mail
from hive.actors.deadlines import Deadlines
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock
from hive.deciders.reminders import Fire
from hive.events.base import ReminderId, actor
from hive.events.reminders import ReminderDropped, ReminderSet

BY = actor("reminders")


class Reminders(pykka.ThreadingActor):
    """A crash loses nothing: the next actor reads the pending reminders from the reminders projection."""

    use_daemon_thread = True

    def __init__(self, journal: BlockingJournalClient, clock: Clock):
        super().__init__()
        self._journal = journal
        self._deadlines = Deadlines(clock, lambda: mail.tell(self.actor_ref, "due"))

    def on_start(self) -> None:
        for row in self._journal.read(lambda hive: list(hive.reminders.pending)):
            self._deadlines.set(row.id, row.due_ms)

    def on_receive(self, message: ReminderSet | ReminderDropped | Literal["due"]) -> None:
        match message:
            case ReminderSet(id=id, due_ms=due):
                self._deadlines.set(id, due)
            case ReminderDropped(id=id):
                self._deadlines.discard(id)
            case "due":
                for passed in self._deadlines.passed():
                    self._journal.tell(Fire(by=BY, id=ReminderId(passed)))

    def on_stop(self) -> None:
        self._deadlines.close()
