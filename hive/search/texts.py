"""Which text of an event can be searched, and what a hit says about it."""

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.messages import MessageSent
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.names import OPERATOR, SYSTEM

Kind = Literal["message", "question", "answer", "note"]
KINDS: Final = ("message", "question", "answer", "note")


class Searchable(msgspec.Struct, frozen=True):
    """The text of one event."""

    kind: Kind
    id: int
    """Of the message, question or approval."""
    sender: str
    receiver: str
    """Whom it is for; of a note, the agent that the approval is about."""
    text: str


def _message(event: MessageSent, _by: str) -> Searchable | None:
    if event.sender == SYSTEM:  # Its notices repeat what other events say.
        return None
    return Searchable("message", event.id, event.sender, event.to, event.body)


def _question(event: QuestionAdded, _by: str) -> Searchable:
    text = "\n".join((event.question, *event.options))
    return Searchable("question", event.id, event.asker, event.target or OPERATOR, text)


def _answer(event: QuestionResolved, _by: str) -> Searchable:
    return Searchable("answer", event.id, event.answerer, event.asker, event.answer)


def _request(event: ApprovalRequested, _by: str) -> Searchable | None:
    if not event.description:
        return None
    return Searchable("note", event.id, event.requester, event.agent, event.description)


def _decision(event: ApprovalResolved, by: str) -> Searchable | None:
    if not event.note:
        return None
    sender = OPERATOR if by.startswith(OPERATOR) else SYSTEM
    return Searchable("note", event.id, sender, event.agent, event.note)


_TEXTS: Final[dict[type, Callable[[Any, str], Searchable | None]]] = {
    MessageSent: _message,
    QuestionAdded: _question,
    QuestionResolved: _answer,
    ApprovalRequested: _request,
    ApprovalResolved: _decision,
}
TYPES: Final = tuple(event.__name__ for event in _TEXTS)
"""The types of events that have text."""


def searchable(event: object, by: str) -> Searchable | None:
    """What can be searched of an event; `by` is who caused it, as the log has it."""
    of = _TEXTS.get(type(event))
    return None if of is None else of(event, by)
