"""Commands that only record: reported turns, transient states, and events of the daemon itself."""

from hive.clock import TimeMs
from hive.deciders.base import Command, Decision, DecisionBuilder, living
from hive.deciders.budgets import enforce_budget
from hive.events.base import MessageId, Seq
from hive.events.daemon import Booted, ShutDown, Warned
from hive.events.notifications import NotificationDelivered, NotificationFailed, Topic
from hive.events.transient import TransientCleared, TransientKind, TransientSet
from hive.events.turns import TurnEnded, TurnStarted
from hive.names import AgentName
from hive.projections.hive import Hive


class StartTurn(Command, frozen=True, kw_only=True):
    agent: AgentName
    model: str | None = None
    wake_from: str | None = None
    message_ids: tuple[MessageId, ...] = ()


class EndTurn(Command, frozen=True, kw_only=True):
    report: TurnEnded


class SetTransient(Command, frozen=True, kw_only=True):
    agent: AgentName
    kind: TransientKind


class ClearTransient(Command, frozen=True, kw_only=True):
    agent: AgentName
    kind: TransientKind


class Boot(Command, frozen=True, kw_only=True):
    hive_version: str
    runtime: str


class Shut(Command, frozen=True, kw_only=True):
    keep_agents: bool


class Warn(Command, frozen=True, kw_only=True):
    source: str
    text: str


class RecordNotification(Command, frozen=True, kw_only=True):
    topic: Topic
    subject: str
    error: str | None = None
    attempts: int = 1
    of: Seq | None = None
    """The event of the notification."""


def start_turn(command: StartTurn, hive: Hive, _: TimeMs) -> Decision:
    row = living(hive, command.agent)
    return [
        TurnStarted(agent=row.name, model=command.model, wake_from=command.wake_from, message_ids=command.message_ids)
    ]


def end_turn(command: EndTurn, hive: Hive, now: TimeMs) -> Decision:
    """A turn that exceeds the budget pauses the agent in the same commit."""
    row = living(hive, command.report.agent)
    decision = DecisionBuilder(hive, now)
    decision.add(command.report)
    enforce_budget(decision, row, row.budget, ended=command.report)
    return decision.events


def set_transient(command: SetTransient, hive: Hive, _: TimeMs) -> Decision:
    return [TransientSet(agent=command.agent, kind=command.kind)]


def clear_transient(command: ClearTransient, hive: Hive, _: TimeMs) -> Decision:
    """A no-op if another or no transient is set."""
    held = hive.transient.held.get(command.agent)
    if held is None or held.kind != command.kind:
        return []
    return [TransientCleared(agent=command.agent, kind=command.kind)]


def boot(command: Boot, _hive: Hive, _: TimeMs) -> Decision:
    return [Booted(hive_version=command.hive_version, runtime=command.runtime)]


def shut(command: Shut, _hive: Hive, _: TimeMs) -> Decision:
    return [ShutDown(keep_agents=command.keep_agents)]


def warn(command: Warn, _hive: Hive, _: TimeMs) -> Decision:
    return [Warned(source=command.source, text=command.text)]


def record_notification(command: RecordNotification, _hive: Hive, _: TimeMs) -> Decision:
    topic, subject, attempts, of = command.topic, command.subject, command.attempts, command.of
    if command.error is None:
        return [NotificationDelivered(topic=topic, subject=subject, attempts=attempts, of=of)]
    return [NotificationFailed(topic=topic, subject=subject, error=command.error, attempts=attempts, of=of)]
