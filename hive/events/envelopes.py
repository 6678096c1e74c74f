"""What hives say to each other: the payloads of envelopes. Written by one hive's swarm, decided on by another's."""

from typing import Any, Literal

import msgspec

from hive.clock import TimeMs
from hive.events.base import MessageId, QuestionId
from hive.events.moves import Handover

Verdict = Literal["approve", "deny", "answer", "cancel"]


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Base of the closed union. Names are those of the sending hive, without `@`."""


class Message(Payload, frozen=True, kw_only=True, tag="message"):
    """A message to an agent or the operator of the receiving hive."""

    id: MessageId
    """In the sending hive."""
    sender: str = msgspec.field(name="from")
    to: str
    body: str
    in_reply_to: MessageId | None = None
    """In the receiving hive."""


class Question(Payload, frozen=True, kw_only=True, tag="question"):
    """A question to an agent of the receiving hive."""

    id: QuestionId
    """In the sending hive, which also keeps its deadline."""
    asker: str
    target: str
    question: str
    options: tuple[str, ...] = ()
    multi: bool = False
    deadline_ms: TimeMs | None = None


class Answer(Payload, frozen=True, kw_only=True, tag="answer"):
    """The resolution of a question that the receiving hive asked."""

    question: QuestionId
    """In the receiving hive."""
    answer: str
    answerer: str


class Closed(Payload, frozen=True, kw_only=True, tag="closed"):
    """The sending hive resolved a question that it had asked."""

    question: QuestionId
    """In the sending hive."""
    answer: str
    answerer: str


class OperatorDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator of one hive decided about a row of another. The event and the envelope have these fields."""

    verdict: Verdict
    subject: int
    """The approval or question, in the other hive."""
    operator: str
    text: str | None = None
    """The answer, or the note of a denial."""
    sha: str | None = None
    """What the operator saw of a commit."""

    def decision(self) -> dict[str, Any]:
        """These fields by name, without those that a subclass adds."""
        return {name: getattr(self, name) for name in OperatorDecision.__struct_fields__}


class Decision(OperatorDecision, Payload, frozen=True, tag="decision"):
    """An operator of the sending hive decides about a row of the receiving hive."""

    id: int
    """In the sending hive."""


class Outcome(Payload, frozen=True, kw_only=True, tag="outcome"):
    """What became of a decision; `error` is the refusal."""

    decision: int
    """In the receiving hive."""
    error: str | None = None


class Move(Handover, Payload, frozen=True, tag="move"):
    """An agent comes to the receiving hive, which owns it from here on unless it refuses."""

    agent: str


class MoveOutcome(Payload, frozen=True, kw_only=True, tag="move_outcome"):
    """The sending hive has the agent, or refuses it."""

    agent: str
    error: str | None = None


class Adopted(Payload, frozen=True, kw_only=True, tag="adopted"):
    """The sending hive has taken over an agent of the receiving one, which was lost."""

    agent: str
    operator: str
    until: str
    origin: str | None = None
    epoch: int = 0


class Unclaimed(Payload, frozen=True, kw_only=True, tag="unclaimed"):
    """The sending hive takes over none of these agents of the receiving one, although it had claimed them."""

    agents: tuple[str, ...]


class AdoptionRefused(Payload, frozen=True, kw_only=True, tag="adoption_refused"):
    """The receiving hive has adopted an agent of the sending one that it may not have."""

    agent: str
    hive: str
    """Where the agent is."""
    error: str
    origin: str | None = None
    epoch: int = 0


AnyPayload = (
    Message
    | Question
    | Answer
    | Closed
    | Decision
    | Outcome
    | Move
    | MoveOutcome
    | Adopted
    | Unclaimed
    | AdoptionRefused
)
