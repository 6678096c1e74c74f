"""Questions: every pending one, and the newest that were resolved."""

from collections import defaultdict, deque

import msgspec

from hive.clock import TimeMs
from hive.events.base import QuestionId, Seq
from hive.events.erasing import Erased, covers
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.texts import erased_value
from hive.names import AgentName
from hive.projections.messages import held_bytes
from hive.projections.table import Projection, Recorded, Table

RESOLVED_KEPT = 500
"""Resolved questions kept as history; older ones are only in the log."""


class Question(msgspec.Struct, frozen=True):
    """One question; `answer` is None while it is pending."""

    id: QuestionId
    asker: AgentName
    target: AgentName | None
    question: str
    options: tuple[str, ...]
    multi: bool
    asked_ms: TimeMs
    deadline_ms: TimeMs | None
    answer: str | None = None
    answerer: str | None = None
    resolved_ms: TimeMs | None = None
    resolved_by: str | None = None
    """The `by` column of the resolution."""
    resolved_seq: Seq | None = None
    """Orders the history, since times can be equal."""


class Questions(Projection):
    NAME = "questions"
    VERSION = 3

    def __init__(self) -> None:
        self.all: Table[QuestionId, Question] = Table("questions", Question)
        self._pending: dict[QuestionId, None] = {}
        self._asked: dict[AgentName, int] = {}
        self._held: defaultdict[AgentName, int] = defaultdict(int)
        self._resolved: deque[QuestionId] = deque()

    def handlers(self) -> dict[type, object]:
        return {QuestionAdded: self._on_added, QuestionResolved: self._on_resolved, Erased: self._on_erased}

    def restored(self) -> None:
        self._pending, self._asked, self._resolved = {}, {}, deque()
        self._held.clear()
        for question in sorted(self.all, key=lambda row: row.id):
            if question.answer is None:
                self._pending[question.id] = None
                self._asked[question.asker] = self._asked.get(question.asker, 0) + 1
                self._held[question.asker] += _held_bytes(question)
        done = [row for row in self.all if row.answer is not None]
        self._resolved.extend(row.id for row in sorted(done, key=lambda row: row.resolved_seq or 0))

    def pending(self) -> list[Question]:
        """Every question without an answer, by ascending id."""
        return [self.all[id] for id in self._pending]

    def resolved(self) -> list[Question]:
        """The newest resolved questions, oldest first."""
        return [self.all[id] for id in self._resolved]

    def pending_of(self, asker: AgentName) -> int:
        """Number of open questions of an agent."""
        return self._asked.get(asker, 0)

    def bytes_of(self, asker: AgentName) -> int:
        """What these take in memory, at most."""
        return self._held.get(asker, 0)

    def threads_of(self, agent: AgentName) -> list[Question]:
        """Pending questions with this agent as asker or target."""
        return [row for row in self.pending() if agent in (row.asker, row.target)]

    def _on_added(self, event: QuestionAdded, recorded: Recorded) -> None:
        row = Question(
            event.id,
            event.asker,
            event.target,
            event.question,
            event.options,
            event.multi,
            recorded.at_ms,
            event.deadline_ms,
        )
        self.all.put(event.id, row)
        self._pending[event.id] = None
        self._asked[event.asker] = self._asked.get(event.asker, 0) + 1
        self._held[event.asker] += _held_bytes(row)

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        for id, before in list(self.all.rows.items()):
            row = before
            if covers(event.questions, id):
                question, options = erased_value(row.question), erased_value(row.options)
                row = msgspec.structs.replace(row, question=question, options=options)
            if covers(event.answers, id):
                row = msgspec.structs.replace(row, answer=erased_value(row.answer))
            if row is not before:
                self.all.put(id, row)
                if row.answer is None:
                    self._held[row.asker] += _held_bytes(row) - _held_bytes(before)

    def _on_resolved(self, event: QuestionResolved, recorded: Recorded) -> None:
        row = self.all[event.id]
        answered = msgspec.structs.replace(
            row,
            answer=event.answer,
            answerer=event.answerer,
            resolved_ms=recorded.at_ms,
            resolved_by=recorded.by,
            resolved_seq=recorded.seq,
        )
        self.all.put(event.id, answered)
        del self._pending[event.id]
        self._asked[row.asker] -= 1
        self._held[row.asker] -= _held_bytes(row)
        self._resolved.append(event.id)
        if len(self._resolved) > RESOLVED_KEPT:
            self.all.drop(self._resolved.popleft())


def _held_bytes(row: Question) -> int:
    return sum(map(held_bytes, (row.question, *row.options)))
