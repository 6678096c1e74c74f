"""Rules for reminders: set, fire when due."""

from hive.clock import TimeMs
from hive.deciders.base import Command, Decision, DecisionBuilder, checked_text, living
from hive.errors import BadRequest, LimitReached
from hive.events import notices
from hive.events.base import ReminderId
from hive.events.reminders import ReminderFired, ReminderSet
from hive.names import AgentName
from hive.projections.hive import Hive

PENDING_MAX = 50
"""Maximum number of pending reminders per agent."""
AHEAD_MAX_MS = 366 * 24 * 3_600_000
"""A year and a day."""


class Remind(Command, frozen=True, kw_only=True):
    """Exactly one of `delay_ms` and `due_ms`."""

    agent: AgentName
    message: str
    delay_ms: int | None = None
    due_ms: TimeMs | None = None


class Fire(Command, frozen=True, kw_only=True):
    """The reminder is due."""

    id: ReminderId


def remind(command: Remind, hive: Hive, now: TimeMs) -> Decision:
    """Raises BadRequest: no time, two, or one out of range; LimitReached."""
    living(hive, command.agent)
    checked_text(command.message, "reminder")
    if (command.delay_ms is None) == (command.due_ms is None):
        raise BadRequest("A reminder has either delay_seconds or at.")
    due = now + command.delay_ms if command.delay_ms is not None else command.due_ms or 0
    if command.delay_ms is not None and command.delay_ms < 0:
        raise BadRequest("delay_seconds cannot be negative.")
    if due > now + AHEAD_MAX_MS:
        raise BadRequest("A reminder is at most a year ahead.")
    if len(hive.reminders.of(command.agent)) >= PENDING_MAX:
        raise LimitReached(f"{command.agent} has {PENDING_MAX} pending reminders; wait for one.")
    id = hive.ids.next_reminder()
    return [ReminderSet(id=id, agent=command.agent, message=command.message, due_ms=due)]


def fire(command: Fire, hive: Hive, now: TimeMs) -> Decision:
    """Deliver a due reminder once. A no-op if it was dropped or is not due."""
    row = hive.reminders.pending.get(command.id)
    if row is None or row.due_ms > now:
        return []
    decision = DecisionBuilder(hive, now)
    decision.add(ReminderFired(id=row.id, agent=row.agent))
    decision.tell(row.agent, notices.Reminder(id=row.id, message=row.message))
    return decision.events
