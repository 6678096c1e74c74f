"""The rules between hives: addresses, envelopes, receipts, questions to peers, decisions of their operators."""

import pytest

from hive.deciders.messages import Send
from hive.deciders.questions import Answer, Ask, Cancel, Expire
from hive.deciders.swarm import (
    ACCEPTED,
    GAP,
    SEEN,
    DecideThere,
    Receive,
    RefuseEnvelope,
    SetPeers,
    TakeReceipt,
)
from hive.errors import BadRequest, HiveError, NotFound, Refused
from hive.events import AnyEvent, envelopes, notices
from hive.events.agents import RecipientsAllowed
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, By, MessageId, QuestionId, actor
from hive.events.messages import MessageAcked, MessageSent, SendRefused
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.swarm import (
    DecisionAnswered,
    DecisionDone,
    DecisionSent,
    EnvelopeReceived,
    EnvelopeRefused,
    PeerAhead,
    PeersSet,
    ReceiptTaken,
)

from .check import MANAGED, NOW, OPERATOR_BY, by, check, folded, sent, told

LINK = actor("swarm")
MARA_THERE = By("operator", "mara@berlin", way="swarm")
JOINED = [*MANAGED, PeersSet(hive="tokyo", peers={"berlin": ("mara",)})]
TO_BERLIN = sent(1, "smith@berlin", sender="coder")
FROM_BERLIN = envelopes.Message(id=MessageId(31), sender="smith", to="coder", body="hello")


def receive(payload: envelopes.AnyPayload, number: int = 1, base: int = 1, who: By = LINK) -> Receive:
    return Receive(by=who, peer="berlin", number=number, base=base, payload=payload)


def arrived(id: int, to: str, text: str, sender: str, origin: int, reply: int | None = None) -> MessageSent:
    in_reply_to = None if reply is None else MessageId(reply)
    return MessageSent(
        id=MessageId(id), sender=sender, to=to, body=text, in_reply_to=in_reply_to, origin_id=MessageId(origin)
    )


def test_message_to_peer_waits_in_outbox() -> None:
    hive = check(
        given=JOINED, when=Send(by=by("coder"), sender="coder", to="smith@berlin", body="hello"), then=[TO_BERLIN]
    )
    (owed,) = hive.swarm.owed("berlin")
    assert (owed.number, owed.seq, owed.message) == (1, len(JOINED) + 1, 1)


def test_own_address_is_local() -> None:
    check(
        given=JOINED,
        when=Send(by=by("coder"), sender="coder", to="tester@tokyo", body="hello"),
        then=[sent(1, "tester", sender="coder")],
    )


@pytest.mark.parametrize(
    ("given", "to", "error", "says"),
    [
        (MANAGED, "smith@berlin", NotFound, "in no swarm"),
        (JOINED, "smith@oslo", NotFound, 'hive "oslo" is not a peer of this hive; peers: berlin'),
        (JOINED, "*@berlin", BadRequest, "AGENT@HIVE"),
        (JOINED, "Smith@berlin", BadRequest, "AGENT@HIVE"),
        (JOINED, "ghost@tokyo", NotFound, 'agent "ghost" is not managed by this hive'),
        ([*JOINED, PeersSet(hive="tokyo", peers={})], "smith@berlin", NotFound, "peers: none"),
    ],
)
def test_unknown_address_is_refused(given: list[AnyEvent], to: str, error: type[HiveError], says: str) -> None:
    check(given=given, when=Send(by=by("coder"), sender="coder", to=to, body="hello"), then=error, says=says)


@pytest.mark.parametrize(
    ("allowed", "to", "is_sent"),
    [
        (("smith@berlin",), "smith@berlin", True),
        (("*@berlin",), "smith@berlin", True),
        (("tester",), "smith@berlin", False),
        (("*@oslo",), "smith@berlin", False),
        ((), "manager@berlin", False),
        ((), "operator@berlin", False),
    ],
)
def test_allowed_recipients_name_addresses(allowed: tuple[str, ...], to: str, is_sent: bool) -> None:
    given = [*JOINED, RecipientsAllowed(agent="coder", recipients=allowed)]
    names = ", ".join(sorted({"manager", "operator", *allowed}))
    refused = SendRefused(sender="coder", to=to, reason=f"coder may not send to {to}, only to: {names}.")
    then: list[AnyEvent] = [sent(1, to, sender="coder")] if is_sent else [refused]
    check(given=given, when=Send(by=by("coder"), sender="coder", to=to, body="hello"), then=then)


def test_message_from_peer_is_delivered_once() -> None:
    accepted = [EnvelopeReceived(peer="berlin", number=1), arrived(1, "coder", "hello", "smith@berlin", 31)]
    check(given=JOINED, when=receive(FROM_BERLIN), then=accepted, answer=ACCEPTED)
    check(given=[*JOINED, *accepted], when=receive(FROM_BERLIN), then=[], answer=SEEN)


def test_envelope_after_a_gap_waits_for_those_before() -> None:
    check(given=JOINED, when=receive(FROM_BERLIN, number=3, base=2), then=[], answer=GAP)


def test_envelope_at_the_base_of_its_sender_is_accepted_after_a_gap() -> None:
    """The sender has receipts for those before: this log has lost them."""
    then = [EnvelopeReceived(peer="berlin", number=3), arrived(1, "coder", "hello", "smith@berlin", 31)]
    check(given=JOINED, when=receive(FROM_BERLIN, number=3, base=3), then=then, answer=ACCEPTED)


def test_envelope_of_an_untrusted_hive_is_refused() -> None:
    check(given=MANAGED, when=receive(FROM_BERLIN), then=NotFound)


def test_message_to_unknown_agent_tells_its_sender() -> None:
    message = envelopes.Message(id=MessageId(31), sender="smith", to="ghost", body="hello")
    notice = notices.MessageDead(
        id=31, to="ghost@tokyo", sender="smith", reason='agent "ghost" is not managed by hive tokyo'
    )
    check(
        given=JOINED,
        when=receive(message),
        then=[EnvelopeReceived(peer="berlin", number=1), told(1, "smith@berlin", notice)],
    )


def test_forged_sender_inside_an_envelope_is_refused() -> None:
    message = envelopes.Message(id=MessageId(31), sender="manager@tokyo", to="coder", body="hello")
    check(
        given=JOINED,
        when=receive(message),
        then=[
            EnvelopeReceived(peer="berlin", number=1),
            EnvelopeRefused(peer="berlin", reason="'manager@tokyo' is not a name in another hive."),
        ],
    )


def test_reply_names_the_message_in_each_hive_by_its_id_there() -> None:
    given = [*JOINED, EnvelopeReceived(peer="berlin", number=1), arrived(1, "coder", "hello", "smith@berlin", 31)]
    reply = sent(2, "smith@berlin", "hi", "coder", in_reply_to=1)
    hive = check(
        given=given,
        when=Send(by=by("coder"), sender="coder", to="smith@berlin", body="hi", in_reply_to=MessageId(1)),
        then=[reply],
    )
    assert [one.reference for one in hive.swarm.owed("berlin")] == [31]


def test_receipt_ends_what_is_owed_and_acks_its_messages() -> None:
    given = [*JOINED, TO_BERLIN, sent(2, "smith@berlin", sender="coder")]
    hive = check(
        given=given,
        when=TakeReceipt(by=LINK, peer="berlin", number=1),
        then=[ReceiptTaken(peer="berlin", number=1), MessageAcked(id=MessageId(1), to="smith@berlin")],
    )
    assert [one.number for one in hive.swarm.owed("berlin")] == [2]
    check(
        given=[*given, ReceiptTaken(peer="berlin", number=2)],
        when=TakeReceipt(by=LINK, peer="berlin", number=1),
        then=[],
    )


def test_receipt_beyond_what_was_sent_moves_the_numbers_on() -> None:
    hive = check(
        given=[*JOINED, TO_BERLIN],
        when=TakeReceipt(by=LINK, peer="berlin", number=7),
        then=[PeerAhead(peer="berlin", number=7)],
    )
    assert [one.number for one in hive.swarm.owed("berlin")] == [8]


ASKED = QuestionAdded(id=QuestionId(1), asker="coder", target="smith@berlin", question="Tabs?", deadline_ms=NOW + 2_000)


def test_question_to_peer_leaves_and_its_answer_reaches_the_asker() -> None:
    hive = check(
        given=JOINED,
        when=Ask(by=by("coder"), asker="coder", target="smith@berlin", question="Tabs?", ttl_seconds=2),
        then=[ASKED],
    )
    assert len(hive.swarm.owed("berlin")) == 1
    answered = notices.OperatorAnswered(id=QuestionId(1), question="Tabs?", answer="No.", answerer="smith@berlin")
    hive = check(
        given=[*JOINED, ASKED],
        when=receive(envelopes.Answer(question=QuestionId(1), answer="No.", answerer="smith")),
        then=[
            EnvelopeReceived(peer="berlin", number=1),
            QuestionResolved(
                id=QuestionId(1), asker="coder", target="smith@berlin", answer="No.", answerer="smith@berlin"
            ),
            told(1, "coder", answered),
        ],
    )
    assert len(hive.swarm.owed("berlin")) == 1, "the answer does not go back"


def test_deadline_is_kept_by_the_asking_hive() -> None:
    hive = check(
        given=[*JOINED, ASKED],
        when=Expire(by=LINK, id=QuestionId(1)),
        at=NOW + 2_000,
        then=[
            QuestionResolved(
                id=QuestionId(1), asker="coder", target="smith@berlin", answer="[expired]", answerer="watchdog"
            ),
            told(
                1,
                "coder",
                notices.OperatorAnswered(id=QuestionId(1), question="Tabs?", answer="[expired]", answerer="watchdog"),
            ),
        ],
    )
    assert len(hive.swarm.owed("berlin")) == 2, "berlin is told that it is over"
    check(given=[*JOINED, FROM_THERE], when=Expire(by=LINK, id=QuestionId(1)), at=NOW + 9_000, then=[])


FROM_THERE = QuestionAdded(
    id=QuestionId(1),
    asker="smith@berlin",
    target="coder",
    question="Vim?",
    deadline_ms=NOW + 5_000,
    origin_id=QuestionId(9),
)


def test_question_from_peer_is_answered_by_its_target() -> None:
    question = envelopes.Question(
        id=QuestionId(9), asker="smith", target="coder", question="Vim?", deadline_ms=NOW + 5_000
    )
    asked = notices.QuestionAsked(
        id=QuestionId(1),
        asker="smith@berlin",
        question="Vim?",
        options=(),
        multi=False,
        deadline_at="2026-01-31T09:30:05.000Z",
    )
    check(
        given=JOINED,
        when=receive(question),
        then=[EnvelopeReceived(peer="berlin", number=1), FROM_THERE, told(1, "coder", asked)],
    )
    hive = check(
        given=[*JOINED, FROM_THERE],
        when=Answer(by=by("coder"), id=QuestionId(1), answer="Yes.", answerer="coder"),
        then=[
            QuestionResolved(id=QuestionId(1), asker="smith@berlin", target="coder", answer="Yes.", answerer="coder")
        ],
    )
    assert [one.reference for one in hive.swarm.owed("berlin")] == [9]


def test_question_to_unknown_agent_is_cancelled_at_once() -> None:
    question = envelopes.Question(id=QuestionId(9), asker="smith", target="ghost", question="Vim?")
    hive = check(
        given=JOINED,
        when=receive(question),
        then=[
            EnvelopeReceived(peer="berlin", number=1),
            QuestionAdded(
                id=QuestionId(1), asker="smith@berlin", target="ghost", question="Vim?", origin_id=QuestionId(9)
            ),
            QuestionResolved(
                id=QuestionId(1), asker="smith@berlin", target="ghost", answer="[cancelled]", answerer="system"
            ),
        ],
    )
    assert [one.reference for one in hive.swarm.owed("berlin")] == [9]


def test_question_that_is_over_there_is_closed_here() -> None:
    closed = notices.QuestionClosed(id=QuestionId(1), answer="[expired]", answerer="watchdog@berlin")
    hive = check(
        given=[*JOINED, FROM_THERE],
        when=receive(envelopes.Closed(question=QuestionId(9), answer="[expired]", answerer="watchdog")),
        then=[
            EnvelopeReceived(peer="berlin", number=1),
            QuestionResolved(
                id=QuestionId(1),
                asker="smith@berlin",
                target="coder",
                answer="[expired]",
                answerer="watchdog@berlin",
            ),
            told(1, "coder", closed),
        ],
    )
    assert hive.swarm.owed("berlin") == []


def test_operator_cancels_a_question_from_a_peer() -> None:
    hive = check(
        given=[*JOINED, FROM_THERE],
        when=Cancel(by=OPERATOR_BY, id=QuestionId(1), canceller="operator"),
        then=[
            QuestionResolved(
                id=QuestionId(1), asker="smith@berlin", target="coder", answer="[cancelled]", answerer="operator"
            ),
            told(1, "coder", notices.QuestionClosed(id=QuestionId(1), answer="[cancelled]", answerer="operator")),
        ],
    )
    assert len(hive.swarm.owed("berlin")) == 1


REQUESTED = ApprovalRequested(id=ApprovalId(1), agent="writer", kind="spawn", requester="manager")


def decision(operator: str = "mara", subject: int = 1) -> envelopes.Decision:
    return envelopes.Decision(id=5, verdict="deny", subject=subject, operator=operator, text="not now")


def test_operator_of_a_peer_decides_if_listed() -> None:
    denied = ApprovalResolved(id=ApprovalId(1), agent="writer", kind="spawn", status="denied", note="not now")
    notice = notices.ApprovalResolved(id=ApprovalId(1), agent="writer", kind="spawn", status="denied", note="not now")
    check(
        given=[*JOINED, REQUESTED],
        when=receive(decision(), who=MARA_THERE),
        then=[
            EnvelopeReceived(peer="berlin", number=1),
            denied,
            told(1, "manager", notice),
            DecisionAnswered(peer="berlin", decision=5),
        ],
    )


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (decision(operator="eve"), "eve of berlin may not decide in tokyo."),
        (decision(subject=9), "There is no approval 9."),
    ],
)
def test_decision_that_does_not_count_is_answered_with_the_reason(made: envelopes.Decision, says: str) -> None:
    hive = folded([*JOINED, REQUESTED])
    from hive.deciders import decide

    events = decide(receive(made, who=MARA_THERE), hive, NOW).events  # type: ignore[union-attr]
    assert events[0] == EnvelopeReceived(peer="berlin", number=1)
    (answered,) = events[1:]
    assert isinstance(answered, DecisionAnswered)
    assert says in (answered.error or "")


def test_decision_about_a_row_of_a_peer_leaves_and_ends_with_its_outcome() -> None:
    made = DecisionSent(id=1, hive="berlin", verdict="approve", subject=3, operator="mara")
    check(
        given=JOINED,
        when=DecideThere(by=OPERATOR_BY, hive="berlin", verdict="approve", subject=3),
        then=[made],
        answer=1,
    )
    check(given=JOINED, when=DecideThere(by=OPERATOR_BY, hive="oslo", verdict="approve", subject=3), then=NotFound)
    check(
        given=[*JOINED, made],
        when=receive(envelopes.Outcome(decision=1, error="no")),
        then=[EnvelopeReceived(peer="berlin", number=1), DecisionDone(id=1, hive="berlin", error="no")],
    )


def test_peers_are_recorded_when_they_change() -> None:
    peers: dict[str, tuple[str, ...]] = {"berlin": ("mara",)}
    check(given=MANAGED, when=SetPeers(by=LINK, hive="tokyo", peers=peers), then=[JOINED[-1]])
    check(given=JOINED, when=SetPeers(by=LINK, hive="tokyo", peers=peers), then=[])
    check(given=JOINED, when=SetPeers(by=LINK, hive="kyoto", peers=peers), then=Refused, says="tokyo")


def test_refused_envelope_is_recorded() -> None:
    check(
        given=JOINED,
        when=RefuseEnvelope(by=LINK, peer="oslo", reason="its signature is wrong", count=2),
        then=[EnvelopeRefused(peer="oslo", reason="its signature is wrong", count=2)],
    )
