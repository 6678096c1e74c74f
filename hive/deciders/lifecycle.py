"""Rules for containers: which act may begin, and the consequences of its outcome."""

from typing import Literal

from hive.clock import MS_PER_S, DurationMs, TimeMs, rfc3339
from hive.deciders.approvals import fail_approved
from hive.deciders.base import Answered, Command, Decision, DecisionBuilder, living
from hive.deciders.budgets import enforce_budget
from hive.deciders.messages import requeue_all
from hive.deciders.roster import refuse_manager
from hive.errors import AlreadyDone, NotYours, Refused
from hive.events import notices
from hive.events.agents import (
    Act,
    ActDecided,
    ActFailed,
    Budget,
    BudgetSet,
    ContainerLimits,
    Crashed,
    Killed,
    LimitsSet,
    Rebuilt,
    RecipientsAllowed,
    Share,
    ShareSet,
    Spawned,
    Started,
    StartReason,
    Stopped,
)
from hive.events.base import ApprovalId
from hive.names import MANAGER, OPERATOR, AgentName
from hive.projections.agents import Agent, crashes_in_a_row
from hive.projections.hive import Hive

RESTART_FIRST_MS: DurationMs = 1_000
"""Delay of the restart after the first crash; doubled for each further crash in a row."""
RESTART_WAIT_MAX_MS: DurationMs = 60_000
CRASHES_MAX = 5
"""Crashes in a row after which an agent is not restarted and the operator is told."""


class BeginAct(Command, frozen=True, kw_only=True):
    """A lifecycle act is about to begin; `by` is the requester."""

    agent: AgentName
    act: Act
    purge: bool = False


class RecordStarted(Command, frozen=True, kw_only=True):
    agent: AgentName
    incarnation: str
    reason: StartReason
    revision: str | None = None
    harness_version: str | None = None
    network: Literal["own", "host"] | None = None
    recipients: tuple[str, ...] | None = None
    budget: Budget | None = None
    share: Share | None = None
    limits: ContainerLimits | None = None


class RecordStopped(Command, frozen=True, kw_only=True):
    agent: AgentName
    exit: str


class RecordKilled(Command, frozen=True, kw_only=True):
    agent: AgentName


class RecordCrash(Command, frozen=True, kw_only=True):
    """The container of this incarnation has ended."""

    agent: AgentName
    incarnation: str
    reason: str
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool | None = None
    ended_ms: TimeMs | None = None
    last_line: str | None = None


class RecordRebuilt(Command, frozen=True, kw_only=True):
    """`approval_id` is the approved change that was built."""

    agent: AgentName
    ok: bool
    revision: str | None = None
    error: str | None = None
    approval_id: ApprovalId | None = None


class RecordActFailed(Command, frozen=True, kw_only=True):
    agent: AgentName
    act: Act
    error: str


def begin_act(command: BeginAct, hive: Hive, _: TimeMs) -> Decision:
    """Record an act before it is done, so that a restarted daemon does it again.

    The answer is the act to do, or None if there is nothing to do.

    Raises:
        NotFound; Refused: destroying the manager. NotYours: an agent acting on itself. AlreadyDone: a kill of nothing.
    """
    row = living(hive, command.agent)
    if command.by.kind == "agent" and command.by.name == command.agent:
        raise NotYours(f"{command.agent} cannot {command.act} itself.")
    act = command.act
    if (move := hive.swarm.moves.get(row.name)) is not None and act != "stop":
        if (move.claimed and act != "destroy") or move.adopted:
            raise Refused(
                f"{move.hive} has adopted {row.name}, or is about to. If {move.hive} is gone for good, run:"
                f" hive swarm distrust {move.hive}"
            )
        if not move.claimed:
            raise Refused(f"{row.name} is moving to {move.hive}; wait until it is there or back.")
    if act == "destroy":
        refuse_manager(row.name, "destroyed")
    if act in ("start", "restart", "rebuild") and not row.spawned:
        act = "spawn"
    if act == "kill" and not row.running:
        raise AlreadyDone(f'agent "{row.name}" is not running')
    if (act == "start" and row.running) or (act == "stop" and not row.running and row.restart_ms is None):
        return Answered([], None)
    return Answered([ActDecided(agent=row.name, act=act, purge=command.purge)], act)


def record_started(command: RecordStarted, hive: Hive, now: TimeMs) -> Decision:
    """Record a start and send a kick, except after a spawn.

    A deploy sends its kick in `record_rebuilt`, after the harness has connected.
    """
    row = living(hive, command.agent)
    decision = DecisionBuilder(hive, now)
    decision.add(
        Started(
            agent=row.name,
            incarnation=command.incarnation,
            reason=command.reason,
            revision=command.revision,
            harness_version=command.harness_version,
            network=command.network,
        )
    )
    if command.recipients != row.recipients:
        decision.add(RecipientsAllowed(agent=row.name, recipients=command.recipients))
    if command.limits is not None and command.limits != row.limits:
        decision.add(LimitsSet(agent=row.name, limits=command.limits))
    if command.budget != row.budget:
        decision.add(BudgetSet(agent=row.name, budget=command.budget))
        enforce_budget(decision, row, command.budget)
    if command.share != row.share:
        decision.add(ShareSet(agent=row.name, share=command.share))
    if command.reason == "spawn":
        decision.add(Spawned(agent=row.name))
    elif command.reason != "deploy":
        decision.tell(row.name, notices.Kicked(reason=command.reason))
    if command.reason == "rebuild":  # In the same commit: a start that is not also a rebuild would be lost.
        _rebuilt(decision, row.name, ok=True, revision=command.revision)
    return decision.events


def record_stopped(command: RecordStopped, hive: Hive, now: TimeMs) -> Decision:
    """Record a stop and requeue the messages in flight."""
    return _down(command.agent, Stopped(agent=command.agent, exit=command.exit), "stopped", hive, now)


def record_killed(command: RecordKilled, hive: Hive, now: TimeMs) -> Decision:
    """Record a kill and requeue the messages in flight."""
    return _down(command.agent, Killed(agent=command.agent), "killed", hive, now)


def record_crash(command: RecordCrash, hive: Hive, now: TimeMs) -> Decision:
    """Record a crash and schedule a restart, or leave the agent stopped. A stale report is a no-op."""
    row = hive.agents.living_one(command.agent)
    if row is None or not row.running or row.incarnation != command.incarnation:
        return []
    decision = DecisionBuilder(hive, now)
    restart_ms = restart_after_crash(row, now)
    crashed = Crashed(
        agent=row.name,
        incarnation=command.incarnation,
        reason=command.reason,
        code=command.code,
        signal=command.signal,
        out_of_memory=command.out_of_memory,
        ended_ms=command.ended_ms,
        restart_ms=restart_ms,
        last_line=command.last_line,
    )
    decision.add(crashed)
    requeue_all(decision, row.name, "crashed")
    if row.name != MANAGER:
        restart_at = None if restart_ms is None else rfc3339(restart_ms)
        notice = notices.Crashed(
            agent=row.name, reason=command.reason, restart_at=restart_at, last_line=command.last_line
        )
        decision.tell(MANAGER, notice)
    if restart_ms is None:
        rested = notices.Rested(agent=row.name, reason=_why_rest(row, command.reason), last_line=command.last_line)
        decision.tell(OPERATOR, rested)
    return decision.events


def record_rebuilt(command: RecordRebuilt, hive: Hive, now: TimeMs) -> Decision:
    """Record the outcome of a deploy, or of a rebuild that started nothing."""
    row, decision = living(hive, command.agent), DecisionBuilder(hive, now)
    if command.ok and command.approval_id is not None and row.running:
        decision.tell(row.name, notices.Kicked(reason="deploy"))
    _rebuilt(
        decision,
        row.name,
        ok=command.ok,
        revision=command.revision,
        error=command.error,
        approval_id=command.approval_id,
    )
    return decision.events


def record_act_failed(command: RecordActFailed, hive: Hive, now: TimeMs) -> Decision:
    """Record a failed act and fail its approval."""
    row = living(hive, command.agent)
    decision = DecisionBuilder(hive, now)
    decision.add(ActFailed(agent=row.name, act=command.act, error=command.error))
    if command.act == "spawn":
        for approval in hive.approvals.under_way():
            if approval.agent == row.name and approval.kind == "spawn":
                fail_approved(decision, approval, command.error)
    notice = notices.ActFailed(agent=row.name, act=command.act, error=command.error)
    decision.tell(OPERATOR if row.name == MANAGER else MANAGER, notice)
    return decision.events


def restart_after_crash(row: Agent, now: TimeMs) -> TimeMs | None:
    """When an agent that crashes now is restarted; None: not at all."""
    crashes = crashes_in_a_row(row, now)
    if row.needs_login or not row.wanted_running or crashes >= CRASHES_MAX:
        return None
    return now + min(RESTART_FIRST_MS << (crashes - 1), RESTART_WAIT_MAX_MS)


def _why_rest(row: Agent, reason: str) -> str:
    if row.needs_login:
        return f"it ended ({reason}) and needs login"
    return f"it ended {row.crashes + 1} times in a row, the last time with {reason}; start it when the cause is gone"


def _rebuilt(
    decision: DecisionBuilder,
    name: AgentName,
    *,
    ok: bool,
    revision: str | None,
    error: str | None = None,
    approval_id: ApprovalId | None = None,
) -> None:
    decision.add(Rebuilt(agent=name, ok=ok, revision=revision, error=error, approval_id=approval_id))
    if name != MANAGER or not ok:
        decision.tell(MANAGER, notices.Rebuilt(agent=name, ok=ok, error=error))


def _down(name: AgentName, event: Stopped | Killed, reason: str, hive: Hive, now: TimeMs) -> Decision:
    row = living(hive, name)
    decision = DecisionBuilder(hive, now)
    decision.add(event)
    requeue_all(decision, row.name, reason)
    if isinstance(event, Killed) and row.name != MANAGER:
        decision.tell(MANAGER, notices.Killed(agent=row.name))
    return decision.events


assert RESTART_FIRST_MS >= MS_PER_S, "a first restart without a delay would loop"
