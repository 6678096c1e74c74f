"""An agent moves between two hives in memory: whatever the network and the daemons do, one hive owns it."""

from typing import Any

from deciders.check import OPERATOR_BY
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from hive.deciders.moves import BeginMove, FailMove, FinishMove, SendMove
from hive.errors import HiveError
from hive.events.agents import Spawned, Started

from .pair import LINK, LossyNetwork, Side, settle

AGENT = "a"
EXAMPLES = 60
STEPS = 40
DIGEST = "0" * 64


def finish(side: Side) -> None:
    """The files of an arrival are in place, and its container has started."""
    if AGENT in side.hive.swarm.arrivals:
        side.decide(FinishMove(by=LINK, agent=AGENT))
        started(side)


def started(side: Side) -> None:
    side.record(Started(agent=AGENT, incarnation=f"{AGENT}-{len(side.events)}", reason="spawn"), Spawned(agent=AGENT))


class Moves(LossyNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    @initialize()
    def agent_in_one_hive(self) -> None:
        self.sides = {"tokyo": Side("tokyo", "berlin"), "berlin": Side("berlin", "tokyo", ("manager", "b"))}

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def operator_moves_it(self, side: str) -> None:
        try:
            self.sides[side].decide(BeginMove(by=OPERATOR_BY, agent=AGENT, hive=self.sides[side].peer))
        except HiveError:
            return

    @rule(side=st.sampled_from(("tokyo", "berlin")), fails=st.booleans())
    def files_are_uploaded_or_not(self, side: str, fails: bool) -> None:
        here = self.sides[side]
        if AGENT in here.hive.swarm.moves:
            here.stop(AGENT)
            step: Any = FailMove(by=LINK, agent=AGENT, error="no") if fails else None
            here.decide(step or SendMove(by=LINK, agent=AGENT, object="x", digest=DIGEST))

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def files_are_in_place(self, side: str) -> None:
        finish(self.sides[side])

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def somebody_writes_to_it(self, side: str) -> None:
        try:
            self.sides[side].send(AGENT, f"number {self.sent}", sender="operator")
        except HiveError:
            return
        self.sent += 1

    @invariant()
    def never_two_own_it(self) -> None:
        assert sum(side.owns(AGENT) for side in self.sides.values()) <= 1

    @invariant()
    def at_most_one_runs_it(self) -> None:
        running = [row for side in self.sides.values() if (row := side.hive.agents.living_one(AGENT)) and row.running]
        assert len(running) <= 1

    def teardown(self) -> None:
        if not self.sides:
            return
        tokyo, berlin = self.sides.values()
        for _ in range(4):
            settle(tokyo, berlin)
            for side in (tokyo, berlin):
                finish(side)
        assert [tokyo.owns(AGENT), berlin.owns(AGENT)].count(True) == 1, "it ends here or there"
        (home,) = [side for side in (tokyo, berlin) if side.owns(AGENT)]
        away = tokyo if home is berlin else berlin
        assert len([one for one in home.waiting(AGENT) if '"kicked"' not in one[1]]) == self.sent, "all is with it"
        assert not away.waiting(AGENT)


TestMoves: Any = Moves.TestCase
TestMoves.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
