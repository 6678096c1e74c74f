"""Facts about other hives. Written by the swarm deciders; read by the swarm projection, which holds the outbox."""

from hive.events.base import Event
from hive.events.envelopes import OperatorDecision


class PeersSet(Event, frozen=True, kw_only=True):
    """This hive's name in the swarm, its peers, and whose decisions count from each."""

    hive: str
    peers: dict[str, tuple[str, ...]]
    """Operators by peer."""


class EnvelopeReceived(Event, frozen=True, kw_only=True):
    """An envelope of a peer was accepted; what follows from it is in the same commit."""

    peer: str
    number: int
    """Counts the envelopes of this pair of hives, from 1."""


class EnvelopeRefused(Event, frozen=True, kw_only=True):
    """An envelope was not accepted."""

    peer: str
    """The hive it claims to be from."""
    reason: str
    count: int = 1
    """Of the same kind since the last such event."""


class ReceiptTaken(Event, frozen=True, kw_only=True):
    """A peer has committed every envelope up to this number; nothing of them is owed any more."""

    peer: str
    number: int


class PeerAhead(Event, frozen=True, kw_only=True):
    """A peer has committed envelopes that this log does not have, as after a restore; numbers go on after them."""

    peer: str
    number: int


class DecisionSent(OperatorDecision, Event, frozen=True):
    """An operator of this hive decided about a row of another hive; it decides whether that counts."""

    id: int
    hive: str


class DecisionDone(Event, frozen=True, kw_only=True):
    """The other hive answered a decision; `error` is its refusal."""

    id: int
    hive: str
    error: str | None = None


class DecisionAnswered(Event, frozen=True, kw_only=True):
    """This hive decided on a decision from a peer."""

    peer: str
    decision: int
    """Its id at the peer."""
    error: str | None = None
