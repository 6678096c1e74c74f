"""Peers, the outbox, and how far each peer's envelopes came. The outbox is the events that must leave, in log order."""

from collections import deque

import msgspec

from hive.clock import TimeMs
from hive.events.agents import Destroyed, Purged
from hive.events.base import MessageId, QuestionId, Seq
from hive.events.messages import MessageSent
from hive.events.moves import (
    Adopted,
    AdoptionBegun,
    AdoptionEnded,
    AdoptionRefused,
    Claim,
    ClaimSeen,
    Handover,
    MoveArrived,
    MoveBegun,
    Moved,
    MoveFailed,
    MoveRefused,
    MoveSent,
)
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.swarm import (
    DecisionAnswered,
    DecisionDone,
    DecisionSent,
    EnvelopeReceived,
    PeerAhead,
    PeersSet,
    ReceiptTaken,
)
from hive.names import AgentName, address
from hive.projections.table import Projection, Recorded, Table

ORIGINS_KEPT = 10_000
"""Messages from peers whose number there is known; a reply to an older one is sent without `in_reply_to`."""


class Self(msgspec.Struct, frozen=True):
    """This hive."""

    hive: str


class Peer(msgspec.Struct, frozen=True):
    """Another hive and the counters of this pair."""

    hive: str
    trusted: bool = False
    operators: tuple[str, ...] = ()
    sent: int = 0
    """The newest number given to an envelope to it."""
    receipted: int = 0
    """The peer has committed every envelope up to here."""
    received: int = 0
    """This hive has committed every envelope of the peer up to here."""
    received_ms: TimeMs | None = None


class Outgoing(msgspec.Struct, frozen=True):
    """An envelope that is owed to a peer; its content is the event at `seq`."""

    peer: str
    number: int
    seq: Seq
    at_ms: TimeMs
    reference: int | None = None
    """What the event refers to, by its number at the peer."""
    message: MessageId | None = None
    """For a message: its id here."""


class Origin(msgspec.Struct, frozen=True):
    """A message of a peer's, by its id here."""

    id: MessageId
    peer: str
    origin: MessageId


class Asked(msgspec.Struct, frozen=True):
    """A pending question of a peer's agent."""

    peer: str
    origin: QuestionId
    id: QuestionId


class Remote(msgspec.Struct, frozen=True):
    """A decision that another hive has not answered yet."""

    id: int
    hive: str
    at_ms: TimeMs


class Move(msgspec.Struct, frozen=True):
    """An agent that leaves this hive."""

    agent: AgentName
    hive: str
    wanted: bool
    sent: bool = False
    """The target owns it, unless it refuses."""
    adopted: bool = False
    """The target took it over while this hive was lost."""
    claimed: bool = False
    """The target takes it over, or has done so; this hive waits for its word and does not run the agent."""
    origin: str | None = None
    epoch: int = 0
    """Of the agent in the target; 0 until it is sent."""


class Arrival(Handover, frozen=True):
    """An agent that comes to this hive and is not on its roster yet."""

    agent: AgentName
    peer: str


class Epoch(msgspec.Struct, frozen=True):
    """The epoch in which this hive holds, or held, an agent that came from a peer or came back from one."""

    agent: AgentName
    origin: str
    epoch: int
    source: str
    """The hive that it came from last."""


class Held(msgspec.Struct, frozen=True):
    """The newest epoch of an agent that this hive's log knows, and the hive that holds it."""

    origin: str
    epoch: int
    hive: str


class Adoption(msgspec.Struct, frozen=True):
    """An adoption that is under way."""

    source: str
    operator: str
    until: str
    heard: int
    claims: tuple[Claim, ...]


class Left(msgspec.Struct, frozen=True):
    """An agent that is in another hive now."""

    agent: AgentName
    hive: str


class Swarm(Projection):
    NAME = "swarm"
    VERSION = 2

    def __init__(self) -> None:
        self.self: Table[str, Self] = Table("swarm_self", Self)
        self.peers: Table[str, Peer] = Table("swarm_peers", Peer)
        self.outbox: Table[tuple[str, int], Outgoing] = Table("swarm_outbox", Outgoing, key_parts=2)
        self.origins: Table[MessageId, Origin] = Table("swarm_origins", Origin)
        self.asked: Table[tuple[str, QuestionId], Asked] = Table("swarm_asked", Asked, key_parts=2)
        self.decisions: Table[int, Remote] = Table("swarm_decisions", Remote)
        self.moves: Table[AgentName, Move] = Table("swarm_moves", Move)
        self.arrivals: Table[AgentName, Arrival] = Table("swarm_arrivals", Arrival)
        self.moved: Table[AgentName, Left] = Table("swarm_moved", Left)
        self.epochs: Table[AgentName, Epoch] = Table("swarm_epochs", Epoch)
        self.held: Table[str, Held] = Table("swarm_held", Held)
        self.adoptions: Table[str, Adoption] = Table("swarm_adoptions", Adoption)
        self._origins_by_age: deque[MessageId] = deque()

    def handlers(self) -> dict[type, object]:
        return {
            PeersSet: self._on_peers_set,
            EnvelopeReceived: self._on_received,
            ReceiptTaken: self._on_receipt,
            PeerAhead: self._on_peer_ahead,
            MessageSent: self._on_message,
            QuestionAdded: self._on_question,
            QuestionResolved: self._on_resolved,
            DecisionSent: self._on_decision,
            DecisionDone: lambda event, _: self.decisions.drop(event.id),
            MoveBegun: lambda event, _: self.moves.put(event.agent, Move(event.agent, event.hive, event.wanted)),
            MoveSent: self._on_move_sent,
            MoveFailed: self._on_move_failed,
            MoveArrived: self._on_arrived,
            Adopted: self._on_adopted,
            MoveRefused: lambda event, at: self._leaves(event.peer, at),
            Moved: self._on_moved,
            AdoptionBegun: self._on_adoption_begun,
            AdoptionEnded: self._on_adoption_ended,
            AdoptionRefused: self._on_adoption_refused,
            ClaimSeen: self._on_claim_seen,
            Purged: lambda event, _: self.epochs.drop(event.agent),
            Destroyed: self._on_destroyed,
            DecisionAnswered: lambda event, at: self._leaves(event.peer, at, event.decision),
        }

    def restored(self) -> None:
        self.outbox.rows = dict(sorted(self.outbox.rows.items()))
        self._origins_by_age = deque(sorted(self.origins.rows))

    @property
    def name(self) -> str | None:
        """This hive's name; None: it is in no swarm."""
        return next((row.hive for row in self.self), None)

    def lineage(self, agent: AgentName, slot: int) -> tuple[str, int]:
        """Origin and epoch of an agent on this roster."""
        known = self.epochs.get(agent)
        return (f"{self.name}/{slot}", 0) if known is None else (known.origin, known.epoch)

    def has(self, claim: Claim) -> bool:
        """Whether this hive has taken over what it claimed."""
        held = self.held.get(claim.origin)
        return held is not None and held.hive == self.name and held.epoch >= claim.epoch

    def claims(self) -> dict[str, tuple[int, str]]:
        """What this hive shows to the others: by origin the newest epoch, and who holds it or is about to."""
        found = {row.origin: (row.epoch, row.hive) for row in self.held}
        for adoption in self.adoptions:
            for one in adoption.claims:
                if one.epoch > found.get(one.origin, (0, ""))[0]:
                    found[one.origin] = (one.epoch, str(self.name))
        return found

    def peer(self, hive: str) -> Peer:
        """A peer's row; one without counters if there is none."""
        return self.peers.get(hive) or Peer(hive)

    def owed(self, peer: str, limit: int | None = None, after: int = 0) -> list[Outgoing]:
        """What waits for a receipt, by number: of the first `limit` those after a number."""
        row = self.peer(peer)
        last = row.sent if limit is None else min(row.sent, row.receipted + limit)
        found = (self.outbox.get((peer, number)) for number in range(max(row.receipted, after) + 1, last + 1))
        return [one for one in found if one is not None]

    def _on_peers_set(self, event: PeersSet, _: Recorded) -> None:
        if event.hive not in self.self:
            for old in list(self.self.rows):
                self.self.drop(old)
            self.self.put(event.hive, Self(event.hive))
        for row in list(self.peers):
            if row.trusted and row.hive not in event.peers:
                self.peers.put(row.hive, msgspec.structs.replace(row, trusted=False, operators=()))
        for hive, operators in event.peers.items():
            self.peers.put(hive, msgspec.structs.replace(self.peer(hive), trusted=True, operators=operators))

    def _on_received(self, event: EnvelopeReceived, recorded: Recorded) -> None:
        row = self.peer(event.peer)
        self.peers.put(event.peer, msgspec.structs.replace(row, received=event.number, received_ms=recorded.at_ms))

    def _on_receipt(self, event: ReceiptTaken, _: Recorded) -> None:
        row = self.peer(event.peer)
        for number in range(row.receipted + 1, event.number + 1):
            self.outbox.drop((event.peer, number))
        self.peers.put(event.peer, msgspec.structs.replace(row, receipted=event.number))

    def _on_peer_ahead(self, event: PeerAhead, _: Recorded) -> None:
        """The numbers of what is owed move behind those that the peer knows."""
        owed, row = self.owed(event.peer), self.peer(event.peer)
        for one in owed:
            self.outbox.drop((event.peer, one.number))
        for number, one in enumerate(owed, event.number + 1):
            self.outbox.put((event.peer, number), msgspec.structs.replace(one, number=number))
        sent = event.number + len(owed)
        self.peers.put(event.peer, msgspec.structs.replace(row, sent=sent, receipted=event.number))

    def _leaves(
        self, peer: str, recorded: Recorded, reference: int | None = None, message: MessageId | None = None
    ) -> None:
        row = self.peer(peer)
        number = row.sent + 1
        self.peers.put(peer, msgspec.structs.replace(row, sent=number))
        self.outbox.put((peer, number), Outgoing(peer, number, recorded.seq, recorded.at_ms, reference, message))

    def _on_message(self, event: MessageSent, recorded: Recorded) -> None:
        if event.origin_id is not None:
            hive = address(event.sender).hive or ""
            self.origins.put(event.id, Origin(event.id, hive, event.origin_id))
            self._origins_by_age.append(event.id)
            if len(self._origins_by_age) > ORIGINS_KEPT:
                self.origins.drop(self._origins_by_age.popleft())
        if "@" in event.to:
            peer = address(event.to).hive or ""
            replied = None if event.in_reply_to is None else self.origins.get(event.in_reply_to)
            reference = replied.origin if replied is not None and replied.peer == peer else None
            self._leaves(peer, recorded, reference, event.id)

    def _on_question(self, event: QuestionAdded, recorded: Recorded) -> None:
        if event.origin_id is not None:
            hive = address(event.asker).hive or ""
            self.asked.put((hive, event.origin_id), Asked(hive, event.origin_id, event.id))
        elif event.target is not None and (hive := address(event.target).hive or ""):
            self._leaves(hive, recorded)

    def _on_resolved(self, event: QuestionResolved, recorded: Recorded) -> None:
        """An answer goes to the asker's hive, a question that is over to the target's; neither goes back."""
        by = address(event.answerer).hive
        asker = address(event.asker).hive
        target = None if event.target is None else address(event.target).hive
        if asker is not None:
            origin = next((row.origin for row in self.asked if row.id == event.id), None)
            if origin is not None:
                self.asked.drop((asker, origin))
                if by != asker:
                    self._leaves(asker, recorded, origin)
        elif target is not None and by != target:
            self._leaves(target, recorded)

    def _on_decision(self, event: DecisionSent, recorded: Recorded) -> None:
        self.decisions.put(event.id, Remote(event.id, event.hive, recorded.at_ms))
        self._leaves(event.hive, recorded)

    def _on_move_sent(self, event: MoveSent, recorded: Recorded) -> None:
        move = Move(event.agent, event.hive, event.wanted, sent=True, origin=event.origin, epoch=event.epoch)
        self.moves.put(event.agent, move)
        self._hold(event.origin, event.epoch, event.hive)
        self._leaves(event.hive, recorded)

    def _hold(self, origin: str | None, epoch: int, hive: str, here: tuple[AgentName, str] | None = None) -> None:
        """`here`: the agent is in this hive with that epoch, and came from a hive."""
        if origin is None:  # Sent by a version that had no epochs.
            return
        self.held.put(origin, Held(origin, epoch, hive))
        if here is not None:
            agent, source = here
            self.epochs.put(agent, Epoch(agent, origin, epoch, source))

    def _on_move_failed(self, event: MoveFailed, _: Recorded) -> None:
        move = self.moves.get(event.agent)
        self.moves.drop(event.agent)
        if move is not None and move.sent and not move.claimed:
            self._hold(move.origin, move.epoch, str(self.name), (event.agent, move.hive))

    def _on_adoption_refused(self, event: AdoptionRefused, recorded: Recorded) -> None:
        if event.hive == self.name:
            self._hold(event.origin, event.epoch, event.hive, (event.agent, event.peer))
        self._leaves(event.peer, recorded)

    def _on_destroyed(self, event: Destroyed, _: Recorded) -> None:
        move = self.moves.get(event.agent)
        if move is not None and move.claimed:  # Whoever claims it keeps it.
            self.moves.drop(event.agent)
        if event.purge:
            self.epochs.drop(event.agent)

    def _on_claim_seen(self, event: ClaimSeen, _: Recorded) -> None:
        move = Move(event.agent, event.hive, event.wanted, claimed=True, epoch=event.epoch)
        self.moves.put(event.agent, move)

    def _on_adoption_begun(self, event: AdoptionBegun, _: Recorded) -> None:
        row = Adoption(event.source, event.operator, event.until, event.heard, event.claims)
        self.adoptions.put(event.source, row)

    def _on_adoption_ended(self, event: AdoptionEnded, recorded: Recorded) -> None:
        self.adoptions.drop(event.source)
        if event.given_up:
            self._leaves(event.source, recorded)

    def _on_arrived(self, event: MoveArrived, _: Recorded) -> None:
        self.arrivals.put(event.agent, Arrival(event.agent, event.peer, **event.handover()))
        self._hold(event.origin, event.epoch, str(self.name), (event.agent, event.peer))

    def _on_moved(self, event: Moved, recorded: Recorded) -> None:
        if event.to == self.name:
            self.arrivals.drop(event.agent)
            self.moved.drop(event.agent)
            self._leaves(event.source, recorded)
        else:
            self.moves.drop(event.agent)
            self.moved.put(event.agent, Left(event.agent, event.to))

    def _on_adopted(self, event: Adopted, recorded: Recorded) -> None:
        if event.to == self.name:
            self.moved.drop(event.agent)
            self._hold(event.origin, event.epoch, event.to, (event.agent, event.source))
            self._leaves(event.source, recorded)
        else:
            self._hold(event.origin, event.epoch, event.to)
            self.moves.put(event.agent, Move(event.agent, event.to, wanted=False, sent=True, adopted=True))
