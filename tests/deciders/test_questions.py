"""Rules for questions."""

import math

import pytest

from hive.clock import rfc3339
from hive.deciders import messages, questions
from hive.deciders.questions import CANCELLED, EXPIRED, OPEN_MAX, OPTIONS_MAX, TTL_MAX_S, Answer, Ask, Cancel, Expire
from hive.errors import AlreadyDone, BadRequest, LimitReached, NotFound, NotYours
from hive.events import AnyEvent
from hive.events.agents import Destroyed, RecipientsAllowed
from hive.events.base import QuestionId
from hive.events.messages import SendRefused
from hive.events.notices import OperatorAnswered, QuestionAsked, QuestionClosed
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.projections.questions import RESOLVED_KEPT

from .check import DAEMON_BY, MANAGED, NOW, OPERATOR_BY, by, check, sent, told

ONE = QuestionId(1)
ADDED = QuestionAdded(id=ONE, asker="coder", target=None, question="Tabs?", options=("yes", "no"))
TO_PEER = QuestionAdded(id=ONE, asker="coder", target="tester", question="Tabs?")
DEADLINE = NOW + 2_000
WITH_TTL = QuestionAdded(id=ONE, asker="coder", target="tester", question="Tabs?", deadline_ms=DEADLINE)


def resolved(answer: str, answerer: str, target: str | None = None) -> QuestionResolved:
    return QuestionResolved(id=ONE, asker="coder", target=target, answer=answer, answerer=answerer)


def answered(answer: str, answerer: str) -> OperatorAnswered:
    return OperatorAnswered(id=ONE, question="Tabs?", answer=answer, answerer=answerer)


def ask(**fields: object) -> Ask:
    return Ask(**{"by": by("coder"), "asker": "coder", "question": "Tabs?", **fields})  # type: ignore[arg-type]


def answer(text: str = "yes", answerer: str = "operator") -> Answer:
    who = OPERATOR_BY if answerer == "operator" else by(answerer)
    return Answer(by=who, id=ONE, answer=text, answerer=answerer)


def test_ask_operator_opens_question() -> None:
    check(given=MANAGED, when=ask(options=("yes", "no")), then=[ADDED])


def test_asked_peer_is_told_in_same_commit() -> None:
    notice = QuestionAsked(
        id=ONE, asker="coder", question="Tabs?", options=("a", "b"), multi=True, deadline_at=rfc3339(NOW + 1_500)
    )
    added = QuestionAdded(
        id=ONE,
        asker="coder",
        target="tester",
        question="Tabs?",
        options=("a", "b"),
        multi=True,
        deadline_ms=NOW + 1_500,
    )
    when = ask(target="tester", options=("a", "b"), multi=True, ttl_seconds=1.5)
    check(given=MANAGED, when=when, then=[added, told(1, "tester", notice)])


def test_question_without_ttl_has_no_deadline() -> None:
    check(given=[*MANAGED, ADDED], when=Expire(by=DAEMON_BY, id=ONE), then=[], at=NOW + 10**12)


def test_question_ids_continue_after_last() -> None:
    later = QuestionAdded(id=QuestionId(2), asker="coder", target=None, question="Tabs?")
    check(given=[*MANAGED, ADDED, resolved("yes", "operator")], when=ask(), then=[later])


@pytest.mark.parametrize(
    "fields",
    [
        {"question": " "},
        {"question": "x" * 20_000},
        {"target": "coder"},
        {"options": ("a", "a")},
        {"options": ("a", " ")},
        {"options": ("a" * 501,)},
        {"options": tuple(map(str, range(OPTIONS_MAX + 1)))},
        {"ttl_seconds": 0},
        {"ttl_seconds": -1},
        {"ttl_seconds": TTL_MAX_S + 1},
        {"ttl_seconds": math.nan},
        {"ttl_seconds": math.inf},
    ],
    ids=str,
)
def test_malformed_question_is_refused(fields: dict[str, object]) -> None:
    check(given=MANAGED, when=ask(**fields), then=BadRequest)


@pytest.mark.parametrize("target", ["nobody", "gone", "operator"])
def test_question_to_unknown_agent_is_refused(target: str) -> None:
    check(given=MANAGED, when=ask(target=target), then=NotFound)


def test_ask_with_operator_as_peer_is_refused_with_hint() -> None:
    check(given=MANAGED, when=ask(target="operator"), then=NotFound, says="ask_operator")


def test_question_to_disallowed_peer_is_refused() -> None:
    allowed = RecipientsAllowed(agent="coder", recipients=())
    reason = "coder may not send to tester, only to: manager, operator."
    refusal = SendRefused(sender="coder", to="tester", reason=reason)
    check(given=[*MANAGED, allowed], when=ask(target="tester"), then=[refusal])


def test_open_questions_are_bounded() -> None:
    assert OPEN_MAX >= 1_000
    many: list[AnyEvent] = [
        QuestionAdded(id=QuestionId(number), asker="coder", target=None, question="?") for number in range(1, OPEN_MAX)
    ]
    last = QuestionAdded(id=QuestionId(OPEN_MAX), asker="coder", target=None, question="Tabs?")
    check(given=[*MANAGED, *many], when=ask(), then=[last])
    check(given=[*MANAGED, *many, last], when=ask(), then=LimitReached, says=f"{OPEN_MAX} open questions")
    after = QuestionAdded(id=QuestionId(OPEN_MAX + 1), asker="coder", target=None, question="Tabs?")
    check(given=[*MANAGED, *many, last, resolved("yes", "operator")], when=ask(), then=[after])


def test_open_questions_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "OPEN_MAX_BYTES", 1)
    open_one = QuestionAdded(id=QuestionId(1), asker="coder", target=None, question="?")
    check(given=[*MANAGED, open_one], when=ask(), then=LimitReached, says="too long together")
    after = QuestionAdded(id=QuestionId(2), asker="coder", target=None, question="Tabs?")
    check(given=[*MANAGED, open_one, resolved("yes", "operator")], when=ask(), then=[after])


def test_question_to_a_peer_with_a_full_inbox_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WAITING_MAX", 1)
    check(given=[*MANAGED, sent(1, "tester")], when=ask(target="tester"), then=LimitReached, says="messages waiting")


def test_answer_reaches_asker_in_same_commit() -> None:
    then = [resolved("yes", "operator"), told(1, "coder", answered("yes", "operator"))]
    check(given=[*MANAGED, ADDED], when=answer(), then=then)


def test_answer_may_differ_from_options() -> None:
    then = [resolved("yes, x", "operator"), told(1, "coder", answered("yes, x", "operator"))]
    check(given=[*MANAGED, ADDED], when=answer("yes, x"), then=then)


def test_target_answers_its_question() -> None:
    then = [resolved("yes", "tester", "tester"), told(1, "coder", answered("yes", "tester"))]
    check(given=[*MANAGED, TO_PEER], when=answer(answerer="tester"), then=then)


def test_operator_overrides_peer_question_and_peer_is_told() -> None:
    then = [
        resolved("no", "operator", "tester"),
        told(1, "coder", answered("no", "operator")),
        told(2, "tester", QuestionClosed(id=ONE, answer="no", answerer="operator")),
    ]
    check(given=[*MANAGED, TO_PEER], when=answer("no"), then=then)


@pytest.mark.parametrize("question", [ADDED, TO_PEER], ids=["to the operator", "to a peer"])
@pytest.mark.parametrize("stranger", ["manager", "coder"])
def test_answer_by_third_agent_is_refused(question: QuestionAdded, stranger: str) -> None:
    check(given=[*MANAGED, question], when=answer(answerer=stranger), then=NotYours)


def test_empty_answer_is_refused() -> None:
    check(given=[*MANAGED, ADDED], when=answer(" "), then=BadRequest)


@pytest.mark.parametrize("when", [answer(), Cancel(by=OPERATOR_BY, id=ONE, canceller="operator")], ids=str)
def test_second_answer_is_refused(when: Answer | Cancel) -> None:
    given = [*MANAGED, ADDED, resolved("no", "operator")]
    check(given=given, when=when, then=AlreadyDone, says="operator answered 'no'")


@pytest.mark.parametrize("id", [0, -1, 2, 2**63 - 1, -(2**63)])
def test_unknown_question_is_not_found(id: int) -> None:
    check(
        given=[*MANAGED, ADDED],
        when=Answer(by=OPERATOR_BY, id=QuestionId(id), answer="x", answerer="operator"),
        then=NotFound,
    )
    check(given=[*MANAGED, ADDED], when=Expire(by=DAEMON_BY, id=QuestionId(id)), then=[])


def test_question_dropped_from_history_is_still_resolved() -> None:
    given: list[AnyEvent] = [*MANAGED, ADDED, resolved("no", "operator")]
    for number in range(2, RESOLVED_KEPT + 3):
        id = QuestionId(number)
        given.append(QuestionAdded(id=id, asker="coder", target=None, question="?"))
        given.append(QuestionResolved(id=id, asker="coder", target=None, answer="a", answerer="operator"))
    hive = check(given=given, when=answer(), then=AlreadyDone)
    assert len(hive.questions.resolved()) == RESOLVED_KEPT


@pytest.mark.parametrize("canceller", ["operator", "coder"])
def test_asker_or_operator_cancels_and_both_sides_are_told(canceller: str) -> None:
    then = [
        resolved(CANCELLED, canceller, "tester"),
        told(1, "coder", answered(CANCELLED, canceller)),
        told(2, "tester", QuestionClosed(id=ONE, answer=CANCELLED, answerer=canceller)),
    ]
    check(given=[*MANAGED, TO_PEER], when=Cancel(by=by(canceller), id=ONE, canceller=canceller), then=then)


@pytest.mark.parametrize("canceller", ["tester", "manager"])
def test_cancel_by_third_agent_is_refused(canceller: str) -> None:
    check(given=[*MANAGED, TO_PEER], when=Cancel(by=by(canceller), id=ONE, canceller=canceller), then=NotYours)


def test_expired_question_answers_asker() -> None:
    then = [
        resolved(EXPIRED, "watchdog", "tester"),
        told(1, "coder", answered(EXPIRED, "watchdog")),
        told(2, "tester", QuestionClosed(id=ONE, answer=EXPIRED, answerer="watchdog")),
    ]
    check(given=[*MANAGED, WITH_TTL], when=Expire(by=DAEMON_BY, id=ONE), then=then, at=DEADLINE)


def test_question_does_not_expire_before_deadline() -> None:
    check(given=[*MANAGED, WITH_TTL], when=Expire(by=DAEMON_BY, id=ONE), then=[], at=DEADLINE - 1)


def test_expire_of_answered_question_is_a_no_op() -> None:
    given = [*MANAGED, WITH_TTL, resolved("yes", "operator", "tester")]
    check(given=given, when=Expire(by=DAEMON_BY, id=ONE), then=[], at=DEADLINE)


def test_answer_to_expired_question_is_refused() -> None:
    given = [*MANAGED, WITH_TTL, resolved(EXPIRED, "watchdog", "tester")]
    check(given=given, when=answer(), then=AlreadyDone, says="watchdog answered '[expired]'")


def test_question_of_destroyed_agent_is_refused() -> None:
    check(given=[*MANAGED, Destroyed(agent="coder")], when=ask(), then=NotFound)
