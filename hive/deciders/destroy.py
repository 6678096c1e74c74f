"""The rule for destroying an agent: settles its open work in the same commit and tells the other side."""

from hive.clock import TimeMs
from hive.deciders import approvals
from hive.deciders.base import Command, Decision, DecisionBuilder, living, reachable
from hive.deciders.questions import CANCELLED
from hive.deciders.roster import refuse_manager
from hive.events import notices
from hive.events.agents import Destroyed
from hive.events.messages import MessageDead
from hive.events.questions import QuestionResolved
from hive.events.reminders import ReminderDropped
from hive.names import MANAGER, OPERATOR, SYSTEM, AgentName, is_remote
from hive.projections.hive import Hive


class RecordDestroyed(Command, frozen=True, kw_only=True):
    """The container was removed, and with `purge` its state."""

    agent: AgentName
    purge: bool


def record_destroyed(command: RecordDestroyed, hive: Hive, now: TimeMs) -> Decision:
    """Settle all open work of the agent in the commit that destroys it."""
    name = living(hive, command.agent).name
    refuse_manager(name, "destroyed")
    decision = DecisionBuilder(hive, now)
    decision.add(Destroyed(agent=name, purge=command.purge))
    cancel_questions(decision, name)
    approvals.cancel_all(decision, name)
    for reminder in hive.reminders.of(name):
        decision.add(ReminderDropped(id=reminder.id, agent=name))
    _mark_messages_dead(decision, name)
    return decision.events


def cancel_questions(decision: DecisionBuilder, name: AgentName) -> None:
    """Every question that the agent asked or was asked is cancelled, and the other side told."""
    for question in decision.hive.questions.threads_of(name):
        resolved = QuestionResolved(
            id=question.id, asker=question.asker, target=question.target, answer=CANCELLED, answerer=SYSTEM
        )
        decision.add(resolved)
        if question.asker != name and not is_remote(question.asker):
            text = question.question
            decision.tell(
                question.asker,
                notices.OperatorAnswered(id=question.id, question=text, answer=resolved.answer, answerer=SYSTEM),
            )
        elif question.asker == name and question.target is not None and not is_remote(question.target):
            decision.tell(
                question.target, notices.QuestionClosed(id=question.id, answer=resolved.answer, answerer=SYSTEM)
            )


def _mark_messages_dead(decision: DecisionBuilder, name: AgentName) -> None:
    messages = decision.hive.messages
    unread: dict[str, int] = {OPERATOR: 0}
    for message in [*messages.in_flight(name), *messages.waiting(name)]:
        decision.add(MessageDead(id=message.id, to=name, reason=f"{name} was destroyed"))
        unread[message.sender] = unread.get(message.sender, 0) + 1
    for sender, count in unread.items():
        if sender == OPERATOR or (sender != name and reachable(decision.hive, sender)):
            decision.tell(sender, notices.Destroyed(agent=_seen_by(decision.hive, sender, name), unread=count))
    if MANAGER not in unread:
        decision.tell(MANAGER, notices.Destroyed(agent=name, unread=0))


def _seen_by(hive: Hive, sender: str, name: AgentName) -> str:
    """The agent's name, as an address for a sender in another hive."""
    return f"{name}@{hive.swarm.name}" if is_remote(sender) else name
