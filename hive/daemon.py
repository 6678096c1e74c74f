"""The daemon: creates its parts and starts them in order. Contains wiring only."""

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import blinker
import pykka
import structlog

import hive
from hive import lock, systemd
from hive import settings as host_settings
from hive.actors import mail, swarm_children, webhook
from hive.actors.agent import Agent
from hive.actors.anchoring import Anchoring, Anchors
from hive.actors.broker import LISTENS as BROKER_LISTENS
from hive.actors.broker import BrokerProcess
from hive.actors.budget_watch import BudgetWatch
from hive.actors.checkpointer import Checkpointer
from hive.actors.configuration import Configuration
from hive.actors.crash_watch import CrashWatch
from hive.actors.current_settings import CurrentSettings
from hive.actors.dashboard import DashboardProcess, Listener, bind_listener
from hive.actors.disk_watch import DiskWatch
from hive.actors.erasing import Erasing
from hive.actors.journal import Journal
from hive.actors.journal_clients import AsyncJournalClient, BlockingJournalClient
from hive.actors.malloc import give_memory_back
from hive.actors.manager import Manager
from hive.actors.policies import Policies
from hive.actors.provision import Provisioner
from hive.actors.question_watchdog import QuestionWatchdog
from hive.actors.rebuilding import Rebuilding
from hive.actors.recent_tries import RecentTries
from hive.actors.reminders import Reminders
from hive.actors.start_record import StartRecord
from hive.actors.supervisor import Begin, Child, GoDownAll, Supervisor
from hive.actors.swarm_link import SwarmLink, SwarmStatus
from hive.audit import carry_over
from hive.audit.anchor_check import refuse_truncated
from hive.audit.reading import translating_sqlite_errors
from hive.audit.system_journal import SystemJournal
from hive.clock import SystemClock
from hive.deciders.egress import SetPrices
from hive.deciders.record import Boot, Shut
from hive.errors import HiveError, Unavailable
from hive.events.agents import BudgetReached, Started
from hive.events.base import actor
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.reminders import ReminderDropped, ReminderSet
from hive.host_users import HostUsers, Reserved, reserved_users
from hive.names import MANAGER, AgentName
from hive.paths import Paths, make_folders
from hive.projections.table import Recorded
from hive.runtimes.choose import choose
from hive.runtimes.protocol import Runtime
from hive.settings import Settings
from hive.sockets.host_session import user_name
from hive.sockets.hub import Hub
from hive.sockets.room import Room
from hive.sockets.server import Sockets
from hive.sockets.services import Services
from hive.sockets.sessions import Sessions
from hive.sockets.shares import Shares
from hive.sockets.sign_in_log import SignInLog
from hive.sockets.swarm_verbs import draw
from hive.sockets.throttle_log import ThrottleLog

log = structlog.get_logger()

BY = actor("daemon")
Later = Callable[[], Coroutine[Any, Any, None]]
HOST_USERS_WITHIN_S = 2.0
"""For the processes of a daemon that was just killed to release its host users."""
LAST_REPLY_S = 0.05
"""Delay before the sockets close, so that the reply to `shutdown` is sent."""


def run(paths: Paths, runtime: str | None, listen: str | None, dashboard: bool, model_url: str | None) -> int:
    """Run until a signal or a shutdown request; returns the exit code.

    Raises:
        HiveError: the daemon cannot start. Nothing was changed.
    """
    _log_to_stderr()
    _raise_file_limit()
    give_memory_back()
    settings = CurrentSettings(paths.settings)
    kind = choose(runtime or settings.now.runtime.kind, settings.now.runtime.image_path(paths.state))
    address = listen or settings.now.dashboard.listen
    host_settings.check_listen(address, "--listen")
    if model_url is not None:
        host_settings.check_url(model_url, "--model-url")
    with contextlib.closing(HostUsers()) as users:
        users.reserve(*_host_users(settings.now, kind, dashboard), within_s=HOST_USERS_WITHIN_S)
        make_folders(paths.state, paths.run)
        with lock.held(paths.lock):
            if carry_over.is_due(paths):
                _carry_over(paths)
            if (damage := refuse_truncated(paths)) is not None:
                log.warning("anchors.damaged", error=damage)
            return asyncio.run(_Daemon(paths, settings, kind, address, dashboard, model_url, users).run())


def _host_users(settings: Settings, runtime: Runtime, dashboard: bool) -> list[Reserved]:
    """The host users of this daemon. Only a daemon of root has any of its own."""
    if os.geteuid() != 0:
        return []
    agents = Reserved("runtime.first_uid", settings.runtime.first_uid, reserved_users(runtime.ids_per_agent))
    helpers = [Reserved("dashboard.uid", settings.dashboard.uid)] if dashboard else []
    if runtime.kind == "process":
        return helpers
    return [*helpers, Reserved("broker.uid", settings.broker.uid), agents]


def _carry_over(paths: Paths) -> None:
    log.info("log.carrying_over", schema=carry_over.OLD_SCHEMA, file=str(paths.events))
    head = carry_over.carry_over(paths, SystemClock().now_ms(), lambda _: None)
    log.info("log.carried_over", events=head.seq, head=head.hash.hex(), old_file=str(paths.old_events))


class _Daemon:
    def __init__(
        self,
        paths: Paths,
        settings: CurrentSettings,
        runtime: Runtime,
        listen: str,
        dashboard: bool,
        model_url: str | None,
        users: HostUsers,
    ):
        self._paths = paths
        self._clock = SystemClock()
        self._settings = settings
        self._runtime = runtime
        self._listen = listen
        self._model_url = model_url
        self._tries = RecentTries()
        self._listener = self._bind_listener() if dashboard else None
        self._sessions = Sessions(paths.sessions, self._clock)
        configuration = self._configuration = Configuration(paths, self._now, self._runtime)
        self._provisioner = Provisioner(
            paths, self._now, configuration.repositories, configuration.builder, self._runtime, model_url, users
        )
        self._hub = Hub(self._clock)
        self._anchors = Anchors(paths, self._clock, SystemJournal())
        self._committed = blinker.Signal()
        self._swarm = SwarmStatus()
        self._journal: pykka.ActorRef[Any]
        self._ends = asyncio.Event()
        self._failure: str | None = None
        self._checkpointer: pykka.ActorRef[Any] | None = None
        self._supervisor: pykka.ActorRef[Any]
        self._supervised: concurrent.futures.Future[pykka.ActorRef[Any]] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop
        self._sockets: Sockets

    def _now(self) -> Settings:
        return self._settings.now

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ends.set)
        with translating_sqlite_errors(self._paths.events):
            journal = Journal.start(self._paths.state, self._clock, self._committed, self._wal_is_long)
        self._journal = journal
        try:
            await self._serve(journal, BlockingJournalClient(journal), AsyncJournalClient(journal, self._loop))
        finally:
            journal.stop()
            self._anchors.note(last=True)
        if self._failure is not None:
            print(f"hive: {self._failure} See the daemon's log. The state is safe.", file=sys.stderr)  # noqa: T201
        return 0 if self._failure is None else 1

    async def _serve(
        self, journal: "pykka.ActorRef[Any]", threads: BlockingJournalClient, client: AsyncJournalClient
    ) -> None:
        start = StartRecord(client, Boot(by=BY, hive_version=hive.__version__, runtime=self._runtime.kind), self._paths)
        await start.record()
        was_low = await client.read(lambda state: state.disk.is_low is not None)
        settings, now = self._settings.now.swarm, self._clock.now_ms()
        await client.read(lambda state: self._swarm.hold_agents(state, settings, now))
        for slot in await client.read(lambda state: [row.slot for row in state.agents.living()]):
            self._provisioner.reserve_uid(slot)
        self._settings.on_change = lambda now: threads.tell(SetPrices(by=BY, prices=now.prices))
        self._settings.on_change(self._settings.now)
        self._supervisor = Supervisor.start(
            journal,
            self._children(threads),
            threads,
            lambda name: self._start_agent(name, threads),
            self._clock,
            self._give_up,
            self._committed,
            is_held=start.waits,
        )
        self._supervised.set_result(self._supervisor)
        rebuilding = Rebuilding(client, self._paths.state)
        configuration = self._configuration
        then = (self._hub.forget_live_lines, configuration.proposals, configuration.applied_changed, self._swarm)
        erasing = Erasing(client, rebuilding, self._paths, self._clock, *then)
        refusals = ThrottleLog(client)
        services = Services(
            paths=self._paths,
            clock=self._clock,
            journal=client,
            rebuilding=rebuilding,
            erasing=erasing,
            hub=self._hub,
            shares=Shares(lambda: self._now().limits, refusals.report, time.monotonic),
            room=Room(self._paths.state, lambda: self._now().limits.free_mb, refusals.disk, time.monotonic, was_low),
            waits_for_room=lambda: start.waits,
            supervisor=self._supervisor,
            provisioner=self._provisioner,
            proposals=self._configuration.proposals,
            watch=self._configuration.watch,
            mirror_status=self._configuration.mirror.now,
            swarm=self._swarm,
            blocking_journal=threads,
            settings=self._now,
            tries=self._tries,
            sessions=self._sessions,
            sign_ins=SignInLog(client),
            dashboard_group=self._settings.now.dashboard.uid if os.geteuid() == 0 else None,
            dashboard_url=self._dashboard_url,
            shut_down=lambda keep: self._shut_down(client, keep),
        )
        self._sockets = Sockets(services)
        later: list[Later] = [erasing.resume, services.room.watch]
        if start.waits:
            later.append(lambda: start.record_later(lambda: mail.tell(self._supervisor, Begin())))
        await self._serve_clients(client, later)

    async def _serve_clients(self, client: AsyncJournalClient, later: list[Later]) -> None:
        """Until the daemon is to end. `later` runs meanwhile."""
        self._committed.connect(self._on_committed)
        try:
            await self._sockets.open()
            tasks = [asyncio.create_task(one()) for one in later]
            gc.freeze()  # The loaded state is permanent: without this, a full collection stops the loop for 40 ms.
            self._say_ready()
            await self._offer_link(client)
            await self._ends.wait()
            for task in tasks:
                task.cancel()
        finally:
            self._sockets.close()
            await asyncio.to_thread(self._supervisor.stop)

    def _start_agent(self, name: AgentName, client: BlockingJournalClient) -> "pykka.ActorRef[Any]":
        kind = Manager if name == MANAGER else Agent
        return kind.start(name, client, self._provisioner, self._clock, self._swarm.gate)

    def _shown(self) -> Any:
        from hive.swarm.link import Shown

        return Shown(draw, self._configuration.proposals)

    def _children(self, client: BlockingJournalClient) -> list[Child]:
        clock = self._clock

        def crash_watch() -> "pykka.ActorRef[Any]":
            return CrashWatch.start(
                client,
                self._provisioner,
                clock,
                self._hub.presence.last_seen,
                lambda ended: mail.tell(self._supervisor, ended),
                self._settings.reload,
            )

        def checkpointer() -> "pykka.ActorRef[Any]":
            self._checkpointer = Checkpointer.start(self._paths.state)
            return self._checkpointer

        def broker() -> "pykka.ActorRef[Any]":
            uid = self._settings.now.broker.uid if os.geteuid() == 0 else None
            repositories = self._configuration.repositories
            policies = Policies(self._paths, self._now, repositories, client, self._model_url)
            return BrokerProcess.start(
                client, self._provisioner, policies, clock, uid, self._settings.reload, self._tries
            )

        has_broker = self._runtime.kind != "process"
        brokers = [Child("broker", broker, listens=BROKER_LISTENS)] if has_broker else []

        def swarm_link() -> "pykka.ActorRef[Any]":
            args = (self._journal, client, clock, self._paths, self._now, self._committed, self._shown, self._swarm)
            return SwarmLink.start(*args)

        listener = self._listener
        page = Child("dashboard", lambda: DashboardProcess.start(listener, clock), writes=False)
        return [
            Child("checkpointer", checkpointer),
            *brokers,
            Child("anchoring", lambda: Anchoring.start(self._anchors, clock)),
            Child(
                "question watchdog",
                lambda: QuestionWatchdog.start(client, clock),
                listens=(QuestionAdded, QuestionResolved),
            ),
            Child("budget watch", lambda: BudgetWatch.start(client, clock), listens=(BudgetReached,)),
            Child("disk watch", lambda: DiskWatch.start(client, clock, self._paths, self._provisioner.quota_project)),
            Child("reminders", lambda: Reminders.start(client, clock), listens=(ReminderSet, ReminderDropped)),
            *self._configuration.children(
                client, clock, self._provisioner, lambda message: mail.tell(self._supervised.result(), message)
            ),
            Child("crash watch", crash_watch, listens=(Started,)),
            Child(
                "webhook",
                lambda: webhook.Webhook.start(client, clock, self._now, self._dashboard_url),
                listens=webhook.LISTENS,
            ),
            *swarm_children.children(
                swarm_link,
                client,
                clock,
                self._paths,
                self._swarm,
                lambda message: mail.tell(self._supervised.result(), message),
            ),
            *([] if listener is None else [page]),
        ]

    def _on_committed(self, _journal: object, batch: list[Recorded]) -> None:
        """Receiver of the journal's signal. Runs on a thread of the journal."""
        with contextlib.suppress(RuntimeError):  # The loop is closed, so no client is connected.
            self._loop.call_soon_threadsafe(self._after_commit, batch)

    def _after_commit(self, batch: list[Recorded]) -> None:
        self._hub.on_committed(batch)
        self._sockets.on_committed(batch)

    def _wal_is_long(self) -> None:
        if self._checkpointer is not None:
            mail.tell(self._checkpointer, "wal_is_long")

    async def _shut_down(self, client: AsyncJournalClient, keep_agents: bool) -> None:
        if not keep_agents:
            tickets = await asyncio.to_thread(self._supervisor.ask, GoDownAll())
            for ended in await asyncio.gather(*map(asyncio.wrap_future, tickets), return_exceptions=True):
                if isinstance(ended, Unavailable):
                    raise Unavailable(f"{ended} Agents may run; `hive down --keep-agents` stops only the daemon.")
                if isinstance(ended, HiveError):
                    log.warning("daemon.agent_not_stopped", error=str(ended))
        try:
            await client.ask(Shut(by=BY, keep_agents=keep_agents))
        except Unavailable as error:  # Then the log shows the end as it shows one by a signal: at the next start.
            log.warning("daemon.end_not_recorded", error=str(error))
        self._loop.call_later(LAST_REPLY_S, self._ends.set)

    def _dashboard_url(self) -> str | None:
        return None if self._listener is None else self._listener.url

    def _bind_listener(self) -> Listener | None:
        try:
            return bind_listener(self._settings.now, self._listen, self._paths.dashboard_run)
        except Unavailable as error:
            print(f"hive: {error} The daemon runs without it.", file=sys.stderr)  # noqa: T201
            return None

    async def _offer_link(self, client: AsyncJournalClient) -> None:
        """Print a sign-in link on the first start, to a terminal only: the link is a credential, and logs are kept."""
        if self._listener is None or not sys.stdout.isatty():
            return
        if not await client.read(lambda state: any(row.revoked_ms is None for row in state.operators.all)):
            secret = self._sessions.new_link(user_name(os.geteuid()))
            print(f"Sign in within ten minutes (the link works once): {self._listener.url}/login#{secret}", flush=True)  # noqa: T201

    def _give_up(self, why: str) -> None:
        log.error("daemon.gives_up", why=why)
        self._failure = why
        self._loop.call_soon_threadsafe(self._ends.set)

    def _say_ready(self) -> None:
        where = "" if self._listener is None else f" dashboard={self._listener.url}"
        folders = f"state={self._paths.state} run={self._paths.run}"
        print(f"hive ready {folders} runtime={self._runtime.kind}{where}", flush=True)  # noqa: T201
        systemd.notify_ready()


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _raise_file_limit() -> None:
    """Each open connection needs a file descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
