"""Deploys approved configuration changes: tag, build, wait for the turn to end, restart. Resumes after a crash."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec
import pykka
import structlog

from hive.actors.agent import Do, Ticket
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.provision import Provisioner
from hive.actors.transient_guard import TransientGuard
from hive.clock import MS_PER_S, Clock, duration_text
from hive.config.migration import migrate, needs_migration
from hive.config.proposals import Kind, Proposals
from hive.deciders.approvals import FailRequest
from hive.deciders.lifecycle import RecordRebuilt
from hive.deciders.record import Warn
from hive.errors import HiveError, NotFound, Refused, Unavailable
from hive.events.agents import Destroyed, Spawned
from hive.events.approvals import ApprovalFailed, ApprovalResolved, ProposalPinned
from hive.events.base import ApprovalId, actor
from hive.names import AgentName
from hive.projections.approvals import Approval
from hive.projections.turns import Current

log = structlog.get_logger()

TURN_WAIT_S = 120.0
"""How long a deploy waits for the turn to end. Then it interrupts the turn, and the messages are requeued."""
HELLO_WAIT_S = 20.0
"""How long to wait for the new harness to connect. A harness that still runs after that counts as slow, not failed."""
LOOK_EVERY_S = 0.1
RESTART_TIMEOUT_S = 300.0
"""For the agent's actor to finish queued acts and restart the container."""
BY = actor("config_pipeline")
LOST = "The daemon restarted while it fetched the commit. Request it again."


class Watch(msgspec.Struct, frozen=True):
    """Message: settle the ticket when this approval is deployed or has failed."""

    id: ApprovalId
    ticket: Ticket


class _Finished(msgspec.Struct, frozen=True):
    """To itself, from a deploy's thread: the approval is finished."""

    row: Approval
    error: HiveError | None


class _GoingDown(Exception):
    """The daemon stops during a deploy. The next daemon continues it."""


LISTENS = (ApprovalResolved, ApprovalFailed, ProposalPinned, Spawned, Destroyed)
Message = ApprovalResolved | ApprovalFailed | ProposalPinned | Spawned | Destroyed | Watch | _Finished


class ConfigPipeline(pykka.ThreadingActor):
    """Runs one deploy at a time per agent, each on its own thread, so that a long build delays no other agent.

    A crash loses nothing: the next actor finds approvals that are not deployed. Their git tags record the progress.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        clock: Clock,
        provisioner: Provisioner,
        proposals: Proposals,
        to_supervisor: Callable[[Do], bool],
        applied_changed: Callable[[AgentName], None],
    ):
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._provisioner = provisioner
        self._repositories = provisioner.repositories
        self._proposals = proposals
        self._to_supervisor = to_supervisor
        self._applied_changed = applied_changed
        self._waiting: dict[AgentName, deque[Approval]] = {}
        """Contains an agent while its deploy thread runs."""
        self._tickets: dict[ApprovalId, list[Ticket]] = {}

    def on_start(self) -> None:
        agents, under_way, unpinned, over = self._journal.read(
            lambda hive: (
                [row.name for row in hive.agents.living() if row.spawned],
                [row for row in hive.approvals.under_way() if row.kind == "apply_commit"],
                [row for row in hive.approvals.pending() if row.kind == "apply_commit" and row.fetched_sha is None],
                hive.approvals.over(),
            )
        )
        for row in unpinned:
            self._journal.ask(FailRequest(by=BY, id=row.id, error=LOST))
        for name in agents:
            self._sweep(name)
            self._mark_all_over(name, [row for row in over if row.agent == name])
            self._migrate(name)
        for row in under_way:
            self._begin(row)
        self._in_thread("all", lambda: self._pin_all(agents))

    def on_receive(self, message: Message) -> None:
        match message:
            case ApprovalResolved(kind="apply_commit", status="approved", id=id):
                self._with_row(id, self._begin)
            case ApprovalResolved(kind="apply_commit", id=id):
                self._settle(id, Refused(f"Approval {id} is {message.status}."))
                self._with_row(id, self._mark_over)
            case ApprovalResolved():
                pass  # The agent's actor handles a spawn.
            case ApprovalFailed(id=id, error=error):
                self._settle(id, Refused(error))
                self._with_row(id, self._mark_over)
            case ProposalPinned(agent=name):
                self._applied_changed(name)
            case Spawned(agent=name):
                self._in_thread(name, lambda: self._pin(name))
            case Destroyed(agent=name):
                self._in_thread(name, lambda: self._unpin(name))
            case Watch(id=id, ticket=ticket):
                self._watch(id, ticket)
            case _Finished(row=row, error=error):
                self._settle(row.id, error)
                self._applied_changed(row.agent)
                self._next(row.agent)

    # Deploys

    def _begin(self, row: Approval) -> None:
        queue = self._waiting.get(row.agent)
        if queue is not None:
            queue.append(row)
            return
        self._waiting[row.agent] = deque([row])
        self._next(row.agent)

    def _next(self, name: AgentName) -> None:
        queue = self._waiting[name]
        if queue:
            row = queue.popleft()
            self._in_thread(name, lambda: self._carry_out(row))
        else:
            del self._waiting[name]

    def _in_thread(self, name: str, work: Callable[[], object]) -> None:
        threading.Thread(target=work, name=f"config-{name}", daemon=True).start()

    def _carry_out(self, row: Approval) -> None:
        """Runs on its own thread. Every exit path finishes the approval."""
        error: HiveError | None = None
        try:
            with self._guard(row.agent):
                try:
                    self._deploy(row)
                except (HiveError, OSError):
                    self._take_back(row)
                    raise
        except (HiveError, OSError) as failure:
            error = failure if isinstance(failure, HiveError) else Unavailable(str(failure))
        except _GoingDown:
            log.info("config.deploy_left_to_the_next_daemon", agent=row.agent, approval=row.id)
            return
        except Exception as bug:  # Any failure must finish the approval.
            log.exception("config.deploy_crashed", agent=row.agent, approval=row.id)
            error = Unavailable(f"Internal error ({type(bug).__name__}). See the daemon's log.")
        if error is not None:
            self._fail(row, error)
        try:
            self.actor_ref.tell(_Finished(row, error))
        except pykka.ActorDeadError:
            log.warning("config.pipeline_gone", agent=row.agent, approval=row.id)

    def _deploy(self, row: Approval) -> None:
        name, id, sha = row.agent, row.id, row.fetched_sha
        assert sha is not None, "the rule approves only what is pinned"
        failed = self._proposals.tag_message(name, id, "failed")
        if failed is not None:
            raise Unavailable(failed)  # A crashed daemon recorded the failure in git but not in the log.
        if self._proposals.tagged(name, id, "deployed") != sha:
            self._proposals.check_pinned(name, id, sha)
            self._proposals.check_fresh(name, sha)
            self._proposals.tag(name, id, "approved", sha)
            self._proposals.tag(name, id, "building", sha)
            self._applied_changed(name)
            self._provisioner.build(name, sha)
            self._await_turn_boundary(name)
            self._proposals.check_pinned(name, id, sha)
            self._proposals.deploy(name, id, sha)
        self._restart(name, id, sha)
        self._pin(name)

    def _guard(self, name: AgentName) -> AbstractContextManager[None]:
        return TransientGuard.hold(self._journal, self._clock, name, "rebuilding", self.actor_ref, BY)

    def _await_turn_boundary(self, name: AgentName) -> None:
        """Wait for the current turn to end. A turn that starts right after it is interrupted and requeued."""
        turn = self._current_turn(name)
        deadline = time.monotonic() + TURN_WAIT_S
        while turn is not None and self._current_turn(name) == turn and time.monotonic() < deadline:
            self._sleep()

    def _current_turn(self, name: AgentName) -> Current | None:
        return self._journal.read(lambda hive: hive.turns.current.get(name))

    def _sleep(self) -> None:
        if not self.actor_ref.is_alive():
            raise _GoingDown
        time.sleep(LOOK_EVERY_S)

    def _restart(self, name: AgentName, id: ApprovalId, sha: str) -> None:
        """Ask the agent's actor for a restart, then wait for its harness to connect.

        Does not restart an agent that already runs this commit. Raises HiveError: the agent does not start.
        """
        row, over = self._journal.read(lambda hive: (hive.agents.living_one(name), id in _over(hive.approvals.over())))
        if row is None:
            raise NotFound(f"{name} was destroyed.")
        if row.revision != sha or not row.running or row.act is not None:
            ticket = Ticket()
            if not self._to_supervisor(Do(name, "rebuild", BY, ticket, approval_id=id)):
                raise _GoingDown
            try:
                ticket.result(RESTART_TIMEOUT_S)
            except TimeoutError as error:
                within = duration_text(RESTART_TIMEOUT_S * MS_PER_S)
                raise Unavailable(f"{name} was not restarted within {within}.") from error
            over = self._journal.read(lambda hive: id in _over(hive.approvals.over()))
        if not over:
            with self._guard(name):  # The restart's guard has cleared the outer one.
                self._await_hello(name)
                self._journal.ask(RecordRebuilt(by=BY, agent=name, ok=True, revision=sha, approval_id=id))

    def _await_hello(self, name: AgentName) -> None:
        """Wait until the harness connects or the agent is stopped. Raises Unavailable: the harness ended by itself."""
        deadline = time.monotonic() + HELLO_WAIT_S
        while time.monotonic() < deadline:
            row = self._journal.read(lambda hive: hive.agents.living_one(name))
            if row is None:
                raise NotFound(f"{name} was destroyed.")
            if row.crashes:  # The start of this deploy reset the count to 0.
                said = "" if row.last_line is None else f" ({row.last_line})"
                raise Unavailable(f"{name} does not start on it: {row.failure}{said}. See: hive logs {name}")
            if not row.running or row.hello == row.incarnation:
                return
            self._sleep()
        log.warning("config.harness_not_seen", agent=name, waited_s=HELLO_WAIT_S)

    def _take_back(self, row: Approval) -> None:
        """Roll back a commit that failed to start, and restart the agent on the previous one."""
        name = row.agent
        assert row.fetched_sha is not None, "the rule approves only what is pinned"
        try:
            if self._journal.read(lambda hive: hive.agents.living_one(name)) is None:
                return
            if not self._proposals.undo_deploy(name, row.id, row.fetched_sha):
                return
            self._applied_changed(name)
            ticket = Ticket()
            if self._to_supervisor(Do(name, "rebuild", BY, ticket)):
                ticket.result(RESTART_TIMEOUT_S)
        except (HiveError, OSError, TimeoutError) as error:
            log.warning("config.not_back_on_the_old", agent=name, approval=row.id, error=str(error))

    def _fail(self, row: Approval, error: HiveError) -> None:
        if row.fetched_sha is not None:
            self._mark(row, "failed", str(error))
        try:
            self._journal.ask(FailRequest(by=BY, id=row.id, error=str(error)))
        except HiveError as refusal:
            log.warning("config.failure_not_recorded", approval=row.id, error=str(refusal))

    # Git tags and waiting tickets

    def _mark_over(self, row: Approval) -> None:
        """Tag a finished approval. The log has the decision first; the next start adds a missing tag."""
        if row.kind != "apply_commit" or row.fetched_sha is None:
            return
        if row.status == "denied":
            self._mark(row, "denied", row.note or "denied without a note")
        elif row.status == "failed":
            self._mark(row, "failed", row.note or "failed")

    def _sweep(self, name: AgentName) -> None:
        try:
            self._provisioner.builder.sweep(name)
        except (HiveError, OSError) as error:
            log.warning("config.not_swept", agent=name, error=str(error))

    def _mark_all_over(self, name: AgentName, rows: list[Approval]) -> None:
        try:
            marked = self._proposals.all_tags(name)
        except (HiveError, OSError) as error:
            log.warning("config.tags_not_read", agent=name, error=str(error))
            return
        for row in rows:
            if (row.status, row.id) not in marked:
                self._mark_over(row)

    def _mark(self, row: Approval, kind: Kind, note: str) -> None:
        assert row.fetched_sha is not None
        try:
            if self._proposals.tagged(row.agent, row.id, kind) is None:
                self._proposals.tag(row.agent, row.id, kind, row.fetched_sha, note)
                self._applied_changed(row.agent)
        except (HiveError, OSError) as error:
            log.warning("config.not_tagged", agent=row.agent, kind=kind, approval=row.id, error=str(error))

    def _pin(self, name: AgentName) -> None:
        """Pin main in the meta flake. Best effort: the next deploy or start retries."""
        try:
            self._provisioner.builder.deployed(name, self._repositories.main(name))
        except (HiveError, OSError) as error:
            text = f"The meta flake does not pin {name}'s configuration: {error}"
            log.warning("config.not_pinned", agent=name, error=str(error))
            self._journal.tell(Warn(by=BY, source="config_pipeline", text=text))

    def _pin_all(self, names: list[AgentName]) -> None:
        for name in names:
            self._pin(name)

    def _unpin(self, name: AgentName) -> None:
        try:
            if self._journal.read(lambda hive: hive.agents.living_one(name)) is None:
                self._provisioner.builder.dropped(name)
        except (HiveError, OSError) as error:
            log.warning("config.not_unpinned", agent=name, error=str(error))

    def _migrate(self, name: AgentName) -> None:
        try:
            if not needs_migration(self._repositories, name):
                return
            with TransientGuard.hold(self._journal, self._clock, name, "migrating", self.actor_ref, BY):
                sha = migrate(self._repositories, name)
        except (HiveError, OSError) as error:
            log.warning("config.not_migrated", agent=name, error=str(error))
            return
        log.info("config.migrated", agent=name, sha=sha)
        self._applied_changed(name)

    def _watch(self, id: ApprovalId, ticket: Ticket) -> None:
        row = self._journal.read(lambda hive: hive.approvals.all.get(id))
        self._tickets.setdefault(id, []).append(ticket)
        if row is not None and row.carried_out:
            self._settle(id, Refused(row.note or "It failed.") if row.status == "failed" else None)

    def _settle(self, id: ApprovalId, error: HiveError | None) -> None:
        for ticket in self._tickets.pop(id, []):
            if error is None:
                ticket.set_result(None)
            else:
                ticket.set_exception(error)

    def _with_row(self, id: ApprovalId, work: Callable[[Approval], None]) -> None:
        """Skips a row that the projection has dropped: it keeps a limited number of finished approvals."""
        row = self._journal.read(lambda hive: hive.approvals.all.get(id))
        if row is not None:
            work(row)


def _over(rows: list[Approval]) -> set[ApprovalId]:
    return {row.id for row in rows}
