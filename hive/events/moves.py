"""Facts about agents that move between hives. Written by the move deciders; read by the swarm projection and the mover.

At each point one hive owns the agent: the source until `MoveSent`, then the target, unless it refuses the agent.
"""

from typing import Any

import msgspec

from hive.clock import TimeMs
from hive.events.base import Event
from hive.names import AgentName


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """What the target needs of an agent. Both events, the envelope, and the row of an arrival have these fields.

    A subclass is not `kw_only`: only so its own fields come first.
    """

    object: str
    """In the object store of the source."""
    digest: str
    """SHA-256 of the object."""
    wanted: bool = True
    """Whether the agent runs after the move."""
    paused: bool = False
    model: str | None = None
    reminders: tuple[tuple[str, TimeMs], ...] = ()
    """Text and due time."""
    origin: str | None = None
    """Where the agent was added first: the hive and its slot there, as `tokyo/7`. It never changes."""
    epoch: int = 0
    """Of the agent in the target. Each move and each adoption raises it; whoever holds the newest one may run it."""

    def handover(self) -> dict[str, Any]:
        """These fields by name, without those that a subclass adds."""
        return {name: getattr(self, name) for name in Handover.__struct_fields__}


class MoveBegun(Event, frozen=True, kw_only=True):
    """The agent is to move to a peer; it is stopped and its files are uploaded next."""

    agent: AgentName
    hive: str
    wanted: bool = True
    """Whether it ran before, and so runs again after the move or its failure."""


class MoveSent(Handover, Event, frozen=True):
    """The agent's files are uploaded. From here on the target owns it."""

    agent: AgentName
    hive: str


class MoveFailed(Event, frozen=True, kw_only=True):
    """The agent stays in this hive: a move or an adoption of it has ended without effect."""

    agent: AgentName
    hive: str
    error: str
    wanted: bool = True


class MoveArrived(Handover, Event, frozen=True):
    """A peer's agent now belongs to this hive; its files are downloaded next."""

    agent: AgentName
    peer: str


class MoveRefused(Event, frozen=True, kw_only=True):
    """This hive does not take a peer's agent; the peer keeps it."""

    agent: AgentName
    peer: str
    error: str


class Moved(Event, frozen=True, kw_only=True):
    """The agent has arrived. In the source's log `to` is the target, in the target's log this hive."""

    agent: AgentName
    source: str
    to: str


class Adopted(Event, frozen=True, kw_only=True):
    """An operator took over an agent of a lost hive. In that hive's log, once it is back, `to` is the other hive."""

    agent: AgentName
    source: str
    to: str
    operator: str
    until: str
    """Time of the newest event in the replica: what was said to the agent after it is not there yet."""
    origin: str | None = None
    epoch: int = 0


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """One agent that an adoption takes over."""

    agent: AgentName
    origin: str
    epoch: int
    """Above that of the lost hive."""


class AdoptionBegun(Event, frozen=True, kw_only=True):
    """An operator takes over the agents of a lost hive. Every hive sees the claims before one of them starts here."""

    source: str
    operator: str
    until: str
    heard: int
    """Number of the last screen of the lost hive: a newer one ends the adoption."""
    claims: tuple[Claim, ...]


class AdoptionEnded(Event, frozen=True, kw_only=True):
    """The adoption is over; `error` is why it did not take over every claim."""

    source: str
    given_up: tuple[AgentName, ...] = ()
    """Claimed and not taken over. The lost hive is told and runs them again."""
    error: str | None = None


class ClaimSeen(Event, frozen=True, kw_only=True):
    """A peer holds a newer epoch of an agent of this hive: it is stopped, and waits for what the peer says."""

    agent: AgentName
    hive: str
    epoch: int
    wanted: bool = True
    """Whether it is to run again if the peer gives the agent up."""


class AdoptionRefused(Event, frozen=True, kw_only=True):
    """A peer has adopted an agent that it may not have; it is told to give the agent up."""

    agent: AgentName
    peer: str
    hive: str
    """Where the agent is."""
    error: str
    origin: str | None = None
    epoch: int = 0
    """Of the adoption."""
