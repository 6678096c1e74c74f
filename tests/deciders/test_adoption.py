"""The rules of adoption: the adopter claims and takes the agents; the lost hive gives them up, or refuses."""

import pytest

from hive.deciders.adoption import Adopt, BeginAdoption, EndAdopted, EndAdoption, SeeClaims
from hive.deciders.lifecycle import BeginAct
from hive.deciders.swarm import Receive, SetPeers
from hive.errors import AlreadyDone, NotFound, Refused
from hive.events import AnyEvent, envelopes, notices
from hive.events.agents import ActDecided, AgentAdded, Destroyed, Paused
from hive.events.base import MessageId, actor
from hive.events.messages import MessageDead
from hive.events.moves import (
    Adopted,
    AdoptionBegun,
    AdoptionEnded,
    AdoptionRefused,
    Claim,
    ClaimSeen,
    MoveBegun,
    Moved,
    MoveFailed,
    MoveSent,
)
from hive.events.swarm import EnvelopeReceived, PeersSet

from .check import MANAGED, OPERATOR_BY, by, check, sent, told

LINK = actor("swarm")
UNTIL = "2026-01-31T09:29:59.000Z"
CODER = "tokyo/2"
"""The origin of coder in `MANAGED`."""
JOINED = [*MANAGED, PeersSet(hive="tokyo", peers={"berlin": ("mara",)})]
CLAIMS = (Claim(agent="smith", origin="berlin/3", epoch=1), Claim(agent="tester", origin="berlin/4", epoch=1))
BEGUN = [*JOINED, AdoptionBegun(source="berlin", operator="mara", until=UNTIL, heard=7, claims=CLAIMS)]
ADOPTED = Adopted(agent="smith", source="berlin", to="tokyo", operator="mara", until=UNTIL, origin="berlin/3", epoch=1)
TAKEN = [*BEGUN, ADOPTED, AgentAdded(agent="smith", slot=4)]
GIVEN = Adopted(agent="coder", source="tokyo", to="berlin", operator="mara", until=UNTIL, origin=CODER, epoch=1)
SEEN = [*JOINED, ClaimSeen(agent="coder", hive="berlin", epoch=1)]


def received(payload: envelopes.AnyPayload) -> Receive:
    return Receive(by=LINK, peer="berlin", number=1, base=1, payload=payload)


def told_of(operator: str = "mara", origin: str = CODER, epoch: int = 1, agent: str = "coder") -> Receive:
    return received(envelopes.Adopted(agent=agent, operator=operator, until=UNTIL, origin=origin, epoch=epoch))


def with_envelope(*events: AnyEvent) -> list[AnyEvent]:
    return [EnvelopeReceived(peer="berlin", number=1), *events]


# The adopter


def test_adoption_claims_before_it_takes() -> None:
    command = BeginAdoption(by=OPERATOR_BY, source="berlin", until=UNTIL, heard=7, claims=CLAIMS)
    hive = check(given=JOINED, when=command, then=[BEGUN[-1]])
    assert hive.swarm.claims() == {"berlin/3": (1, "tokyo"), "berlin/4": (1, "tokyo")}, "every hive sees it"
    check(given=BEGUN, when=command, then=AlreadyDone)


@pytest.mark.parametrize(("source", "claims"), [("oslo", CLAIMS), ("berlin", ())])
def test_adoption_of_nothing_is_refused(source: str, claims: tuple[Claim, ...]) -> None:
    command = BeginAdoption(by=OPERATOR_BY, source=source, until=UNTIL, heard=7, claims=claims)
    check(given=JOINED, when=command, then=NotFound)


def test_claimed_agent_joins_the_roster_with_its_messages() -> None:
    messages = (("alice", "one"), ("tester@tokyo", "two"))
    command = Adopt(by=LINK, agent="smith", source="berlin", paused=True, messages=messages)
    hive = check(
        given=BEGUN,
        when=command,
        then=[
            ADOPTED,
            AgentAdded(agent="smith", slot=4),
            Paused(agent="smith"),
            sent(1, "smith", "one", "alice@berlin"),
            sent(2, "smith", "two", "tester"),
            told(3, "smith", notices.Kicked(reason="adoption from berlin")),
        ],
    )
    assert len(hive.swarm.owed("berlin")) == 1, "berlin hears of it when it is back"
    check(given=TAKEN, when=command, then=[])
    check(given=JOINED, when=command, then=NotFound)


def test_agent_that_was_stopped_is_adopted_stopped() -> None:
    hive = check(
        given=BEGUN,
        when=Adopt(by=LINK, agent="smith", source="berlin", wanted=False),
        then=[
            ADOPTED,
            AgentAdded(agent="smith", slot=4),
            ActDecided(agent="smith", act="stop"),
            told(1, "smith", notices.Kicked(reason="adoption from berlin")),
        ],
    )
    assert not hive.agents.all["smith"].wanted_running


def test_taken_name_stays_in_the_lost_hive_and_is_given_up_at_the_end() -> None:
    check(given=BEGUN, when=Adopt(by=LINK, agent="tester", source="berlin"), then=AlreadyDone, says="stays in berlin")
    end = EndAdoption(by=LINK, source="berlin", error="no")
    hive = check(given=TAKEN, when=end, then=[AdoptionEnded(source="berlin", given_up=("tester",), error="no")])
    assert len(hive.swarm.owed("berlin")) == 2
    assert hive.swarm.claims() == {"berlin/3": (1, "tokyo")}
    check(given=JOINED, when=end, then=[])


def test_adopter_hands_over_what_it_may_not_have() -> None:
    refusal = envelopes.AdoptionRefused(agent="smith", hive="berlin", error="no", origin="berlin/3", epoch=1)
    over = Adopted(agent="smith", source="tokyo", to="berlin", operator="system", until="", origin="berlin/3", epoch=1)
    check(given=TAKEN, when=received(refusal), then=with_envelope(over))
    other = envelopes.AdoptionRefused(agent="smith", hive="berlin", error="no", origin="berlin/3", epoch=2)
    check(given=TAKEN, when=received(other), then=with_envelope())


# The lost hive


def test_newer_epoch_stops_the_agent_until_the_peer_says_more() -> None:
    see = SeeClaims(by=LINK, peer="berlin", claims={CODER: (1, "berlin")})
    hive = check(given=JOINED, when=see, then=[SEEN[-1]])
    assert not hive.agents.all["coder"].wanted_running
    check(given=SEEN, when=see, then=[])
    start = BeginAct(by=OPERATOR_BY, agent="coder", act="start")
    check(given=SEEN, when=start, then=Refused, says="hive swarm distrust berlin")


@pytest.mark.parametrize(
    ("peers", "claims"),
    [
        ({"berlin": ("mara",)}, {CODER: (0, "berlin")}),
        ({"berlin": ("mara",)}, {CODER: (1, "tokyo")}),
        ({"berlin": ("mara",)}, {"tokyo/1": (5, "berlin")}),
        ({"berlin": ()}, {CODER: (1, "berlin")}),
        ({}, {CODER: (1, "berlin")}),
    ],
    ids=["not newer", "held here", "the manager", "no operator of it may decide here", "no peer"],
)
def test_claim_that_does_not_count_stops_nothing(
    peers: dict[str, tuple[str, ...]], claims: dict[str, tuple[int, str]]
) -> None:
    given = [*MANAGED, PeersSet(hive="tokyo", peers=peers)]
    check(given=given, when=SeeClaims(by=LINK, peer="berlin", claims=claims), then=[])


def test_agent_runs_again_when_the_claim_is_given_up() -> None:
    failed = MoveFailed(agent="coder", hive="berlin", error="berlin does not adopt it")
    unclaimed = received(envelopes.Unclaimed(agents=("coder", "ghost")))
    hive = check(given=SEEN, when=unclaimed, then=with_envelope(failed))
    assert hive.agents.all["coder"].wanted_running
    see = SeeClaims(by=LINK, peer="berlin", claims={CODER: (1, "tokyo")})
    check(given=SEEN, when=see, then=[failed])


def test_agent_runs_again_when_the_claiming_hive_is_distrusted() -> None:
    failed = MoveFailed(agent="coder", hive="berlin", error="it is no longer a peer of this hive")
    check(given=SEEN, when=SetPeers(by=LINK, hive="tokyo", peers={}), then=[PeersSet(hive="tokyo", peers={}), failed])


def test_claim_ends_a_move_that_has_only_begun() -> None:
    moving = [*JOINED, MoveBegun(agent="coder", hive="berlin")]
    see = SeeClaims(by=LINK, peer="berlin", claims={CODER: (1, "berlin")})
    check(given=moving, when=see, then=[ClaimSeen(agent="coder", hive="berlin", epoch=1)])


@pytest.mark.parametrize("before", [JOINED, SEEN])
def test_lost_hive_gives_the_agent_up_and_sends_on_what_is_newer(before: list[AnyEvent]) -> None:
    dead = MessageDead(id=MessageId(1), to="coder", reason="berlin has adopted coder")
    hive = check(
        given=[*before, sent(1, "coder")],
        when=told_of(),
        then=with_envelope(GIVEN, dead, sent(2, "coder@berlin")),
    )
    assert not hive.agents.all["coder"].wanted_running
    gone = [Moved(agent="coder", source="tokyo", to="berlin"), Destroyed(agent="coder")]
    check(given=[*before, GIVEN], when=EndAdopted(by=LINK, agent="coder"), then=gone)
    check(given=before, when=EndAdopted(by=LINK, agent="coder"), then=[])


def test_operator_who_may_not_decide_here_adopts_nothing() -> None:
    error = "'eve' of berlin may not adopt agents of tokyo"
    refused = AdoptionRefused(agent="coder", peer="berlin", hive="tokyo", error=error, origin=CODER, epoch=1)
    hive = check(given=JOINED, when=told_of("eve"), then=with_envelope(refused))
    assert len(hive.swarm.owed("berlin")) == 1, "berlin is told to give it up"
    see = SeeClaims(by=LINK, peer="berlin", claims={CODER: (1, "berlin")})
    check(given=[*JOINED, refused], when=see, then=[])


def test_agent_that_had_moved_before_is_not_adopted() -> None:
    peers = PeersSet(hive="tokyo", peers={"berlin": ("mara",), "oslo": ()})
    gone = MoveSent(agent="coder", hive="oslo", object="x", digest="0" * 64, origin=CODER, epoch=1)
    refused = AdoptionRefused(
        agent="coder",
        peer="berlin",
        hive="oslo",
        error="coder went to oslo before tokyo was lost",
        origin=CODER,
        epoch=1,
    )
    check(
        given=[*MANAGED, peers, MoveBegun(agent="coder", hive="oslo"), gone],
        when=told_of(),
        then=with_envelope(refused),
    )


def test_adoption_of_an_agent_that_was_destroyed_leaves_its_namesake_alone() -> None:
    check(given=JOINED, when=told_of(origin="tokyo/99"), then=with_envelope())


@pytest.mark.parametrize("act", ["restart", "rebuild"])
def test_claimed_agent_does_not_start(act: str) -> None:
    command = BeginAct(by=by("manager"), agent="coder", act=act)  # type: ignore[arg-type]
    check(given=SEEN, when=command, then=Refused)


def test_operator_may_destroy_a_claimed_agent_and_the_peer_keeps_it() -> None:
    command = BeginAct(by=OPERATOR_BY, agent="coder", act="destroy")
    check(given=SEEN, when=command, then=[ActDecided(agent="coder", act="destroy")])
    hive = check(given=[*SEEN, Destroyed(agent="coder")], when=told_of(), then=with_envelope())
    assert not hive.swarm.moves
