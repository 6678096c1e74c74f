"""Whatever the network does, each message arrives exactly once and in order, and no log loses its state."""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from hive.events.messages import MessageSent
from hive.names import is_remote

from .pair import LossyNetwork, Side, pair, settle

EXAMPLES = 60
STEPS = 40


class Network(LossyNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[str, list[str]] = {"tokyo": [], "berlin": []}
        """Bodies by sending hive, in order."""

    @initialize()
    def two_hives(self) -> None:
        tokyo, berlin = pair()
        self.sides = {"tokyo": tokyo, "berlin": berlin}

    @rule(side=st.sampled_from(("tokyo", "berlin")), to=st.sampled_from(("a", "b", "manager")))
    def an_agent_sends(self, side: str, to: str) -> None:
        here = self.sides[side]
        body = f"{side} {len(self.sent[side])}"
        here.send(f"{to}@{here.peer}", body)
        self.sent[side].append(body)

    @rule(pick=st.integers(0, 100))
    def something_is_lost(self, pick: int) -> None:
        if self.under_way:
            del self.under_way[pick % len(self.under_way)]

    @invariant()
    def what_arrived_is_what_was_sent_so_far_in_order(self) -> None:
        for name, side in self.sides.items():
            assert arrived(side) == self.sent[side.peer][: len(arrived(side))], name

    @invariant()
    def nothing_is_owed_that_is_receipted(self) -> None:
        for side in self.sides.values():
            row = side.hive.swarm.peer(side.peer)
            assert [one.number for one in side.hive.swarm.owed(side.peer)] == list(
                range(row.receipted + 1, row.sent + 1)
            )
            there = self.sides[side.peer].hive.swarm.peer(side.name)
            assert row.receipted <= there.received, "a receipt is written from a committed log"

    def teardown(self) -> None:
        if not self.sides:
            return
        tokyo, berlin = self.sides["tokyo"], self.sides["berlin"]
        settle(tokyo, berlin)
        for side in (tokyo, berlin):
            assert arrived(side) == self.sent[side.peer]
            assert not [one for one in side.hive.messages.open if is_remote(one.to)], "nothing is owed any more"


def arrived(side: Side) -> list[str]:
    """Bodies of the messages from the other hive, in the order of the log."""
    return [event.body for event in side.events if isinstance(event, MessageSent) and event.origin_id is not None]


TestNetwork: Any = Network.TestCase
TestNetwork.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_log_restored_from_an_older_copy_loses_no_later_message() -> None:
    """Its peer has seen numbers that this log does not know; what it sends next must not pass for them."""
    tokyo, berlin = pair()
    for text in ("one", "two", "three"):
        tokyo.send("a@berlin", text)
    length = len(tokyo.events)
    settle(tokyo, berlin)
    tokyo.send("a@berlin", "four")
    settle(tokyo, berlin)
    tokyo.restore(length - 2)  # "two", "three" and "four" are gone from it.
    tokyo.send("a@berlin", "five")
    settle(tokyo, berlin)
    counted = Counter(body for _, body in berlin.waiting("a"))
    assert counted["five"] >= 1
    assert [body for _, body in berlin.waiting("a")][:4] == ["one", "two", "three", "four"]


def test_peer_restored_from_an_older_copy_accepts_what_comes_next() -> None:
    tokyo, berlin = pair()
    length = len(berlin.events)
    tokyo.send("a@berlin", "one")
    settle(tokyo, berlin)
    berlin.restore(length)
    tokyo.send("a@berlin", "two")
    settle(tokyo, berlin)
    assert [body for _, body in berlin.waiting("a")] == ["two"]
