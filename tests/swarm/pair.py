"""Two hives in memory with a lossy network between them: real rules, folds and signatures, no NATS and no clock."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deciders.check import NOW, OPERATOR_BY, by, folded, grow
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from hive.clock import TimeMs
from hive.deciders import decide
from hive.deciders.base import Answered, Command
from hive.deciders.messages import Ack, Recv, Send
from hive.deciders.swarm import Receive, TakeReceipt
from hive.events import AnyEvent
from hive.events.agents import AgentAdded, Spawned, Started, Stopped
from hive.events.base import By, actor
from hive.events.swarm import PeersSet
from hive.swarm.envelope import Envelope, Receipt, opened, payload, seal
from hive.swarm.keys import HiveKey, PeerKey

LINK: By = actor("swarm")
KEYS = {name: HiveKey(Ed25519PrivateKey.generate()) for name in ("tokyo", "berlin")}


class Side:
    """One hive: its log, the state folded from it, and what it last published."""

    def __init__(self, name: str, peer: str, agents: tuple[str, ...] = ("manager", "a", "b")):
        self.name, self.peer = name, peer
        self.events: list[AnyEvent] = [PeersSet(hive=name, peers={peer: ("mara",)})]
        for slot, one in enumerate(agents, 1):
            self.events += [
                AgentAdded(agent=one, slot=slot),
                Started(agent=one, incarnation=f"{one}-1", reason="spawn"),
                Spawned(agent=one),
            ]
        self.hive = folded(self.events)
        self.attempts = 0

    def decide(self, command: Command, now: TimeMs = NOW) -> Any:
        """Decide, record and fold; the answer. Raises what the rule raises."""
        decision = decide(command, self.hive, now)
        made, answer = decision if isinstance(decision, Answered) else Answered(decision)
        for event in made:
            self.events.append(event)
            grow(self.hive, event, now)
        return answer

    def record(self, *events: AnyEvent) -> None:
        """Events that no rule made."""
        for event in events:
            self.events.append(event)
            grow(self.hive, event)

    def stop(self, agent: str) -> None:
        """The agent's container ends, as asked."""
        row = self.hive.agents.living_one(agent)
        if row is not None and row.running:
            self.record(Stopped(agent=agent, exit="exit code 0"))

    def restart(self) -> None:
        """Only the log is left."""
        self.hive = folded(self.events)

    def restore(self, length: int) -> None:
        """An older copy of the log takes its place."""
        self.events = self.events[: max(length, 10)]
        self.restart()

    def publish(self) -> list[bytes]:
        """Everything that is owed, sealed."""
        owed = self.hive.swarm.owed(self.peer)
        self.attempts += 1
        base = self.hive.swarm.peer(self.peer).receipted + 1
        return [
            seal(
                KEYS[self.name],
                Envelope(
                    sender=self.name,
                    to=self.peer,
                    number=one.number,
                    base=base,
                    attempt=self.attempts,
                    payload=payload(one, self.events[one.seq - 1]),
                ),
            )
            for one in owed
        ]

    def take(self, data: bytes) -> bytes | None:
        """Read what came; a receipt to send back, if any."""
        wire = opened(data, PeerKey(KEYS[self.peer].public), self.peer, self.name)
        if isinstance(wire, Receipt):
            self.decide(TakeReceipt(by=LINK, peer=self.peer, number=wire.received))
            return None
        decider = LINK
        if wire.payload.__class__.__name__ == "Decision":
            decider = By("operator", f"{wire.payload.operator}@{self.peer}", way="swarm")  # type: ignore[union-attr]
        self.decide(Receive(by=decider, peer=self.peer, number=wire.number, base=wire.base, payload=wire.payload))
        received = self.hive.swarm.peer(self.peer).received
        return seal(KEYS[self.name], Receipt(sender=self.name, to=self.peer, received=received))

    def owns(self, agent: str) -> bool:
        """Whether this hive may run an agent, or will."""
        move = self.hive.swarm.moves.get(agent)
        is_here = self.hive.agents.living_one(agent) is not None and not (move is not None and move.sent)
        return is_here or agent in self.hive.swarm.arrivals

    def send(self, to: str, body: str, sender: str = "a") -> None:
        who = OPERATOR_BY if sender == "operator" else by(sender)
        self.decide(Send(by=who, sender=sender, to=to, body=body))

    def read(self, agent: str) -> list[str]:
        """Receive and ack everything that waits for an agent; the bodies."""
        messages, _, _ = self.decide(Recv(by=by(agent), agent=agent, limit=32))
        self.decide(Ack(by=by(agent), agent=agent, ids=tuple(one.id for one in messages)))
        return [one.body for one in messages]

    def waiting(self, agent: str) -> list[tuple[str, str]]:
        """(sender, body) of everything that waits for an agent."""
        return [(one.sender, one.body) for one in self.hive.messages.waiting(agent)]


def pair() -> tuple[Side, Side]:
    return Side("tokyo", "berlin"), Side("berlin", "tokyo")


def settle(one: Side, other: Side, rounds: int = 20) -> None:
    """A network that loses nothing, until neither side owes anything."""
    for _ in range(rounds):
        for source, target in ((one, other), (other, one)):
            for data in source.publish():
                if (receipt := target.take(data)) is not None:
                    source.take(receipt)
        if not one.hive.swarm.outbox and not other.hive.swarm.outbox:
            return
    raise AssertionError("the two hives do not come to rest")


class LossyNetwork(RuleBasedStateMachine):
    """Two hives. What one publishes may be lost, repeated, reordered or delayed; either may restart at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: dict[str, Side] = {}
        self.under_way: list[tuple[str, bytes]] = []
        """(to, data), in no order."""

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def hive_publishes_what_it_owes(self, side: str) -> None:
        here = self.sides[side]
        self.under_way += [(here.peer, data) for data in here.publish()]

    @rule(pick=st.integers(0, 100), keep=st.booleans())
    def something_arrives(self, pick: int, keep: bool) -> None:
        if self.under_way:
            to, data = self.under_way[pick % len(self.under_way)]
            if not keep:
                self.under_way.remove((to, data))
            if (receipt := self.sides[to].take(data)) is not None:
                self.under_way.append((self.sides[to].peer, receipt))

    @rule()
    def everything_under_way_is_lost(self) -> None:
        self.under_way.clear()

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def daemon_is_killed_and_starts_again(self, side: str) -> None:
        self.sides[side].restart()
