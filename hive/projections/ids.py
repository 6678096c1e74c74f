"""The newest id of each kind except messages, and the answers to keyed commands. Read by deciders."""

from collections import deque
from typing import Any

import msgspec

from hive.events.agents import AgentAdded
from hive.events.approvals import ApprovalRequested
from hive.events.base import ApprovalId, QuestionId, ReminderId, Seq
from hive.events.daemon import CommandKeyed
from hive.events.erasing import Erased, covers
from hive.events.questions import QuestionAdded
from hive.events.reminders import ReminderSet
from hive.events.swarm import DecisionSent
from hive.projections.table import Projection, Recorded, Table

KEYS_KEPT = 10_000
"""Number of remembered idempotency keys; a command with an older key counts as new."""


class LastId(msgspec.Struct, frozen=True, gc=False):
    """The newest id of one kind."""

    kind: str
    last: int


class KeyedAnswer(msgspec.Struct, frozen=True, gc=False):
    """The events that answered an idempotency key."""

    key: str
    first_seq: Seq
    count: int
    digest: str | None = None
    """Of the command; None in older logs."""


class Ids(Projection):
    NAME = "ids"
    VERSION = 3

    def __init__(self) -> None:
        self.last: Table[str, LastId] = Table("last_ids", LastId)
        """Complete after `tables()`."""
        self.keys: Table[str, KeyedAnswer] = Table("command_keys", KeyedAnswer)
        self._newest: dict[str, int] = {}
        self._keys_by_age: deque[str] = deque()
        """Oldest first. A dict has the same order, but finding its first key gets slower with each dropped key."""

    def tables(self) -> list[Table[Any, Any]]:
        for kind, last in self._newest.items():
            known = self.last.get(kind)
            if known is None or known.last != last:
                self.last.put(kind, LastId(kind, last))
        return super().tables()

    def handlers(self) -> dict[type, object]:
        return {
            QuestionAdded: lambda event, _: self._newest.update(question=event.id),
            ApprovalRequested: lambda event, _: self._newest.update(approval=event.id),
            ReminderSet: lambda event, _: self._newest.update(reminder=event.id),
            DecisionSent: lambda event, _: self._newest.update(decision=event.id),
            AgentAdded: lambda event, _: self._newest.update(slot=event.slot),
            CommandKeyed: self._on_keyed,
            Erased: self._on_erased,
        }

    def restored(self) -> None:
        self._newest = {row.kind: row.last for row in self.last}
        self.keys.rows = dict(sorted(self.keys.rows.items(), key=lambda item: item[1].first_seq))
        self._keys_by_age = deque(self.keys.rows)

    def next_question(self) -> QuestionId:
        return QuestionId(self._next("question"))

    def next_approval(self) -> ApprovalId:
        return ApprovalId(self._next("approval"))

    def next_reminder(self) -> ReminderId:
        return ReminderId(self._next("reminder"))

    def next_decision(self) -> int:
        return self._next("decision")

    def next_slot(self) -> int:
        return self._next("slot")

    def given(self, kind: str, id: int) -> bool:
        """Whether this id exists or existed."""
        return 0 < id < self._next(kind)

    def _next(self, kind: str) -> int:
        return self._newest.get(kind, 0) + 1

    def _on_keyed(self, event: CommandKeyed, _: Recorded) -> None:
        if event.key not in self.keys:
            self._keys_by_age.append(event.key)
        self.keys.put(event.key, KeyedAnswer(event.key, event.first_seq, event.count, event.digest))
        while len(self.keys) > KEYS_KEPT:
            self.keys.drop(self._keys_by_age.popleft())

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        """Forget the erased keys: the row of a key follows the events that answered it."""
        gone = [row.key for row in self.keys if covers(event.rows, row.first_seq + row.count)]
        for key in gone:
            self.keys.drop(key)
        if gone:
            self._keys_by_age = deque(self.keys.rows)
