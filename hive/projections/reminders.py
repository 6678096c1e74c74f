"""Pending reminders."""

import msgspec

from hive.clock import TimeMs
from hive.events.base import ReminderId
from hive.events.erasing import Erased, covers
from hive.events.reminders import ReminderDropped, ReminderFired, ReminderSet
from hive.events.texts import erased_value
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table


class Reminder(msgspec.Struct, frozen=True):
    id: ReminderId
    agent: AgentName
    message: str
    due_ms: TimeMs
    set_ms: TimeMs


class Reminders(Projection):
    NAME = "reminders"
    VERSION = 1

    def __init__(self) -> None:
        self.pending: Table[ReminderId, Reminder] = Table("reminders", Reminder)

    def handlers(self) -> dict[type, object]:
        return {
            ReminderSet: self._on_set,
            ReminderFired: lambda event, _: self.pending.drop(event.id),
            ReminderDropped: lambda event, _: self.pending.drop(event.id),
            Erased: self._on_erased,
        }

    def of(self, agent: AgentName) -> list[Reminder]:
        """An agent's pending reminders, by ascending id."""
        return [row for _, row in sorted(self.pending.rows.items()) if row.agent == agent]

    def _on_set(self, event: ReminderSet, recorded: Recorded) -> None:
        self.pending.put(event.id, Reminder(event.id, event.agent, event.message, event.due_ms, recorded.at_ms))

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        for id, row in list(self.pending.rows.items()):
            if covers(event.reminders, id):
                self.pending.put(id, msgspec.structs.replace(row, message=erased_value(row.message)))
