"""Facts about reminders. Written by the reminder deciders; read by the reminders projection and its actor."""

from hive.clock import TimeMs
from hive.events.base import Event, ReminderId
from hive.names import AgentName


class ReminderSet(Event, frozen=True, kw_only=True):
    """An agent set a reminder."""

    id: ReminderId
    agent: AgentName
    message: str
    due_ms: TimeMs


class ReminderFired(Event, frozen=True, kw_only=True):
    """The reminder was due; the same commit delivers it."""

    id: ReminderId
    agent: AgentName


class ReminderDropped(Event, frozen=True, kw_only=True):
    """Its agent was destroyed."""

    id: ReminderId
    agent: AgentName
