"""The rules of moves: who owns the agent after each step, and what follows it."""

import msgspec
import pytest

from hive.deciders.lifecycle import BeginAct
from hive.deciders.messages import Send
from hive.deciders.moves import BeginMove, FailMove, FinishMove, SendMove
from hive.deciders.roster import Revive
from hive.deciders.swarm import Receive
from hive.errors import AlreadyDone, HiveError, NotFound, Refused
from hive.events import AnyEvent, envelopes, notices
from hive.events.agents import ActDecided, AgentAdded, Destroyed, ModelSet, Mounted, Paused, Spawned, Stopped
from hive.events.base import MessageId, ReminderId, actor
from hive.events.messages import MessageDead
from hive.events.moves import MoveArrived, MoveBegun, Moved, MoveFailed, MoveRefused, MoveSent
from hive.events.reminders import ReminderDropped, ReminderSet
from hive.events.swarm import EnvelopeReceived, PeersSet

from .check import MANAGED, OPERATOR_BY, by, check, sent, told

LINK = actor("swarm")
DIGEST = "0" * 64
JOINED = [*MANAGED, PeersSet(hive="tokyo", peers={"berlin": ()})]
BEGUN = [*JOINED, MoveBegun(agent="coder", hive="berlin")]
STOPPED = [*BEGUN, ActDecided(agent="coder", act="stop"), Stopped(agent="coder", exit="exit code 0")]
SENT = [*STOPPED, MoveSent(agent="coder", hive="berlin", object="x", digest=DIGEST)]
GONE = [*SENT, Moved(agent="coder", source="tokyo", to="berlin"), Destroyed(agent="coder")]
ARRIVING = envelopes.Move(agent="smith", object="x", digest=DIGEST, paused=True, model="m", reminders=(("look", 5),))


def received(payload: envelopes.AnyPayload) -> Receive:
    return Receive(by=LINK, peer="berlin", number=1, base=1, payload=payload)


def test_move_begins_once() -> None:
    command = BeginMove(by=OPERATOR_BY, agent="coder", hive="berlin")
    check(given=JOINED, when=command, then=[MoveBegun(agent="coder", hive="berlin")])
    check(given=BEGUN, when=command, then=AlreadyDone, says="coder is moving to berlin")


@pytest.mark.parametrize(
    ("agent", "hive", "error"),
    [("manager", "berlin", Refused), ("coder", "oslo", NotFound), ("ghost", "berlin", NotFound)],
)
def test_move_is_refused(agent: str, hive: str, error: type[HiveError]) -> None:
    check(given=JOINED, when=BeginMove(by=OPERATOR_BY, agent=agent, hive=hive), then=error)


def test_project_folders_do_not_move() -> None:
    mounted = Mounted(agent="coder", folder="site", host_path="/srv/site", read_only=False)
    command = BeginMove(by=OPERATOR_BY, agent="coder", hive="berlin")
    check(given=[*JOINED, mounted], when=command, then=Refused, says="do not move: /srv/site")
    without = BeginMove(by=OPERATOR_BY, agent="coder", hive="berlin", without_mounts=True)
    check(given=[*JOINED, mounted], when=without, then=[MoveBegun(agent="coder", hive="berlin")])


def test_moving_agent_does_not_start() -> None:
    start = BeginAct(by=OPERATOR_BY, agent="coder", act="start")
    check(given=STOPPED, when=start, then=Refused, says="moving to berlin")


def test_waiting_messages_and_reminders_follow_the_agent() -> None:
    reminder = ReminderSet(id=ReminderId(1), agent="coder", message="look", due_ms=5)
    dead = MessageDead(id=MessageId(1), to="coder", reason="coder moves to berlin; the message follows it")
    hive = check(
        given=[*STOPPED, sent(1, "coder"), reminder],
        when=SendMove(by=LINK, agent="coder", object="x", digest=DIGEST),
        then=[
            ReminderDropped(id=ReminderId(1), agent="coder"),
            msgspec.structs.replace(SENT[-1], reminders=(("look", 5),), origin="tokyo/2", epoch=1),
            dead,
            sent(2, "coder@berlin"),
        ],
    )
    assert len(hive.swarm.owed("berlin")) == 2


def test_step_that_is_repeated_changes_nothing() -> None:
    check(given=SENT, when=SendMove(by=LINK, agent="coder", object="y", digest=DIGEST), then=[])
    check(given=SENT, when=FailMove(by=LINK, agent="coder", error="no"), then=[])
    check(given=JOINED, when=FinishMove(by=LINK, agent="smith"), then=[])


def test_failed_move_keeps_the_agent() -> None:
    failed = MoveFailed(agent="coder", hive="berlin", error="no")
    hive = check(given=STOPPED, when=FailMove(by=LINK, agent="coder", error="no"), then=[failed])
    assert hive.agents.all["coder"].wanted_running


def test_refusal_of_the_target_gives_the_agent_back() -> None:
    failed = MoveFailed(agent="coder", hive="berlin", error="taken")
    told_so = received(envelopes.MoveOutcome(agent="coder", error="taken"))
    check(given=SENT, when=told_so, then=[EnvelopeReceived(peer="berlin", number=1), failed])


def test_agent_that_has_arrived_there_is_a_tombstone_here() -> None:
    then: list[AnyEvent] = [EnvelopeReceived(peer="berlin", number=1), *GONE[-2:]]
    check(given=SENT, when=received(envelopes.MoveOutcome(agent="coder")), then=then)
    check(given=GONE, when=Revive(by=OPERATOR_BY, agent="coder"), then=Refused, says="coder is in berlin now")


@pytest.mark.parametrize("given", [SENT, GONE])
def test_old_address_leads_to_the_agent(given: list[AnyEvent]) -> None:
    check(
        given=given,
        when=Send(by=by("tester"), sender="tester", to="coder", body="hello"),
        then=[sent(1, "coder@berlin", sender="tester")],
    )


def test_arriving_agent_joins_the_roster_when_its_files_are_there() -> None:
    arrived = MoveArrived(
        agent="smith", peer="berlin", object="x", digest=DIGEST, paused=True, model="m", reminders=(("look", 5),)
    )
    check(given=JOINED, when=received(ARRIVING), then=[EnvelopeReceived(peer="berlin", number=1), arrived])
    hive = check(
        given=[*JOINED, arrived],
        when=FinishMove(by=LINK, agent="smith"),
        then=[
            Moved(agent="smith", source="berlin", to="tokyo"),
            AgentAdded(agent="smith", slot=4),
            ModelSet(agent="smith", model="m"),
            Paused(agent="smith"),
            ReminderSet(id=ReminderId(1), agent="smith", message="look", due_ms=5),
            told(1, "smith", notices.Kicked(reason="move from berlin")),
        ],
    )
    assert len(hive.swarm.owed("berlin")) == 1, "berlin is told"


def test_taken_name_is_refused() -> None:
    taken = envelopes.Move(agent="tester", object="x", digest=DIGEST)
    refused = MoveRefused(agent="tester", peer="berlin", error='tokyo has an agent or a tombstone "tester"')
    check(given=JOINED, when=received(taken), then=[EnvelopeReceived(peer="berlin", number=1), refused])


def test_each_move_raises_the_epoch_and_keeps_the_origin() -> None:
    here = MoveArrived(agent="smith", peer="berlin", object="x", digest=DIGEST, origin="berlin/7", epoch=3)
    arrived: list[AnyEvent] = [
        *JOINED,
        here,
        Moved(agent="smith", source="berlin", to="tokyo"),
        AgentAdded(agent="smith", slot=4),
    ]
    away = [
        *arrived,
        Spawned(agent="smith"),
        MoveBegun(agent="smith", hive="berlin"),
    ]
    sent_on = MoveSent(agent="smith", hive="berlin", object="y", digest=DIGEST, origin="berlin/7", epoch=4)
    hive = check(given=away, when=SendMove(by=LINK, agent="smith", object="y", digest=DIGEST), then=[sent_on])
    assert hive.swarm.claims() == {"berlin/7": (4, "berlin")}
    failed = MoveFailed(agent="smith", hive="berlin", error="taken")
    back = received(envelopes.MoveOutcome(agent="smith", error="taken"))
    hive = check(given=[*away, sent_on], when=back, then=[EnvelopeReceived(peer="berlin", number=1), failed])
    assert hive.swarm.lineage("smith", 4) == ("berlin/7", 4)
    assert hive.swarm.claims() == {"berlin/7": (4, "tokyo")}


def test_agent_with_an_older_epoch_does_not_arrive() -> None:
    """As when its hive was restored from a copy of its log from before the move."""
    stale = envelopes.Move(agent="coder", object="x", digest=DIGEST, origin="tokyo/2", epoch=1)
    left = [*SENT[:-1], msgspec.structs.replace(SENT[-1], origin="tokyo/2", epoch=1), *GONE[-2:]]
    refused = MoveRefused(
        agent="coder", peer="berlin", error="coder is in berlin already, with a newer epoch than berlin has"
    )
    check(given=left, when=received(stale), then=[EnvelopeReceived(peer="berlin", number=1), refused])
