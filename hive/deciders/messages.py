"""Rules for messages: send, receive, ack, requeue. Every dropped message has an event."""

from typing import Final

import msgspec

from hive.clock import TimeMs
from hive.deciders.base import (
    TEXT_MAX_BYTES,
    Answered,
    Command,
    Decision,
    DecisionBuilder,
    check_peer,
    checked_text,
    living,
    local,
    reachable,
)
from hive.errors import LimitReached, NotFound, Refused
from hive.events import notices
from hive.events.agents import IncarnationSeen
from hive.events.base import MessageId
from hive.events.messages import (
    MessageAcked,
    MessageDead,
    MessageDelivered,
    MessageRequeued,
    MessageSent,
    SendRefused,
)
from hive.names import EVERYONE, MANAGER, OPERATOR, AgentName, address, is_remote
from hive.projections.hive import Hive
from hive.projections.messages import InboxMessage, held_bytes

MIB = 1024 * 1024

WAITING_MAX = 10_000
"""Maximum number of messages waiting for an agent. The limit applies to senders, not to the daemon."""
WAITING_MAX_BYTES = 64 * 1024 * 1024
"""Maximum size of waiting and in-flight bodies per agent; all are kept in memory."""
SENT_MAX_BYTES = 24 * 1024 * 1024
"""Of an agent's messages that wait or are in flight, in all inboxes together: what one agent makes the daemon hold."""
RECV_MAX = 32
"""Maximum number of messages of one recv."""
FAILED_DELIVERIES_MAX = 5
"""Failed deliveries after which a message is dead."""
COUNTED_REASONS: Final = frozenset({"failed", "prompt_too_long", "incarnation_died", "crashed"})
"""Reasons that the message may have caused."""
UNCOUNTED_REASONS: Final = frozenset(
    {
        "rate_limited",
        "needs_login",
        "overloaded",
        "paused",
        "cancelled",
        "stopping",
        "stopped",
        "killed",
        "lost",
        "budget",
    }
)
"""Reasons that the message did not cause."""


class Send(Command, frozen=True, kw_only=True):
    """One message; `*` sends to every other agent."""

    sender: str
    to: str
    body: str
    in_reply_to: MessageId | None = None


class Recv(Command, frozen=True, kw_only=True):
    """Take up to `limit` waiting messages for this incarnation."""

    agent: AgentName
    limit: int = 1
    incarnation: str | None = None
    holding: tuple[MessageId, ...] | None = None
    """Messages that the harness still works on; None: unknown."""


class Ack(Command, frozen=True, kw_only=True):
    """The turn with these messages succeeded."""

    agent: AgentName
    ids: tuple[MessageId, ...]


class Requeue(Command, frozen=True, kw_only=True):
    """The turn with these messages did not succeed."""

    agent: AgentName
    ids: tuple[MessageId, ...]
    reason: str = "failed"


class Hello(Command, frozen=True, kw_only=True):
    """A harness announces its incarnation."""

    agent: AgentName
    incarnation: str
    alive: frozenset[str] = frozenset()
    """Connected incarnations; they keep their messages."""


def send(command: Send, hive: Hive, now: TimeMs) -> Decision:
    """Put a message into an inbox.

    Raises:
        NotFound: unknown or destroyed recipient. LimitReached: its inbox is full, or too much of the sender waits.
    """
    checked_text(command.body, "message", TEXT_MAX_BYTES)
    if command.in_reply_to is not None and not hive.messages.given(command.in_reply_to):
        raise NotFound(f"There is no message {command.in_reply_to} to reply to.")
    if command.to == EVERYONE:
        return _broadcast(command, hive, now)
    to = local(hive, command.to)
    if to != OPERATOR:
        check_recipient(hive, to)
        if (refusal := not_allowed(hive, command.sender, to)) is not None:
            return Answered([refusal], Refused(refusal.reason))
        refuse_full(hive, to)
        _refuse_holding(command, hive, copies=1)
    return [
        MessageSent(
            id=hive.messages.next_id(),
            sender=command.sender,
            to=to,
            body=command.body,
            in_reply_to=command.in_reply_to,
        )
    ]


def recv(command: Recv, hive: Hive, now: TimeMs) -> Decision:
    """Deliver the oldest waiting messages; requeued ones come first, in their old order.

    The answer is the messages, the number still waiting, and whether the agent is paused. Messages that this
    incarnation received but does not hold, because a reply was lost, are requeued first.
    """
    agent, incarnation, limit = command.agent, command.incarnation, max(1, min(command.limit, RECV_MAX))
    decision = DecisionBuilder(hive, now)
    lost = _lost(command, hive)
    for message in lost:
        requeue_one(decision, message, "lost")
    waiting = hive.messages.waiting(agent, limit)
    again = (msgspec.structs.replace(message, redelivered=True) for message in lost)
    messages = sorted([*again, *waiting], key=lambda message: message.id)[:limit]
    decision.add(*(MessageDelivered(id=message.id, to=agent, incarnation=incarnation) for message in messages))
    remaining = hive.messages.waiting_count(agent) + len(lost) - len(messages)
    return Answered(decision.events, (messages, remaining, living(hive, agent).paused))


def ack(command: Ack, hive: Hive, _: TimeMs) -> Decision:
    """Finish messages in flight. An ack may be repeated.

    Raises:
        NotFound: never sent to this agent.
    """
    return [MessageAcked(id=message.id, to=command.agent) for message in _in_flight(hive, command.agent, command.ids)]


def requeue(command: Requeue, hive: Hive, now: TimeMs) -> Decision:
    """Return messages in flight to the front of the inbox.

    Raises:
        NotFound: never sent to this agent. Refused: a reason hive does not know.
    """
    if command.reason not in COUNTED_REASONS | UNCOUNTED_REASONS:
        known = ", ".join(sorted(COUNTED_REASONS | UNCOUNTED_REASONS))
        raise Refused(f"{command.reason!r} is not a requeue reason; use one of {known}.")
    decision = DecisionBuilder(hive, now)
    for message in _in_flight(hive, command.agent, command.ids):
        requeue_one(decision, message, command.reason)
    return decision.events


def hello(command: Hello, hive: Hive, now: TimeMs) -> Decision:
    """Record a new incarnation and requeue messages of incarnations that are gone."""
    row = living(hive, command.agent)
    alive = command.alive | {command.incarnation}
    decision = DecisionBuilder(hive, now)
    if row.hello != command.incarnation and command.incarnation not in command.alive:
        decision.add(IncarnationSeen(agent=command.agent, incarnation=command.incarnation))
    for message in hive.messages.in_flight(command.agent):
        if message.incarnation is not None and message.incarnation not in alive:
            requeue_one(decision, message, "incarnation_died")
    return decision.events


def requeue_one(decision: DecisionBuilder, message: InboxMessage, reason: str) -> None:
    """Requeue one message, and mark it dead after too many failures."""
    counts = reason in COUNTED_REASONS
    decision.add(MessageRequeued(id=message.id, to=message.to, reason=reason, counts=counts))
    failures = message.failures + counts
    if failures >= FAILED_DELIVERIES_MAX:
        mark_dead(decision, message, f"{failures} deliveries ended in a failed turn or a dead harness")


def mark_dead(decision: DecisionBuilder, message: InboxMessage, reason: str) -> None:
    """Mark a message dead; tell the operator and, if it is an agent, the sender."""
    decision.add(MessageDead(id=message.id, to=message.to, reason=reason))
    notice = notices.MessageDead(id=message.id, to=message.to, sender=message.sender, reason=reason)
    decision.tell(OPERATOR, notice)
    if message.sender != message.to and reachable(decision.hive, message.sender):
        decision.tell(message.sender, _at_sender(decision.hive, notice))


def _at_sender(hive: Hive, notice: notices.MessageDead) -> notices.MessageDead:
    """A sender in another hive knows its message by the id there, and the recipient by its address."""
    origin = hive.swarm.origins.get(MessageId(notice.id))
    if origin is None:
        return notice
    sender, _ = address(notice.sender)
    return notices.MessageDead(
        id=origin.origin, to=f"{notice.to}@{hive.swarm.name}", sender=sender, reason=notice.reason
    )


def check_recipient(hive: Hive, to: str) -> None:
    """Raises NotFound: no such agent here, or no such hive."""
    if is_remote(to):
        check_peer(hive, to)
    else:
        living(hive, to)


def requeue_all(decision: DecisionBuilder, agent: AgentName, reason: str) -> None:
    """Requeue every message in flight: the container has ended."""
    for message in decision.hive.messages.in_flight(agent):
        requeue_one(decision, message, reason)


def _broadcast(command: Send, hive: Hive, now: TimeMs) -> Decision:
    decision = DecisionBuilder(hive, now)
    for row in hive.agents.living():
        if row.name == command.sender or not_allowed(hive, command.sender, row.name) is not None:
            continue
        refuse_full(hive, row.name)
        decision.send(command.sender, row.name, command.body, command.in_reply_to)
    if not decision.events:
        raise NotFound("There is no other agent to send to.")
    _refuse_holding(command, hive, copies=len(decision.events))
    return decision.events


def not_allowed(hive: Hive, sender: str, to: str) -> SendRefused | None:
    """The refusal if the sender's configuration does not allow this recipient."""
    row = hive.agents.living_one(sender)
    if row is None or row.recipients is None or to in (MANAGER, OPERATOR) or to in row.recipients:
        return None
    if f"{EVERYONE}@{address(to).hive}" in row.recipients:
        return None
    allowed = ", ".join(sorted({MANAGER, OPERATOR, *row.recipients}))
    return SendRefused(sender=sender, to=to, reason=f"{sender} may not send to {to}, only to: {allowed}.")


def refuse_full(hive: Hive, to: str) -> None:
    """Raises LimitReached: the inbox of a recipient is full."""
    waiting, size = hive.messages.backlog(to)
    if waiting >= WAITING_MAX:
        raise LimitReached(f"{to} has {WAITING_MAX} messages waiting; send again when it has worked on some.")
    if size >= WAITING_MAX_BYTES:
        raise LimitReached(f"{to} has {WAITING_MAX_BYTES} bytes waiting; send again when it has worked on some.")


def _refuse_holding(command: Send, hive: Hive, *, copies: int) -> None:
    """Raises LimitReached: the others have not worked on enough of what this agent sent."""
    if command.by.kind != "agent":
        return
    if hive.messages.sent_bytes(command.sender) + copies * held_bytes(command.body) > SENT_MAX_BYTES:
        raise LimitReached(
            f"{SENT_MAX_BYTES // MIB} MiB of {command.sender}'s messages wait in inboxes; send again when others have"
            " worked on some, or put large texts into a file and send its path."
        )


def _lost(command: Recv, hive: Hive) -> list[InboxMessage]:
    if command.holding is None or command.incarnation is None:
        return []
    held = set(command.holding)
    given = hive.messages.in_flight(command.agent)
    return [message for message in given if message.incarnation == command.incarnation and message.id not in held]


def _in_flight(hive: Hive, agent: AgentName, ids: tuple[MessageId, ...]) -> list[InboxMessage]:
    found = []
    for id in dict.fromkeys(ids):
        message = hive.messages.open.get(id)
        if (message is not None and message.to != agent) or not hive.messages.given(id):
            raise NotFound(f"Message {id} was never delivered to {agent}.")
        if message is not None and message.state == "in_flight":
            found.append(message)
    return found
