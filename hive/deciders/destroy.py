"""The rule of an agent's end: whatever was open with it is settled in the same commit, and the other side is told."""

from hive.clock import TimeMs
from hive.deciders import approvals
from hive.deciders.draft import Command, Decision, Draft, living
from hive.deciders.questions import CANCELLED
from hive.deciders.roster import refuse_manager
from hive.events import notices
from hive.events.agents import Destroyed
from hive.events.messages import MessageDead
from hive.events.questions import QuestionResolved
from hive.events.reminders import ReminderDropped
from hive.names import MANAGER, OPERATOR, SYSTEM, AgentName
from hive.projections.hive import Hive


class RecordDestroyed(Command, frozen=True, kw_only=True):
    """The container is gone, and with `purge` its state too."""

    agent: AgentName
    purge: bool


def record_destroyed(command: RecordDestroyed, hive: Hive, now: TimeMs) -> Decision:
    """Settle everything that is open with the agent, in the commit that ends it."""
    name = living(hive, command.agent).name
    refuse_manager(name, "destroyed")
    draft = Draft(hive, now)
    draft.add(Destroyed(agent=name, purge=command.purge))
    _cancel_questions(draft, name)
    approvals.cancel_all(draft, name)
    for reminder in hive.reminders.of(name):
        draft.add(ReminderDropped(id=reminder.id, agent=name))
    _bury_messages(draft, name)
    return draft.events


def _cancel_questions(draft: Draft, name: AgentName) -> None:
    for question in draft.hive.questions.threads_of(name):
        resolved = QuestionResolved(
            id=question.id, asker=question.asker, target=question.target, answer=CANCELLED, answerer=SYSTEM
        )
        draft.add(resolved)
        if question.asker != name:
            text = question.question
            draft.tell(
                question.asker,
                notices.OperatorAnswered(id=question.id, question=text, answer=resolved.answer, answerer=SYSTEM),
            )
        elif question.target is not None:
            draft.tell(question.target, notices.QuestionClosed(id=question.id, answer=resolved.answer, answerer=SYSTEM))


def _bury_messages(draft: Draft, name: AgentName) -> None:
    messages = draft.hive.messages
    unread: dict[str, int] = {OPERATOR: 0}
    for letter in [*messages.in_flight(name), *messages.waiting(name)]:
        draft.add(MessageDead(id=letter.id, to=name, reason=f"{name} was destroyed"))
        unread[letter.sender] = unread.get(letter.sender, 0) + 1
    for sender, count in unread.items():
        if sender == OPERATOR or (sender != name and draft.hive.agents.living_one(sender) is not None):
            draft.tell(sender, notices.Destroyed(agent=name, unread=count))
    if MANAGER not in unread:
        draft.tell(MANAGER, notices.Destroyed(agent=name, unread=0))
