"""The rules of adoption: the adopter gets the agent, and the lost hive gives it up when it is back."""

from hive.deciders.adoption import Adopt, EndAdopted
from hive.deciders.swarm import Receive
from hive.errors import AlreadyDone
from hive.events import envelopes, notices
from hive.events.agents import AgentAdded, Destroyed, Paused
from hive.events.base import MessageId, actor
from hive.events.messages import MessageDead
from hive.events.moves import Adopted, Moved
from hive.events.swarm import EnvelopeReceived, EnvelopeRefused, PeersSet

from .check import MANAGED, OPERATOR_BY, check, sent, told

LINK = actor("swarm")
UNTIL = "2026-01-31T09:29:59.000Z"
JOINED = [*MANAGED, PeersSet(hive="tokyo", peers={"berlin": ("mara",)})]
TAKEN = Adopted(agent="coder", source="tokyo", to="berlin", operator="mara", until=UNTIL)


def received(operator: str) -> Receive:
    told_so = envelopes.Adopted(agent="coder", operator=operator, until=UNTIL)
    return Receive(by=LINK, peer="berlin", number=1, base=1, payload=told_so)


def test_adopted_agent_joins_the_roster_with_its_messages() -> None:
    messages = (("alice", "one"), ("tester@tokyo", "two"))
    command = Adopt(by=OPERATOR_BY, agent="smith", source="berlin", until=UNTIL, paused=True, messages=messages)
    adopted = Adopted(agent="smith", source="berlin", to="tokyo", operator="mara", until=UNTIL)
    hive = check(
        given=JOINED,
        when=command,
        then=[
            adopted,
            AgentAdded(agent="smith", slot=4),
            Paused(agent="smith"),
            sent(1, "smith", "one", "alice@berlin"),
            sent(2, "smith", "two", "tester"),
            told(3, "smith", notices.Kicked(reason="adoption from berlin")),
        ],
    )
    assert len(hive.swarm.owed("berlin")) == 1, "berlin hears of it when it is back"
    check(given=[*JOINED, adopted, AgentAdded(agent="smith", slot=4)], when=command, then=AlreadyDone)


def test_lost_hive_gives_the_agent_up_and_sends_on_what_is_newer() -> None:
    dead = MessageDead(id=MessageId(1), to="coder", reason="berlin has adopted coder")
    hive = check(
        given=[*JOINED, sent(1, "coder")],
        when=received("mara"),
        then=[EnvelopeReceived(peer="berlin", number=1), TAKEN, dead, sent(2, "coder@berlin")],
    )
    assert not hive.agents.all["coder"].wanted_running
    gone = [Moved(agent="coder", source="tokyo", to="berlin"), Destroyed(agent="coder")]
    check(given=[*JOINED, TAKEN], when=EndAdopted(by=LINK, agent="coder"), then=gone)
    check(given=JOINED, when=EndAdopted(by=LINK, agent="coder"), then=[])


def test_operator_who_may_not_decide_here_adopts_nothing() -> None:
    refused = EnvelopeRefused(peer="berlin", reason="'eve' of berlin may not adopt agents of tokyo")
    check(given=JOINED, when=received("eve"), then=[EnvelopeReceived(peer="berlin", number=1), refused])
