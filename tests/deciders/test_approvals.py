"""Rules for approvals: request, pin, decide once."""

from typing import Any, get_args

import pytest

from hive.deciders.approvals import (
    PENDING_MAX,
    RULES,
    Approve,
    Deny,
    FailRequest,
    Pin,
    RequestCommit,
    RequestSpawn,
    Withdraw,
)
from hive.deciders.base import Command
from hive.deciders.roster import AGENTS_MAX
from hive.errors import AlreadyDone, BadRequest, LimitReached, NotFound, NotYours, Refused
from hive.events import EVENT_TYPES, AnyEvent
from hive.events.agents import AgentAdded, Rebuilt, Spawned
from hive.events.approvals import KINDS, ApprovalFailed, ApprovalRequested, ApprovalResolved, Kind, ProposalPinned
from hive.events.base import ApprovalId
from hive.events.notices import ApprovalResolved as Told

from .check import DAEMON_BY, MANAGED, OPERATOR_BY, by, check, told, tombstone

ONE = ApprovalId(1)
SHA = "a" * 40
SPAWN = ApprovalRequested(id=ONE, agent="writer", kind="spawn", requester="manager")
COMMIT = ApprovalRequested(id=ONE, agent="coder", kind="apply_commit", requester="manager", commit_ref="main")
PINNED = ProposalPinned(id=ONE, agent="coder", fetched_sha=SHA)


def resolved(status: Any, note: str | None = None, kind: Kind = "apply_commit") -> ApprovalResolved:
    return ApprovalResolved(
        id=ONE, agent="coder" if kind == "apply_commit" else "writer", kind=kind, status=status, note=note
    )


def outcome(id: int, status: str, note: str | None = None, kind: Kind = "apply_commit") -> AnyEvent:
    agent = "coder" if kind == "apply_commit" else "writer"
    return told(id, "manager", Told(id=ONE, agent=agent, kind=kind, status=status, note=note))


def request_spawn(agent: str = "writer", **fields: Any) -> RequestSpawn:
    return RequestSpawn(by=by("manager"), agent=agent, requester="manager", **fields)


def request_commit(agent: str = "coder", commit_ref: str = "main", **fields: Any) -> RequestCommit:
    return RequestCommit(by=by("manager"), agent=agent, commit_ref=commit_ref, requester="manager", **fields)


def approve(sha: str | None = None) -> Approve:
    return Approve(by=OPERATOR_BY, id=ONE, sha=sha)


def deny(note: str | None = None) -> Deny:
    return Deny(by=OPERATOR_BY, id=ONE, note=note)


def withdraw(requester: str = "manager") -> Withdraw:
    return Withdraw(by=by(requester), id=ONE, requester=requester)


def test_spawn_request_only_adds_a_pending_row() -> None:
    hive = check(given=MANAGED, when=request_spawn(), then=[SPAWN])
    assert [row.id for row in hive.approvals.pending()] == [ONE]
    assert hive.agents.all.get("writer") is None


def test_commit_request_only_adds_a_pending_row() -> None:
    described = ApprovalRequested(
        id=ONE, agent="coder", kind="apply_commit", requester="manager", commit_ref="main", description="why"
    )
    check(given=MANAGED, when=request_commit(description="why"), then=[described])


@pytest.mark.parametrize("agent", ["coder", "manager", "gone"])
def test_taken_name_is_refused(agent: str) -> None:
    check(given=[*MANAGED, *tombstone("gone", 9)], when=request_spawn(agent), then=AlreadyDone)


@pytest.mark.parametrize("agent", ["", "-a", "A", "a b", "a" * 33, "operator", "system", "é", "a\n", "*", "../x"])
def test_invalid_agent_name_is_refused(agent: str) -> None:
    check(given=MANAGED, when=request_spawn(agent), then=BadRequest)


def test_second_pending_spawn_of_same_name_is_refused() -> None:
    check(given=[*MANAGED, SPAWN], when=request_spawn(), then=AlreadyDone, says="Approval 1")


@pytest.mark.parametrize(
    ("when", "then"),
    [
        (request_commit("nobody"), NotFound),
        (request_commit("writer"), NotFound),
        (request_commit(commit_ref=" "), BadRequest),
        (request_commit(commit_ref="x" * 501), BadRequest),
        (request_commit(description=" "), BadRequest),
        (request_spawn(description="x" * 20_000), BadRequest),
    ],
    ids=str,
)
def test_malformed_request_is_refused(when: Command, then: type[Refused]) -> None:
    check(given=MANAGED, when=when, then=then)


def test_pending_requests_are_bounded() -> None:
    many: list[AnyEvent] = [
        ApprovalRequested(
            id=ApprovalId(number), agent="coder", kind="apply_commit", requester="manager", commit_ref="m"
        )
        for number in range(1, PENDING_MAX + 1)
    ]
    check(given=[*MANAGED, *many], when=request_commit(), then=LimitReached, says=str(PENDING_MAX))


def test_fetched_commit_is_pinned_while_pending() -> None:
    hive = check(given=[*MANAGED, COMMIT], when=Pin(by=DAEMON_BY, id=ONE, fetched_sha=SHA), then=[PINNED])
    assert hive.approvals.all[ONE].fetched_sha == SHA
    given = [*MANAGED, COMMIT, resolved("cancelled")]
    check(given=given, when=Pin(by=DAEMON_BY, id=ONE, fetched_sha=SHA), then=AlreadyDone)


def test_approved_spawn_adds_agent_in_same_commit() -> None:
    then = [
        resolved("approved", kind="spawn"),
        outcome(1, "approved", kind="spawn"),
        AgentAdded(agent="writer", slot=4, approval_id=ONE),
    ]
    hive = check(given=[*MANAGED, SPAWN], when=approve(), then=then)
    assert hive.agents.all["writer"].act == "spawn"
    assert [row.id for row in hive.approvals.under_way()] == [ONE]


def test_spawn_approval_is_carried_out_on_spawned() -> None:
    given = [*MANAGED, SPAWN, resolved("approved", kind="spawn"), AgentAdded(agent="writer", slot=4, approval_id=ONE)]
    hive = check(given=[*given, Spawned(agent="writer")], when=FailRequest(by=DAEMON_BY, id=ONE, error="late"), then=[])
    assert hive.approvals.under_way() == []
    assert hive.approvals.all[ONE].status == "approved"


@pytest.mark.parametrize("sha", [None, SHA])
def test_approved_commit_is_under_way(sha: str | None) -> None:
    hive = check(
        given=[*MANAGED, COMMIT, PINNED], when=approve(sha), then=[resolved("approved"), outcome(1, "approved")]
    )
    assert [row.id for row in hive.approvals.under_way()] == [ONE]


def test_rebuilt_names_its_approval() -> None:
    given = [*MANAGED, COMMIT, PINNED, resolved("approved")]
    rebuilt = Rebuilt(agent="coder", ok=True, revision=SHA, approval_id=ONE)
    hive = check(given=[*given, rebuilt], when=approve(), then=AlreadyDone)
    assert hive.approvals.under_way() == []
    other = Rebuilt(agent="coder", ok=True, revision=SHA)
    assert check(given=[*given, other], when=approve(), then=AlreadyDone).approvals.under_way() != []


@pytest.mark.parametrize(
    ("given", "sha", "says"),
    [
        ([COMMIT], None, "still being fetched"),
        ([COMMIT, PINNED], "b" * 40, "look at its diff again"),
        ([SPAWN], SHA, "no commit"),
    ],
    ids=["not pinned", "another sha", "a spawn has none"],
)
def test_approval_with_another_sha_is_refused(given: list[AnyEvent], sha: str | None, says: str) -> None:
    check(given=[*MANAGED, *given], when=approve(sha), then=Refused, says=says)


def test_denial_note_reaches_manager() -> None:
    given = [*MANAGED, COMMIT, PINNED]
    check(given=given, when=deny("too big"), then=[resolved("denied", "too big"), outcome(1, "denied", "too big")])
    check(given=given, when=deny(), then=[resolved("denied"), outcome(1, "denied")])
    check(given=given, when=deny("x" * 501), then=BadRequest)


def test_only_requester_withdraws() -> None:
    note = "withdrawn by manager"
    check(given=[*MANAGED, COMMIT], when=withdraw(), then=[resolved("cancelled", note), outcome(1, "cancelled", note)])
    check(given=[*MANAGED, COMMIT], when=withdraw("coder"), then=NotYours)


@pytest.mark.parametrize("status", ["approved", "denied", "failed", "cancelled"])
@pytest.mark.parametrize("when", [approve(), deny(), withdraw()], ids=["approve", "deny", "withdraw"])
def test_second_decision_is_refused(when: Command, status: str) -> None:
    check(given=[*MANAGED, COMMIT, PINNED, resolved(status)], when=when, then=AlreadyDone, says=status)


@pytest.mark.parametrize("id", [0, -1, 2, 2**63 - 1, -(2**63)])
def test_unknown_approval_is_not_found(id: int) -> None:
    check(given=[*MANAGED, COMMIT], when=Approve(by=OPERATOR_BY, id=ApprovalId(id)), then=NotFound)
    check(given=[*MANAGED, COMMIT], when=Pin(by=DAEMON_BY, id=ApprovalId(id), fetched_sha=SHA), then=NotFound)
    check(given=[*MANAGED, COMMIT], when=FailRequest(by=DAEMON_BY, id=ApprovalId(id), error="x"), then=[])


def test_failed_fetch_fails_row_and_tells_manager() -> None:
    then = [resolved("failed", "no such commit"), outcome(1, "failed", "no such commit")]
    hive = check(given=[*MANAGED, COMMIT], when=FailRequest(by=DAEMON_BY, id=ONE, error="no such commit"), then=then)
    assert hive.approvals.pending() == []


def test_failed_build_fails_approval_once() -> None:
    given = [*MANAGED, COMMIT, PINNED, resolved("approved")]
    when = FailRequest(by=DAEMON_BY, id=ONE, error="no build")
    failed = ApprovalFailed(id=ONE, agent="coder", error="no build")
    hive = check(given=given, when=when, then=[failed, outcome(1, "failed", "no build")])
    assert hive.approvals.all[ONE].status == "failed"
    check(given=[*given, failed], when=when, then=[])


@pytest.mark.parametrize("status", ["denied", "cancelled", "failed"])
def test_finished_approval_does_not_fail_later(status: str) -> None:
    given = [*MANAGED, COMMIT, PINNED, resolved(status)]
    check(given=given, when=FailRequest(by=DAEMON_BY, id=ONE, error="late"), then=[])


def test_approving_a_taken_name_keeps_request_pending() -> None:
    hive = check(given=[*MANAGED, SPAWN, AgentAdded(agent="writer", slot=4)], when=approve(), then=AlreadyDone)
    assert [row.id for row in hive.approvals.pending()] == [ONE]


def test_approving_beyond_agent_limit_keeps_request_pending() -> None:
    crowd: list[AnyEvent] = [AgentAdded(agent=f"x{number}", slot=10 + number) for number in range(AGENTS_MAX - 3)]
    hive = check(given=[*MANAGED, *crowd, SPAWN], when=approve(), then=LimitReached)
    assert [row.id for row in hive.approvals.pending()] == [ONE]


def test_every_kind_has_its_rules_and_what_screens_show() -> None:
    assert set(KINDS) == set(RULES) == set(get_args(Kind))
    assert {name for kind in KINDS.values() for name in kind.carried_out_by} <= set(EVENT_TYPES)
