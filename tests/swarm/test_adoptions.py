"""A hive that is not really lost has an agent adopted: whatever happens meanwhile, one hive has it in the end."""

from typing import Any

from deciders.check import OPERATOR_BY, folded
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from hive.deciders.adoption import Adopt, BeginAdoption, EndAdopted, EndAdoption, SeeClaims
from hive.deciders.lifecycle import BeginAct
from hive.deciders.moves import BeginMove, FinishMove, SendMove
from hive.errors import HiveError
from hive.events.agents import Spawned, Started
from hive.events.moves import Claim
from hive.events.swarm import PeersSet

from .pair import LINK, LossyNetwork, Side, settle

AGENT = "a"
EXAMPLES = 80
STEPS = 40
DIGEST = "0" * 64


class Adoptions(LossyNetwork):
    @initialize(allowed=st.booleans())
    def agent_in_one_hive(self, allowed: bool) -> None:
        tokyo = Side("tokyo", "berlin")
        if not allowed:
            tokyo.record(PeersSet(hive="tokyo", peers={"berlin": ("eve",)}))
        self.sides = {"tokyo": tokyo, "berlin": Side("berlin", "tokyo", ("manager", "b"))}

    def tried(self, side: str, command: Any) -> None:
        try:
            self.sides[side].decide(command)
        except HiveError:
            return

    @rule(side=st.sampled_from(("tokyo", "berlin")), behind=st.integers(0, 12))
    def operator_adopts_from_a_replica_that_may_be_behind(self, side: str, behind: int) -> None:
        there = self.sides[self.sides[side].peer]
        replica = folded(there.events[: len(there.events) - behind])
        row = replica.agents.living_one(AGENT)
        move = replica.swarm.moves.get(AGENT)
        if row is None or replica.swarm.name is None or (move is not None and move.sent):
            return
        origin, epoch = replica.swarm.lineage(AGENT, row.slot)
        claims = (Claim(agent=AGENT, origin=origin, epoch=epoch + 1),)
        until = "2026-01-31T09:30:00.000Z"
        self.tried(side, BeginAdoption(by=OPERATOR_BY, source=there.name, until=until, heard=1, claims=claims))

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def claim_is_taken(self, side: str) -> None:
        here = self.sides[side]
        self.tried(side, Adopt(by=LINK, agent=AGENT, source=here.peer))
        self.started(here)

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def adoption_ends(self, side: str) -> None:
        self.tried(side, EndAdoption(by=LINK, source=self.sides[side].peer))

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def operator_moves_it(self, side: str) -> None:
        self.tried(side, BeginMove(by=OPERATOR_BY, agent=AGENT, hive=self.sides[side].peer))

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def mover_works(self, side: str) -> None:
        here = self.sides[side]
        move = here.hive.swarm.moves.get(AGENT)
        if move is not None and (move.claimed or move.adopted or not move.sent):
            here.stop(AGENT)
            here.decide(SendMove(by=LINK, agent=AGENT, object="x", digest=DIGEST))
            here.decide(EndAdopted(by=LINK, agent=AGENT))
        if AGENT in here.hive.swarm.arrivals:
            here.decide(FinishMove(by=LINK, agent=AGENT))
            self.started(here)

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def operator_starts_it(self, side: str) -> None:
        self.tried(side, BeginAct(by=OPERATOR_BY, agent=AGENT, act="start"))
        self.started(self.sides[side])

    @rule(side=st.sampled_from(("tokyo", "berlin")))
    def screen_of_the_other_is_read(self, side: str) -> None:
        here = self.sides[side]
        claims = self.sides[here.peer].hive.swarm.claims()
        here.decide(SeeClaims(by=LINK, peer=here.peer, claims=claims))

    def started(self, side: Side) -> None:
        """What the agent's actor does when it may."""
        row = side.hive.agents.living_one(AGENT)
        if row is not None and row.act in ("spawn", "start"):
            assert AGENT not in side.hive.swarm.moves, "an agent that is on its way does not start"
            side.record(Started(agent=AGENT, incarnation=f"{AGENT}-{len(side.events)}", reason="spawn"))
            side.record(Spawned(agent=AGENT))

    def teardown(self) -> None:
        if not self.sides:
            return
        for _ in range(6):
            for side in self.sides:
                self.claim_is_taken(side)
                self.adoption_ends(side)
                self.mover_works(side)
            settle(*self.sides.values())
            for side in self.sides:
                self.screen_of_the_other_is_read(side)
        assert [side.owns(AGENT) for side in self.sides.values()].count(True) == 1, "one hive has it"
        (home,) = [side for side in self.sides.values() if side.owns(AGENT)]
        row = home.hive.agents.living_one(AGENT)
        assert row is not None
        assert row.wanted_running, "it runs there"
        assert AGENT not in home.hive.swarm.moves


TestAdoptions: Any = Adoptions.TestCase
TestAdoptions.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
