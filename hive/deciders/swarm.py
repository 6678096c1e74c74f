"""The rules between hives: accept each envelope once and in order, and owe it until its receipt."""

from typing import Final, Literal

from hive.clock import TimeMs
from hive.deciders import adoption, approvals, moves, questions
from hive.deciders.base import (
    TEXT_MAX_BYTES,
    Answered,
    Command,
    Decision,
    DecisionBuilder,
    checked_label,
    checked_text,
    local,
)
from hive.deciders.messages import refuse_full
from hive.errors import HiveError, NotFound, Refused
from hive.events import AnyEvent, envelopes, notices
from hive.events.base import ApprovalId, QuestionId
from hive.events.envelopes import AnyPayload, Verdict
from hive.events.messages import MessageAcked
from hive.events.moves import MoveFailed
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
from hive.names import OPERATOR, SYSTEM, is_agent_name, is_hive_name
from hive.projections.hive import Hive

ACCEPTED: Final = "accepted"
SEEN: Final = "seen"
GAP: Final = "gap"
NO_PEER: Final = "it is no longer a peer of this hive"
Reception = Literal["accepted", "seen", "gap"]
"""What became of an envelope: decided now; decided before; to be sent again after those that are missing."""


class SetPeers(Command, frozen=True, kw_only=True):
    """What `hive.toml` says of the swarm."""

    hive: str
    peers: dict[str, tuple[str, ...]]


class Receive(Command, frozen=True, kw_only=True):
    """An envelope of a peer, whose signature was checked. The answer is a `Reception`."""

    peer: str
    number: int
    base: int
    """The lowest number that the peer still owes: it has receipts for those before."""
    payload: AnyPayload
    refusal: str | None = None
    """Of a decision: why it cannot be carried out here."""


class RefuseEnvelope(Command, frozen=True, kw_only=True):
    """What came was not an envelope of the hive that it names."""

    peer: str
    reason: str
    count: int = 1


class TakeReceipt(Command, frozen=True, kw_only=True):
    """A peer says how far it has committed."""

    peer: str
    number: int


class DecideThere(Command, frozen=True, kw_only=True):
    """An operator here decides about a row of another hive. The answer is the decision's id."""

    hive: str
    verdict: Verdict
    subject: int
    text: str | None = None
    sha: str | None = None


def set_peers(command: SetPeers, hive: Hive, _: TimeMs) -> Decision:
    """Record a change of the settings.

    Raises:
        Refused: the hive had another name; its peers count its envelopes under that one.
    """
    if hive.swarm.name not in (None, command.hive):
        raise Refused(f"This hive is {hive.swarm.name} to its peers; set swarm.name back in hive.toml.")
    known = {row.hive: row.operators for row in hive.swarm.peers if row.trusted}
    if hive.swarm.name == command.hive and known == command.peers:
        return []
    gone = [move for move in hive.swarm.moves if move.claimed and not move.adopted and move.hive not in command.peers]
    return [
        PeersSet(hive=command.hive, peers=command.peers),
        *(MoveFailed(agent=one.agent, hive=one.hive, error=NO_PEER, wanted=one.wanted) for one in gone),
    ]


def receive(command: Receive, hive: Hive, now: TimeMs) -> Decision:
    """Accept an envelope once, in its order, with all that follows from it."""
    row = hive.swarm.peer(command.peer)
    if not row.trusted:
        raise NotFound(f'hive "{command.peer}" is not a peer of this hive')
    if command.number <= row.received:
        return Answered([], SEEN)
    if command.number not in (row.received + 1, command.base):
        return Answered([], GAP)
    decision = DecisionBuilder(hive, now)
    decision.add(EnvelopeReceived(peer=command.peer, number=command.number))
    try:
        _follow(decision, command)
    except HiveError as refusal:
        del decision.events[1:]
        decision.add(EnvelopeRefused(peer=command.peer, reason=str(refusal)))
    return Answered(decision.events, ACCEPTED)


def refuse_envelope(command: RefuseEnvelope, _hive: Hive, _: TimeMs) -> Decision:
    """Record it."""
    return [EnvelopeRefused(peer=command.peer, reason=command.reason, count=command.count)]


def take_receipt(command: TakeReceipt, hive: Hive, now: TimeMs) -> Decision:
    """End what is owed up to a number. An old receipt is a no-op."""
    row = hive.swarm.peer(command.peer)
    if not row.trusted or command.number <= row.receipted:
        return []
    if command.number > row.sent:
        return [PeerAhead(peer=command.peer, number=command.number)]
    decision = DecisionBuilder(hive, now)
    decision.add(ReceiptTaken(peer=command.peer, number=command.number))
    for one in hive.swarm.owed(command.peer, command.number - row.receipted):
        message = None if one.message is None else hive.messages.open.get(one.message)
        if message is not None:
            decision.add(MessageAcked(id=message.id, to=message.to))
    return decision.events


def decide_there(command: DecideThere, hive: Hive, _: TimeMs) -> Decision:
    """Send a decision to the hive that owns the row.

    Raises:
        NotFound: no such peer. BadRequest: the text is too long.
    """
    if not hive.swarm.peer(command.hive).trusted:
        raise NotFound(f'hive "{command.hive}" is not a peer of this hive')
    if command.text is not None:
        checked_text(command.text, "text")
    if command.sha is not None:
        checked_label(command.sha, "sha")
    sent = DecisionSent(
        id=hive.ids.next_decision(),
        hive=command.hive,
        verdict=command.verdict,
        subject=command.subject,
        operator=command.by.name,
        text=command.text,
        sha=command.sha,
    )
    return Answered([sent], sent.id)


def _follow(decision: DecisionBuilder, command: Receive) -> None:
    """What an envelope means here. Raises HiveError: nothing; it is recorded and the next one is accepted."""
    peer = command.peer
    match command.payload:
        case envelopes.Message() as message:
            _message(decision, peer, message)
        case envelopes.Question() as question:
            _question(decision, peer, question)
        case envelopes.Answer(question=id, answer=text, answerer=answerer):
            row = decision.hive.questions.all.get(id)
            if row is not None and row.answer is None and (row.target or "").endswith(f"@{peer}"):
                questions.resolve(decision, row, _bounded(text), _there(answerer, peer))
        case envelopes.Closed(question=origin, answer=text, answerer=answerer):
            asked = decision.hive.swarm.asked.get((peer, origin))
            row = None if asked is None else decision.hive.questions.all.get(asked.id)
            if row is not None and row.answer is None:
                questions.resolve(decision, row, _bounded(text), _there(answerer, peer))
        case envelopes.Decision() as verdict:
            _decision(decision, command, verdict)
        case envelopes.Move() as move:
            moves.arrive(decision, peer, move)
        case envelopes.Adopted() as adopted:
            adoption.give_up(decision, peer, adopted)
        case envelopes.MoveOutcome() as told:
            moves.outcome(decision, peer, told)
        case envelopes.Unclaimed(agents=agents):
            adoption.go_on(decision, peer, agents)
        case envelopes.AdoptionRefused() as refusal:
            adoption.hand_over(decision, peer, refusal)
        case envelopes.Outcome(decision=id, error=error):
            known = decision.hive.swarm.decisions.get(id)
            if known is not None and known.hive == peer:
                decision.add(DecisionDone(id=id, hive=peer, error=None if error is None else _bounded(error)))


def _message(decision: DecisionBuilder, peer: str, message: envelopes.Message) -> None:
    hive, sender = decision.hive, _there(message.sender, peer)
    checked_text(message.body, "message", TEXT_MAX_BYTES)
    reply = message.in_reply_to
    if reply is not None and not hive.messages.given(reply):
        reply = None
    try:
        if message.to != OPERATOR:
            _check_here(hive, message.to)
            refuse_full(hive, message.to)
    except Refused as refusal:
        if message.sender != SYSTEM:
            to = f"{message.to}@{hive.swarm.name}"
            decision.tell(sender, notices.MessageDead(id=message.id, to=to, sender=message.sender, reason=str(refusal)))
        return
    decision.send(sender, message.to, message.body, reply, message.id)


def _question(decision: DecisionBuilder, peer: str, question: envelopes.Question) -> None:
    hive, asker = decision.hive, _there(question.asker, peer)
    checked_text(question.question, "question")
    questions.check_options(question.options)
    added = QuestionAdded(
        id=hive.ids.next_question(),
        asker=asker,
        target=question.target,
        question=question.question,
        options=question.options,
        multi=question.multi,
        deadline_ms=question.deadline_ms,
        origin_id=question.id,
    )
    full = hive.questions.pending_of(asker) >= questions.OPEN_MAX
    if _is_here(hive, question.target) and not full:
        questions.put(decision, added)
        return
    decision.add(added)
    decision.add(
        QuestionResolved(id=added.id, asker=asker, target=added.target, answer=questions.CANCELLED, answerer=SYSTEM)
    )


def _decision(decision: DecisionBuilder, command: Receive, verdict: envelopes.Decision) -> None:
    error = None
    try:
        for event in _decided(decision.hive, command, verdict, decision.now):
            decision.add(event)
    except HiveError as refusal:
        error = str(refusal)
    decision.add(DecisionAnswered(peer=command.peer, decision=verdict.id, error=error))


def _decided(hive: Hive, command: Receive, verdict: envelopes.Decision, now: TimeMs) -> list[AnyEvent]:
    """Raises HiveError: the operator may not decide here, or the row cannot be decided so."""
    by, peer = command.by, hive.swarm.peer(command.peer)
    if command.refusal is not None:
        raise Refused(command.refusal)
    if verdict.operator not in peer.operators:
        raise Refused(
            f"{checked_label(verdict.operator, 'operator')} of {peer.hive} may not decide in {hive.swarm.name}."
            f" Allow it there with: hive swarm trust {peer.hive} KEY --operators {verdict.operator}"
        )
    text = verdict.text
    match verdict.verdict:
        case "approve":
            made = approvals.approve(
                approvals.Approve(by=by, id=ApprovalId(verdict.subject), sha=verdict.sha), hive, now
            )
        case "deny":
            made = approvals.deny(approvals.Deny(by=by, id=ApprovalId(verdict.subject), note=text), hive, now)
        case "answer":
            answer = questions.Answer(by=by, id=QuestionId(verdict.subject), answer=text or "", answerer=OPERATOR)
            made = questions.answer(answer, hive, now)
        case "cancel":
            cancel = questions.Cancel(by=by, id=QuestionId(verdict.subject), canceller=OPERATOR)
            made = questions.cancel(cancel, hive, now)
    return made.events if isinstance(made, Answered) else made


def _is_here(hive: Hive, name: str) -> bool:
    """Whether an agent lives in this hive and has not been sent to another."""
    move = hive.swarm.moves.get(name)
    return hive.agents.living_one(name) is not None and not (move is not None and move.sent)


def _check_here(hive: Hive, name: str) -> None:
    """Raises NotFound: neither on the roster nor arriving."""
    if not _is_here(hive, name) and name not in hive.swarm.arrivals:
        now = local(hive, name)
        where = f"; it is {now} now" if now != name else ""
        raise NotFound(f'agent "{name}" is not managed by hive {hive.swarm.name}{where}')


def _there(name: str, peer: str) -> str:
    """The address of somebody in the sending hive. Raises Refused: not a name that a hive has."""
    if not is_hive_name(peer) or not (is_agent_name(name) or name in (OPERATOR, SYSTEM, questions.WATCHDOG)):
        raise Refused(f"{name[:40]!r} is not a name in another hive.")
    return f"{name}@{peer}"


def _bounded(text: str) -> str:
    return checked_text(text, "answer")
