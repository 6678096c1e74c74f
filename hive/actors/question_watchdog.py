"""Answers `[expired]` at each question's deadline."""

from typing import Literal

import pykka

from hive.actors import mail
from hive.actors.deadlines import Deadlines
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock
from hive.deciders.questions import Expire
from hive.events.base import QuestionId, actor
from hive.events.questions import QuestionAdded, QuestionResolved

BY = actor("question_watchdog")


class QuestionWatchdog(pykka.ThreadingActor):
    """A crash loses nothing: the next actor reads the open deadlines from the questions projection."""

    use_daemon_thread = True

    def __init__(self, journal: BlockingJournalClient, clock: Clock):
        super().__init__()
        self._journal = journal
        self._deadlines = Deadlines(clock, lambda: mail.tell(self.actor_ref, "deadline"))

    def on_start(self) -> None:
        for question in self._journal.read(lambda hive: hive.questions.pending()):
            if question.deadline_ms is not None:
                self._deadlines.set(question.id, question.deadline_ms)

    def on_receive(self, message: QuestionAdded | QuestionResolved | Literal["deadline"]) -> None:
        match message:
            case QuestionAdded(id=id, deadline_ms=int() as deadline):
                self._deadlines.set(id, deadline)
            case QuestionAdded():
                pass  # No deadline.
            case QuestionResolved(id=id):
                self._deadlines.discard(id)
            case "deadline":
                for due in self._deadlines.passed():
                    self._journal.tell(
                        Expire(by=BY, id=QuestionId(due))
                    )  # If it was answered meanwhile, the rule does nothing.

    def on_stop(self) -> None:
        self._deadlines.close()
