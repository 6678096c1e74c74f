"""Rules for questions: ask, answer, cancel, expire. Each has one resolution; the same commit tells the asker."""

from hive.clock import MS_PER_S, TimeMs, rfc3339
from hive.deciders.base import (
    Answered,
    Command,
    Decision,
    DecisionBuilder,
    checked_label,
    checked_text,
    living,
    local,
)
from hive.deciders.messages import check_recipient, not_allowed, refuse_full
from hive.errors import AlreadyDone, BadRequest, LimitReached, NotFound, NotYours, Refused
from hive.events import notices
from hive.events.base import QuestionId
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.names import OPERATOR, AgentName, address, is_remote
from hive.projections.hive import Hive
from hive.projections.questions import Question

OPEN_MAX = 1_000
"""Maximum number of open questions per agent."""
OPEN_MAX_BYTES = 8 * 1024 * 1024
"""Of one agent's open questions in memory; an option of one letter takes a KiB."""
OPTIONS_MAX = 50
TTL_MAX_S = 366 * 24 * 3_600
"""A year and a day."""
EXPIRED = "[expired]"
CANCELLED = "[cancelled]"
WATCHDOG = "watchdog"


class Ask(Command, frozen=True, kw_only=True):
    """Ask the operator (`target` None) or a peer."""

    asker: AgentName
    target: AgentName | None = None
    question: str
    options: tuple[str, ...] = ()
    multi: bool = False
    ttl_seconds: float | None = None


class Answer(Command, frozen=True, kw_only=True):
    """`answerer` is `operator` or an agent."""

    id: QuestionId
    answer: str
    answerer: str


class Cancel(Command, frozen=True, kw_only=True):
    """By the operator, or by the asker of the question."""

    id: QuestionId
    canceller: str


class Expire(Command, frozen=True, kw_only=True):
    """The deadline of a question has passed. A no-op if it was answered meanwhile."""

    id: QuestionId


def ask(command: Ask, hive: Hive, now: TimeMs) -> Decision:
    """Open a question; the same commit tells a peer.

    Raises:
        BadRequest: a question to oneself, bad options or ttl. NotFound: no such peer. LimitReached.
    """
    checked_text(command.question, "question")
    living(hive, command.asker)
    check_options(command.options)
    _check_ttl(command.ttl_seconds)
    target = None if command.target is None else local(hive, command.target)
    if target is not None:
        if address(target).name == OPERATOR:
            raise NotFound("The operator is not a peer; use ask_operator.")
        check_recipient(hive, target)
        if target == command.asker:
            raise BadRequest("An agent cannot ask itself; ask a peer or the operator.")
        if (refusal := not_allowed(hive, command.asker, target)) is not None:
            return Answered([refusal], Refused(refusal.reason))
        refuse_full(hive, target)
    if hive.questions.pending_of(command.asker) >= OPEN_MAX:
        raise LimitReached(f"{command.asker} has {OPEN_MAX} open questions; cancel some or wait for answers.")
    if hive.questions.bytes_of(command.asker) >= OPEN_MAX_BYTES:
        raise LimitReached(f"{command.asker}'s open questions are too long together; cancel some or wait for answers.")
    deadline = None if command.ttl_seconds is None else now + round(command.ttl_seconds * MS_PER_S)
    decision = DecisionBuilder(hive, now)
    added = QuestionAdded(
        id=hive.ids.next_question(),
        asker=command.asker,
        target=target,
        question=command.question,
        options=command.options,
        multi=command.multi,
        deadline_ms=deadline,
    )
    put(decision, added)
    return decision.events


def put(decision: DecisionBuilder, added: QuestionAdded) -> None:
    """Open a question and tell its target, if that is an agent of this hive."""
    decision.add(added)
    if added.target is not None and not is_remote(added.target):
        decision.tell(
            added.target,
            notices.QuestionAsked(
                id=added.id,
                asker=added.asker,
                question=added.question,
                options=added.options,
                multi=added.multi,
                deadline_at=None if added.deadline_ms is None else rfc3339(added.deadline_ms),
            ),
        )


def answer(command: Answer, hive: Hive, now: TimeMs) -> Decision:
    """Resolve a question.

    Raises:
        NotFound, AlreadyDone; NotYours: only the target or the operator may answer.
    """
    checked_text(command.answer, "answer")
    question = _pending(hive, command.id)
    if command.answerer not in (OPERATOR, question.target):
        raise NotYours(f"Question {command.id} is for {question.target or 'the operator'}.")
    decision = DecisionBuilder(hive, now)
    resolve(decision, question, command.answer, command.answerer)
    return decision.events


def cancel(command: Cancel, hive: Hive, now: TimeMs) -> Decision:
    """Cancel a question.

    Raises:
        NotFound, AlreadyDone; NotYours: only the asker or the operator may cancel.
    """
    question = _pending(hive, command.id)
    if command.canceller not in (OPERATOR, question.asker):
        raise NotYours(f"Question {command.id} was asked by {question.asker}; only it or the operator may cancel it.")
    decision = DecisionBuilder(hive, now)
    resolve(decision, question, CANCELLED, command.canceller)
    return decision.events


def expire(command: Expire, hive: Hive, now: TimeMs) -> Decision:
    """Answer `[expired]` at the deadline."""
    question = hive.questions.all.get(command.id)
    due = question is not None and question.answer is None and question.deadline_ms is not None
    if question is None or not due or (question.deadline_ms or 0) > now or is_remote(question.asker):
        return []
    decision = DecisionBuilder(hive, now)
    resolve(decision, question, EXPIRED, WATCHDOG)
    return decision.events


def resolve(decision: DecisionBuilder, question: Question, answer: str, answerer: str) -> None:
    """Resolve a question; tell the asker, and the target if it did not answer."""
    decision.add(
        QuestionResolved(id=question.id, asker=question.asker, target=question.target, answer=answer, answerer=answerer)
    )
    if not is_remote(question.asker):  # The outbox tells its hive.
        decision.tell(
            question.asker,
            notices.OperatorAnswered(id=question.id, question=question.question, answer=answer, answerer=answerer),
        )
    if question.target not in (None, answerer) and not is_remote(question.target):
        decision.tell(question.target, notices.QuestionClosed(id=question.id, answer=answer, answerer=answerer))


def _pending(hive: Hive, id: QuestionId) -> Question:
    question = hive.questions.all.get(id)
    if question is not None and question.answer is None:
        return question
    if not hive.ids.given("question", id):
        raise NotFound(f"There is no question {id}.")
    how = f": {question.answerer} answered {question.answer!r}" if question is not None else ""
    raise AlreadyDone(f"Question {id} is already resolved{how}.")


def check_options(options: tuple[str, ...]) -> None:
    """Raises BadRequest."""
    if len(options) > OPTIONS_MAX:
        raise BadRequest(f"A question has at most {OPTIONS_MAX} options.")
    for option in options:
        checked_label(option, "option")
        checked_text(option, "option")
    if len(set(options)) != len(options):
        raise BadRequest("Two options are the same.")


def _check_ttl(ttl_seconds: float | None) -> None:
    if ttl_seconds is not None and not 0 < ttl_seconds <= TTL_MAX_S:
        raise BadRequest(f"ttl_seconds is over 0 and at most {TTL_MAX_S}; leave it out to wait for ever.")
