"""The lifecycle of one agent. Acts run one at a time: decide, hold a transient guard, act, record the outcome."""

import concurrent.futures
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pykka
import structlog

import hive
from hive.actors import mail
from hive.actors.epoch_gate import EpochGate
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.provision import Provisioner
from hive.actors.transient_guard import TransientGuard
from hive.clock import Clock, DurationMs, TimeMs
from hive.config.agent_file import AgentLimits
from hive.config.escaping import escaped
from hive.deciders.base import Command
from hive.deciders.destroy import RecordDestroyed
from hive.deciders.lifecycle import (
    BeginAct,
    RecordActFailed,
    RecordCrash,
    RecordKilled,
    RecordRebuilt,
    RecordStarted,
    RecordStopped,
)
from hive.errors import HiveError, NotFound, Unavailable
from hive.events.agents import Act, Budget, Share, StartReason
from hive.events.base import ApprovalId, By, actor
from hive.events.transient import TransientKind
from hive.names import AgentName
from hive.projections import agents as roster
from hive.runtimes.protocol import Bind, Ended, Exit, NeverRan, Running
from hive.runtimes.record import Record
from hive.settings import SHARES

log = structlog.get_logger()

RECOVER_AGAIN_MS: DurationMs = 5_000
STOP_GRACE_S = 10.0
"""Time for the harness to interrupt its turn and requeue its messages before the container is killed."""

LAST_LINE_MAX_CHARACTERS = 300
"""Of the output in a Crashed event."""

TRANSIENTS: Final[dict[Act, TransientKind]] = {
    "spawn": "spawning",
    "start": "starting",
    "stop": "stopping",
    "kill": "stopping",
    "restart": "restarting",
    "rebuild": "rebuilding",
    "destroy": "destroying",
}


STARTS: Final = ("spawn", "start", "restart", "rebuild")


class Ticket(concurrent.futures.Future[None]):
    """A future that is done when the act is done, or holds the act's error."""


class Do(msgspec.Struct, frozen=True):
    """Message: do this act after the queued ones."""

    agent: AgentName
    act: Act
    by: By
    ticket: Ticket
    purge: bool = False
    graceful: bool = True
    approval_id: ApprovalId | None = None
    """For a rebuild: the approval that this deploys."""


class ContainerEnded(msgspec.Struct, frozen=True):
    """Message: the crash watch found that this incarnation's container has ended."""

    agent: AgentName
    ended: Ended


class GoDown(msgspec.Struct, frozen=True):
    """Message: stop the container because the hive stops. The agent stays wanted, so the next daemon starts it."""

    agent: AgentName
    ticket: Ticket


class Settle(msgspec.Struct, frozen=True):
    """Message: settle the ticket after the queued acts, with an error if the agent failed to start."""

    agent: AgentName
    ticket: Ticket


class _RecoverAgain(msgspec.Struct, frozen=True):
    """To itself: the log could not be written; try again."""


class _RestartDue(msgspec.Struct, frozen=True):
    """To itself: the delay after a crash is over."""

    at: TimeMs


Message = Do | Settle | ContainerEnded | GoDown | _RestartDue | _RecoverAgain


class Agent(pykka.ThreadingActor):
    """Runs one container's lifecycle acts one at a time. Messages do not wait for it; they go through the journal.

    A crash loses nothing: the next actor finds an act without an outcome in the roster and does it again.
    """

    use_daemon_thread = True

    def __init__(
        self,
        name: AgentName,
        journal: BlockingJournalClient,
        provisioner: Provisioner,
        clock: Clock,
        gate: EpochGate,
    ):
        super().__init__()
        self._gate = gate
        self._name = name
        self._journal = journal
        self._provisioner = provisioner
        self._runtime = provisioner.runtime
        self._record = provisioner.paths.record(name)
        self._clock = clock
        self._by = actor("agent")
        self._cancel_restart: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        try:
            self._recover_or_retry(self._recover)
        except Exception:  # pykka does not call on_failure for on_start. The supervisor starts another actor.
            self._refuse_waiting()
            raise

    def on_receive(self, message: Message) -> None:
        match message:
            case Do(ticket=ticket):
                self._answered(ticket, lambda: self._do(message))
            case Settle(ticket=ticket):
                self._answered(ticket, self._refuse_failed)
            case GoDown(ticket=ticket):
                self._answered(ticket, self._go_down)
            case ContainerEnded(ended=ended):
                self._recover_or_retry(lambda: self._crashed(ended))
            case _RestartDue(at=at):
                self._recover_or_retry(lambda: self._restart_after_crash(at))
            case _RecoverAgain():
                self._recover_or_retry(self._recover)

    def on_failure(self, *_: object) -> None:
        self._refuse_waiting()

    def on_stop(self) -> None:
        self._cancel_restart()
        self._refuse_waiting()

    # Requests

    def _answered(self, ticket: Ticket, act: Callable[[], None]) -> None:
        try:
            act()
        except HiveError as error:
            ticket.set_exception(error)
        except Exception as bug:
            ticket.set_exception(bug)
            raise
        else:
            ticket.set_result(None)

    def _do(self, message: Do) -> None:
        row, _ = self._row()
        if message.act in STARTS and not row.running and (why := self._gate.why_held(self._name, row.added_ms)):
            raise Unavailable(why)
        begin = BeginAct(by=message.by, agent=self._name, act=message.act, purge=message.purge)
        act = self._journal.ask(begin).answer
        if act is not None:
            self._carry_out(act, message.by, message.approval_id, purge=message.purge, graceful=message.graceful)

    def _carry_out(
        self, act: Act, by: By, approval_id: ApprovalId | None = None, *, purge: bool = False, graceful: bool = True
    ) -> None:
        """Raises HiveError: the act failed. The failure is recorded."""
        self._cancel_restart()
        with self._guard(TRANSIENTS[act], by):
            try:
                match act:
                    case "spawn" | "start":
                        self._start_container(act, by)
                    case "stop":
                        self._stop_container(by, STOP_GRACE_S if graceful else 0)
                    case "kill":
                        self._runtime.kill(self._record)
                        self._journal.ask(RecordKilled(by=by, agent=self._name))
                    case "restart":
                        self._stop_if_running(by)
                        self._start_container("restart", by)
                    case "rebuild":
                        self._rebuild(by, approval_id)
                    case "destroy":
                        self._destroy(by, purge)
            except (HiveError, OSError) as error:
                self._journal.ask(RecordActFailed(by=by, agent=self._name, act=act, error=str(error)))
                raise error if isinstance(error, HiveError) else Unavailable(f"{act} failed: {error}") from error

    # Acts

    def _start_container(self, reason: StartReason, by: By) -> None:
        self._runtime.kill(self._record)  # A daemon that crashed here may have left a container.
        revision = self._provisioner.wanted(self._name)
        row, mounts = self._row()
        container, file = self._provisioner.container(row, mounts, self._binds(), revision)
        has_quota = self._provisioner.limit_disk(row, container.limits.disk_bytes or 0)
        running = self._runtime.start(container)
        started = RecordStarted(
            by=by,
            agent=self._name,
            incarnation=running.incarnation,
            reason=reason,
            revision=revision,
            harness_version=hive.__version__,
            network="host" if self._runtime.kind == "process" else container.network,
            recipients=file.allowed_recipients,
            budget=_budget(file.limits),
            share=_share(file.limits),
            limits=self._provisioner.recorded(container.limits, has_quota=has_quota),
        )
        self._journal.ask(started)

    def _binds(self) -> tuple[Bind, ...]:
        """Folders of other agents that this agent sees."""
        return ()

    def _stop_container(self, by: By, grace_s: float) -> None:
        ended = self._runtime.stop(self._record, grace_s=grace_s)
        how = "was not running" if ended is None else ended.reason()
        self._journal.ask(RecordStopped(by=by, agent=self._name, exit=how))

    def _stop_if_running(self, by: By) -> None:
        if self._row()[0].running:
            self._stop_container(by, STOP_GRACE_S)

    def _rebuild(self, by: By, approval_id: ApprovalId | None) -> None:
        revision = self._provisioner.wanted(self._name)
        try:
            self._provisioner.build(self._name, revision)
        except HiveError as error:
            self._journal.ask(RecordRebuilt(by=by, agent=self._name, ok=False, revision=revision, error=str(error)))
            raise
        row, _ = self._row()
        if row.running or row.wanted_running:
            self._stop_if_running(by)
            self._start_container("rebuild" if approval_id is None else "deploy", by)
        else:
            rebuilt = RecordRebuilt(by=by, agent=self._name, ok=True, revision=revision, approval_id=approval_id)
            self._journal.ask(rebuilt)

    def _destroy(self, by: By, purge: bool) -> None:
        self._runtime.stop(self._record, grace_s=STOP_GRACE_S)
        self._provisioner.limit_disk(self._row()[0], 0)
        if purge:
            self._provisioner.wipe(self._name)
        self._journal.ask(RecordDestroyed(by=by, agent=self._name, purge=purge))

    def _refuse_failed(self) -> None:
        failure = self._row()[0].failure
        if failure is not None:
            raise Unavailable(failure)

    def _go_down(self) -> None:
        if self._row()[0].running:
            with self._guard("stopping", self._by):
                self._stop_container(self._by, STOP_GRACE_S)

    # Recovery and crashes

    def _recover_or_retry(self, step: Callable[[], None]) -> None:
        """Do the step. Recover again later if an error, for example of a full disk, prevented it."""
        try:
            step()
        except HiveError as error:
            log.warning("agent.not_recovered", agent=self._name, error=str(error))
            if isinstance(error, Unavailable):
                self._cancel_restart()
                due = self._clock.now_ms() + RECOVER_AGAIN_MS
                self._cancel_restart = self._clock.call_at(due, lambda: mail.tell(self.actor_ref, _RecoverAgain()))

    def _recover(self) -> None:
        row, _ = self._row()
        if row.act is not None:
            if row.act not in STARTS or not self._is_held(row):
                self._carry_out(row.act, self._by, purge=row.act_purges)
        elif row.running:
            self._take_over(row)
        elif row.restart_ms is not None:
            self._await_restart(row.restart_ms)
        elif row.wanted_running and row.failure is None and not self._is_held(row):
            self._start_guarded("boot")

    def _is_held(self, row: roster.Agent) -> bool:
        """Whether another hive has the agent, or may have it: it is not started then."""
        if self._journal.read(lambda state: self._name in state.swarm.moves):
            return True
        why = self._gate.why_held(self._name, row.added_ms)
        if why is None:
            return False
        log.info("agent.held", agent=self._name, why=why)
        self._gate.when_open(lambda: mail.tell(self.actor_ref, _RecoverAgain()))
        return True

    def _take_over(self, row: roster.Agent) -> None:
        match self._runtime.status(self._record):
            case Running(incarnation=incarnation) if incarnation == row.incarnation:
                log.info("agent.found_again", agent=self._name, incarnation=incarnation)
            case Ended(incarnation=incarnation) as ended if incarnation == row.incarnation:
                self._crashed(ended)
            case NeverRan():
                self._journal.ask(RecordStopped(by=self._by, agent=self._name, exit="the host was restarted"))
                if row.wanted_running and not self._is_held(row):
                    self._start_guarded("boot")
            case _:
                self._runtime.kill(self._record)
                self._crashed(Ended(incarnation=row.incarnation or "", exit=Exit()))

    def _crashed(self, ended: Ended) -> None:
        how = ended.exit
        crash = RecordCrash(
            by=self._by,
            agent=self._name,
            incarnation=ended.incarnation,
            reason=how.reason(),
            code=how.code,
            signal=how.signal,
            out_of_memory=how.out_of_memory,
            ended_ms=how.at_ms,
            last_line=self._last_line(),
        )
        if self._journal.ask(crash).events:
            row, _ = self._row()
            if row.restart_ms is not None:
                self._await_restart(row.restart_ms)

    def _last_line(self) -> str | None:
        line = Record(self._record).last_line()
        if line is None:
            return None
        line = escaped(line[: LAST_LINE_MAX_CHARACTERS + 1])
        return line if len(line) <= LAST_LINE_MAX_CHARACTERS else f"{line[: LAST_LINE_MAX_CHARACTERS - 1]}…"

    def _await_restart(self, at: TimeMs) -> None:
        self._cancel_restart()
        self._cancel_restart = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, _RestartDue(at)))

    def _restart_after_crash(self, at: TimeMs) -> None:
        row, _ = self._row()
        if row.restart_ms == at and not row.running and not self._is_held(row):
            self._start_guarded("crash")

    def _start_guarded(self, reason: StartReason) -> None:
        with self._guard("restarting" if reason == "crash" else "starting", self._by):
            try:
                self._start_container(reason, self._by)
            except (HiveError, OSError) as error:
                failed: Command = RecordActFailed(by=self._by, agent=self._name, act="start", error=str(error))
                self._journal.ask(failed)

    def _guard(self, kind: TransientKind, by: By) -> Any:
        return TransientGuard.hold(self._journal, self._clock, self._name, kind, self.actor_ref, by)

    def _row(self) -> tuple[roster.Agent, list[roster.Mount]]:
        row, mounts = self._journal.read(
            lambda state: (state.agents.all.get(self._name), state.agents.mounts_of(self._name))
        )
        if row is None:
            raise NotFound(f'agent "{self._name}" is not managed by this hive')
        return row, mounts

    def _refuse_waiting(self) -> None:
        while not self.actor_inbox.empty():
            envelope = self.actor_inbox.get()
            if isinstance(envelope.message, Do | Settle | GoDown):
                envelope.message.ticket.set_exception(Unavailable(f"{self._name} ended before this could be done."))
            if envelope.reply_to is not None:  # A caller waits for this actor to stop.
                envelope.reply_to.set(None)


def _budget(limits: AgentLimits) -> Budget | None:
    if limits.budget_tokens is None and limits.budget_turns is None and limits.budget_usd is None:
        return None
    return Budget(
        hours=limits.budget_hours, tokens=limits.budget_tokens, turns=limits.budget_turns, usd=limits.budget_usd
    )


def _share(limits: AgentLimits) -> Share | None:
    asked = {key: getattr(limits, key) for key in SHARES}
    return None if set(asked.values()) == {None} else Share(**asked)
