"""Facts about messages. Written by the message deciders; read by the messages projection and the parked recvs."""

import msgspec

from hive.events.base import Event, MessageId
from hive.names import AgentName


class MessageSent(Event, frozen=True, kw_only=True):
    """A message waits in `to`'s inbox."""

    id: MessageId
    sender: str = msgspec.field(name="from")
    """An agent, `operator` or `system`."""
    to: str
    """An agent or `operator`."""
    body: str
    in_reply_to: MessageId | None = None
    origin_id: MessageId | None = None
    """For a message from another hive: its id there."""


class MessageDelivered(Event, frozen=True, kw_only=True):
    """A recv returned it."""

    id: MessageId
    to: AgentName
    incarnation: str | None = None
    """The run of the harness that took it; None when the connection said no hello."""


class MessageAcked(Event, frozen=True, kw_only=True):
    """Its turn succeeded; the message is done."""

    id: MessageId
    to: AgentName


class MessageRequeued(Event, frozen=True, kw_only=True):
    """It waits again at its old position, marked as redelivered."""

    id: MessageId
    to: AgentName
    reason: str
    """Why the turn ended: `failed`, `rate_limited`, `crashed`, …"""
    counts: bool = False
    """Whether this delivery counts towards the limit after which a message is dead."""


class MessageDead(Event, frozen=True, kw_only=True):
    """It is not delivered again; the same commit tells the operator."""

    id: MessageId
    to: AgentName
    reason: str


class SendRefused(Event, frozen=True, kw_only=True):
    """An agent sent to a recipient that its configuration does not allow."""

    sender: AgentName = msgspec.field(name="from")
    to: str
    reason: str
