"""Rules for approvals: request, pin, decide once. Only the operator decides; an approved spawn is one commit."""

from collections.abc import Callable
from typing import Final, NamedTuple

from hive.clock import TimeMs
from hive.deciders import egress
from hive.deciders.base import Command, Decision, DecisionBuilder, checked_label, checked_name, checked_text, living
from hive.deciders.roster import add_agent, refuse_taken
from hive.errors import AlreadyDone, LimitReached, NotFound, NotYours, Refused
from hive.events import notices
from hive.events.approvals import (
    KINDS,
    ApprovalFailed,
    ApprovalRequested,
    ApprovalResolved,
    Kind,
    Outcome,
    ProposalPinned,
)
from hive.events.base import ApprovalId
from hive.names import MANAGER, AgentName
from hive.projections.approvals import Approval
from hive.projections.hive import Hive

PENDING_MAX = 200
"""Maximum number of pending requests."""


class RequestSpawn(Command, frozen=True, kw_only=True):
    """`requester` is the manager or `operator`."""

    agent: AgentName
    requester: str
    description: str | None = None


class RequestCommit(Command, frozen=True, kw_only=True):
    """Queue a configuration change. Pinning follows outside the journal."""

    agent: AgentName
    commit_ref: str
    requester: str
    description: str | None = None


class Pin(Command, frozen=True, kw_only=True):
    """The proposed commit is in `applied`, tagged."""

    id: ApprovalId
    fetched_sha: str


class FailRequest(Command, frozen=True, kw_only=True):
    """The request failed: it was not fetched while pending, or not built after its approval."""

    id: ApprovalId
    error: str


class Approve(Command, frozen=True, kw_only=True):
    """`sha`, if given, is the commit that the operator saw."""

    id: ApprovalId
    sha: str | None = None
    for_all: bool = False
    """Of kind `egress`: allow the host for every agent, not only for the one that asked."""


class Deny(Command, frozen=True, kw_only=True):
    id: ApprovalId
    note: str | None = None


class Withdraw(Command, frozen=True, kw_only=True):
    """The requester withdraws its request."""

    id: ApprovalId
    requester: str


def request_spawn(command: RequestSpawn, hive: Hive, _: TimeMs) -> Decision:
    """Request a new agent. Nothing else changes before the approval.

    Raises:
        BadRequest: a bad name. AlreadyDone: the name is taken or asked for. LimitReached.
    """
    refuse_taken(hive, checked_name(command.agent))
    for row in hive.approvals.pending():
        if row.kind == "spawn" and row.agent == command.agent:
            raise AlreadyDone(f"Approval {row.id} for spawning {command.agent} is already pending.")
    return [_requested(hive, command, "spawn", "")]


def request_commit(command: RequestCommit, hive: Hive, _: TimeMs) -> Decision:
    """Request a configuration change.

    Raises:
        NotFound: no such agent. BadRequest: no commit named. LimitReached.
    """
    living(hive, command.agent)
    checked_text(command.commit_ref, "commit_ref")
    checked_label(command.commit_ref, "commit_ref")
    return [_requested(hive, command, "apply_commit", command.commit_ref)]


def pin(command: Pin, hive: Hive, _: TimeMs) -> Decision:
    """Record the fetched commit. After this the operator may decide.

    Raises:
        NotFound, AlreadyDone: withdrawn or denied meanwhile.
    """
    row = pending_one(hive, command.id)
    return [ProposalPinned(id=row.id, agent=row.agent, fetched_sha=command.fetched_sha)]


def fail_request(command: FailRequest, hive: Hive, now: TimeMs) -> Decision:
    """Mark the request as failed and tell the manager. A finished request does not change."""
    row = hive.approvals.all.get(command.id)
    decision = DecisionBuilder(hive, now)
    if row is None or row.status in ("denied", "failed", "cancelled") or row.carried_out:
        return []
    if row.status == "pending":
        _resolve(decision, row, "failed", command.error)
    else:
        fail_approved(decision, row, command.error)
    return decision.events


def approve(command: Approve, hive: Hive, now: TimeMs) -> Decision:
    """Approve a request.

    Raises:
        NotFound, AlreadyDone; Refused: not pinned yet, or not what the operator saw.
    """
    row = pending_one(hive, command.id)
    kind = KINDS[row.kind]
    if kind.has_commit:
        if row.fetched_sha is None:
            raise Refused(f"Approval {row.id} is still being fetched; try again in a moment.")
        if command.sha is not None and command.sha != row.fetched_sha:
            raise Refused(f"Approval {row.id} is for {row.fetched_sha}, not {command.sha}; look at its diff again.")
    elif command.sha is not None:
        raise Refused(f"Approval {row.id} is a {row.kind} and has no commit; leave the sha out.")
    if command.for_all and not kind.can_be_for_all:
        raise Refused(f"Approval {row.id} is a {row.kind}; only a request for a host can be approved for all agents.")
    decision = DecisionBuilder(hive, now)
    _resolve(decision, row, "approved", None)
    RULES[row.kind].approve(decision, row, command.for_all)
    return decision.events


def deny(command: Deny, hive: Hive, now: TimeMs) -> Decision:
    """Deny a request.

    Raises:
        NotFound, AlreadyDone.
    """
    row = pending_one(hive, command.id)
    if command.note is not None:
        checked_label(command.note, "note")
    decision = DecisionBuilder(hive, now)
    _resolve(decision, row, "denied", command.note)
    RULES[row.kind].deny(decision, row)
    return decision.events


def withdraw(command: Withdraw, hive: Hive, now: TimeMs) -> Decision:
    """Withdraw a pending request.

    Raises:
        NotFound, AlreadyDone; NotYours: somebody else asked.
    """
    row = pending_one(hive, command.id)
    if row.requester != command.requester:
        raise NotYours(f"Approval {row.id} was requested by {row.requester}.")
    decision = DecisionBuilder(hive, now)
    _resolve(decision, row, "cancelled", f"withdrawn by {command.requester}")
    return decision.events


def pending_one(hive: Hive, id: ApprovalId) -> Approval:
    """Raises NotFound or AlreadyDone."""
    row = hive.approvals.all.get(id)
    if row is not None and row.status == "pending":
        return row
    if not hive.ids.given("approval", id):
        raise NotFound(f"There is no approval {id}.")
    raise AlreadyDone(f"Approval {id} is already {row.status if row else 'decided'}.")


def cancel_all(decision: DecisionBuilder, agent: AgentName) -> None:
    """Cancel the requests about a destroyed agent."""
    for row in decision.hive.approvals.pending():
        if row.agent == agent:
            _resolve(decision, row, "cancelled", f"{agent} was destroyed")
    for row in decision.hive.approvals.under_way():
        if row.agent == agent:
            fail_approved(decision, row, f"{agent} was destroyed")


def fail_approved(decision: DecisionBuilder, row: Approval, error: str) -> None:
    """Mark an approved request as failed."""
    decision.add(ApprovalFailed(id=row.id, agent=row.agent, error=error))
    RULES[row.kind].tell(decision, row, "failed", error)


def _requested(hive: Hive, command: RequestSpawn | RequestCommit, kind: Kind, commit_ref: str) -> ApprovalRequested:
    if command.description is not None:
        checked_text(command.description, "description")
    if len(hive.approvals.pending()) - len(hive.approvals.pending_egress()) >= PENDING_MAX:
        raise LimitReached(f"{PENDING_MAX} approvals wait for the operator; withdraw some or wait.")
    return ApprovalRequested(
        id=hive.ids.next_approval(),
        agent=command.agent,
        kind=kind,
        requester=command.requester,
        commit_ref=commit_ref,
        description=command.description,
    )


def _resolve(decision: DecisionBuilder, row: Approval, status: Outcome, note: str | None) -> None:
    decision.add(ApprovalResolved(id=row.id, agent=row.agent, kind=row.kind, status=status, note=note))
    RULES[row.kind].tell(decision, row, status, note)


def _nothing(*_: object) -> None:
    """For a kind whose decision has no further events: an actor carries it out."""


def _approve_spawn(decision: DecisionBuilder, row: Approval, _for_all: bool) -> None:
    """Raises AlreadyDone: the name was taken meanwhile."""
    refuse_taken(decision.hive, row.agent)
    add_agent(decision, row.agent, approval_id=row.id)


def _tell_manager(decision: DecisionBuilder, row: Approval, status: Outcome, note: str | None) -> None:
    decision.tell(
        MANAGER, notices.ApprovalResolved(id=row.id, agent=row.agent, kind=row.kind, status=status, note=note)
    )


class KindRules(NamedTuple):
    """What a decision on a request of one kind adds to the commit."""

    approve: Callable[[DecisionBuilder, Approval, bool], None] = _nothing
    """The flag: for every agent. May refuse."""
    deny: Callable[[DecisionBuilder, Approval], None] = _nothing
    tell: Callable[[DecisionBuilder, Approval, Outcome, str | None], None] = _tell_manager
    """Who hears of the decision: its status and note."""


RULES: Final[dict[Kind, KindRules]] = {
    "spawn": KindRules(approve=_approve_spawn),
    "apply_commit": KindRules(),
    "egress": KindRules(egress.approve_one, egress.deny_one, egress.tell_agent),
}
