"""Starts the broker's process, restarts it, hands it sockets and policies, and takes its reports."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
import pykka
import structlog

from hive.actors import mail
from hive.actors.dashboard import PASSED_ENVIRONMENT
from hive.actors.file_watch import FileWatch
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.model_use import RECORD_EVERY_MS, ModelUse
from hive.actors.policies import Policies
from hive.actors.provision import BUILD_SLOT, Provisioner
from hive.actors.recent_tries import RecentTries
from hive.broker import wire
from hive.clock import Clock, DurationMs
from hive.deciders.budgets import budget_refusal
from hive.deciders.egress import ReportTry
from hive.errors import HiveError
from hive.events.agents import (
    AgentAdded,
    BudgetFreed,
    BudgetReached,
    BudgetSet,
    Destroyed,
    Resumed,
    Revived,
    Started,
)
from hive.events.base import actor
from hive.events.egress import EgressAllowed, EgressDenied, EgressRevoked, PricesSet
from hive.events.erasing import ErasureFinished
from hive.events.turns import TurnEnded
from hive.names import AgentName
from hive.runtimes import unix_socket
from hive.runtimes.network import NET_SOCKET_NAME

log = structlog.get_logger()

BY = actor("broker")
BACKLOG: Final = 4_096
RESTART_FIRST_MS: Final[DurationMs] = 50
RESTART_MAX_MS: Final[DurationMs] = 10_000
STABLE_MS: Final[DurationMs] = 60_000
"""After a run of this length the next restart is quick again."""
STOP_TIMEOUT_S: Final = 5.0
SEND_TIMEOUT: Final = struct.pack("ll", 10, 0)
"""struct timeval: a broker that reads nothing for so many seconds hangs."""
BROKER_ENVIRONMENT: Final = (*PASSED_ENVIRONMENT, "SSL_CERT_FILE", "SSL_CERT_DIR", "RES_OPTIONS", "LOCALDOMAIN")


RULE_EVENTS: Final = (EgressAllowed, EgressDenied, EgressRevoked)
AGENT_EVENTS: Final = (Started, BudgetSet, BudgetReached, BudgetFreed, Resumed)
"""They may change the policy of their agent."""
LISTENS: Final = (AgentAdded, Revived, Destroyed, TurnEnded, PricesSet, ErasureFinished, *RULE_EVENTS, *AGENT_EVENTS)


class _Reported(msgspec.Struct, frozen=True):
    """From the thread that reads: what the broker of this run said."""

    messages: list[wire.FromBroker]


class _Ended(msgspec.Struct, frozen=True):
    """From the thread that reads: this run of the broker is over."""

    process: Any


class _PolicyDue(msgspec.Struct, frozen=True):
    """From the clock: a rule of this agent has ended."""

    agent: AgentName


Message = (
    AgentAdded
    | Revived
    | Destroyed
    | TurnEnded
    | PricesSet
    | ErasureFinished
    | EgressAllowed
    | EgressDenied
    | EgressRevoked
    | Started
    | BudgetSet
    | BudgetReached
    | BudgetFreed
    | Resumed
    | _Reported
    | _Ended
    | _PolicyDue
    | Literal["start", "record"]
)


class BrokerProcess(pykka.ThreadingActor):
    """Keeps one broker running.

    A crash loses what was metered and not recorded yet, at most a minute of it: the next one binds the sockets anew,
    and the process ends with the channel to it.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        provisioner: Provisioner,
        policies: Policies,
        clock: Clock,
        uid: int | None,
        reload_settings: Callable[[], None],
        tries: RecentTries,
    ):
        super().__init__()
        self._journal = journal
        self._provisioner = provisioner
        self._paths = provisioner.paths
        self._policies = policies
        self._clock = clock
        self._uid = uid
        self._reload = reload_settings
        self._tries = tries
        self._use = ModelUse()
        self._cancel_record: Callable[[], None] = lambda: None
        self._cancel_due: dict[AgentName, Callable[[], None]] = {}
        self._files = FileWatch()
        self._watched: tuple[str, ...] = ()
        self._sockets: dict[AgentName, list[socket.socket]] = {}
        self._sent: dict[AgentName, wire.Policy] = {}
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_ms = 0
        self._pause_ms = RESTART_FIRST_MS
        self._cancel_start: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        for row in self._journal.read(lambda hive: hive.agents.living()):
            self._bind(row.name, row.slot)
        self._start()
        self._record_later()

    def on_receive(self, message: Message) -> None:
        match message:
            case AgentAdded(agent=name, slot=slot):
                self._add(name, slot)
            case Revived(agent=name):
                self._add(name, self._journal.read(lambda hive: hive.agents.all[name].slot))
            case Destroyed(agent=name):
                self._remove(name)
            case TurnEnded(agent=name):
                self._record(name)
            case PricesSet() | ErasureFinished() | EgressAllowed() | EgressDenied() | EgressRevoked():
                self._send_policies(getattr(message, "agent", None))
            case Started() | BudgetSet() | BudgetReached() | BudgetFreed() | Resumed() | _PolicyDue():
                self._send_policy(message.agent)
            case "record":
                self._record()
                self._record_later()
            case _Reported(messages=messages):
                for one in messages:
                    self._take(one)
            case _Ended(process=process):
                if process is self._process:
                    self._start_later()
            case "start":
                self._start()

    def on_stop(self) -> None:
        self._close()

    def on_failure(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._record()
        for cancel in (self._cancel_start, self._cancel_record, *self._cancel_due.values()):
            cancel()
        self._files.close()
        for name in list(self._sockets):
            self._unbind(name)
        process, self._process = self._process, None
        self._hang_up()
        if process is not None:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()

    # Sockets

    def _bind(self, name: AgentName, slot: int) -> None:
        """One socket for the agent, one for its build commands. An agent without them has no network, and runs."""
        made = self._sockets.setdefault(name, [])
        for path, user in (
            (self._paths.agent_net_socket(name), slot),
            (self._paths.build_run(name) / NET_SOCKET_NAME, BUILD_SLOT),
        ):
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=unix_socket.FOLDER_MODE)
                one = unix_socket.bound(path, self._provisioner.socket_group(path.parent, user))
                one.listen(BACKLOG)
            except OSError as error:
                log.error("broker.no_socket", agent=name, path=str(path), error=str(error))  # noqa: TRY400
            else:
                made.append(one)

    def _unbind(self, name: AgentName) -> None:
        for one in self._sockets.pop(name, ()):
            one.close()
        for path in (self._paths.agent_net_socket(name), self._paths.build_run(name) / NET_SOCKET_NAME):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _add(self, name: AgentName, slot: int) -> None:
        if name not in self._sockets:
            self._bind(name, slot)
            self._introduce(name)

    def _remove(self, name: AgentName) -> None:
        self._unbind(name)
        self._sent.pop(name, None)
        self._tries.forget(name)
        self._send(wire.Forget(agent=name))

    # The process

    def _start(self) -> None:
        self._started_ms = self._clock.now_ms()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_TIMEOUT)
        options = [] if self._uid is None else [f"--uid={self._uid}"]
        environment = {name: os.environ[name] for name in BROKER_ENVIRONMENT if name in os.environ}
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hive.broker", f"--fd={theirs.fileno()}", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            log.error("broker.cannot_start", error=str(error))  # noqa: TRY400
            ours.close()
            self._start_later()
            return
        finally:
            theirs.close()
        self._process, self._channel = process, ours
        threading.Thread(target=self._read, args=(process, ours.dup()), name="broker-read", daemon=True).start()
        self._sent.clear()
        self._watched = ()
        self._watch()
        for name in list(self._sockets):
            self._introduce(name)

    def _read(self, process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
        reader = wire.FromBrokerReader(channel)
        with channel:
            while (messages := reader.read()) is not None:
                mail.tell(self.actor_ref, _Reported(messages))
        process.wait()
        mail.tell(self.actor_ref, _Ended(process))

    def _start_later(self) -> None:
        code = None if self._process is None else self._process.returncode
        self._hang_up()
        self._process = None
        now = self._clock.now_ms()
        if now - self._started_ms >= STABLE_MS:
            self._pause_ms = RESTART_FIRST_MS
        log.warning("broker.ended", exit_code=code, again_in_ms=self._pause_ms)
        self._cancel_start = self._clock.call_at(now + self._pause_ms, lambda: mail.tell(self.actor_ref, "start"))
        self._pause_ms = min(self._pause_ms * 2, RESTART_MAX_MS)

    def _hang_up(self) -> None:
        if self._channel is not None:
            # The reading thread has a descriptor of its own, so closing alone would not end the channel.
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel.close()
            self._channel = None

    def _send(self, message: wire.ToBroker, beside: wire.HasDescriptor | None = None) -> None:
        if self._channel is None:
            return
        try:
            wire.send(self._channel, message, beside)
        except OSError as error:
            # It has ended, or does not read. The reading thread reports its end, and another gets every policy.
            log.warning("broker.not_reached", error=str(error))
            if self._process is not None:
                self._process.kill()

    # Policies

    def _introduce(self, name: AgentName) -> None:
        """The policy first: a socket without one serves nothing."""
        self._send_policy(name)
        for one in self._sockets.get(name, ()):
            self._send(wire.Listen(agent=name), one)

    def _send_policies(self, agent: AgentName | None = None) -> None:
        """Of one agent or of all."""
        for name in list(self._sockets) if agent is None else [agent]:
            self._send_policy(name)

    def _watch(self) -> None:
        """Have the broker hear of changes of hive.toml and of files with secrets, before policies are made of them."""
        files = self._policies.files()
        self._files.add({file.parent for file in files})
        names = tuple(sorted({file.name for file in files}))
        if names != self._watched and self._files.works:
            self._watched = names
            self._send(wire.Watch(names=names), self._files)

    def _take_over(self, number: int) -> None:
        """Files have changed: make every policy of what they hold now, then let the requests that wait go on."""
        self._reload()
        self._watch()
        self._send_policies()
        self._send(wire.Settled(number=number))

    def _send_policy(self, name: AgentName) -> None:
        if name not in self._sockets:
            return
        try:
            policy, until = self._policies.of(name, self._clock.now_ms(), self._use.of(name))
        except HiveError as error:
            log.error("broker.no_policy", agent=name, error=str(error))  # noqa: TRY400
            return
        if self._sent.get(name) != policy:
            self._sent[name] = policy
            self._send(policy)
        self._cancel_due.pop(name, lambda: None)()
        if until is not None:
            self._cancel_due[name] = self._clock.call_at(until, lambda: mail.tell(self.actor_ref, _PolicyDue(name)))

    # Reports

    def _take(self, message: wire.FromBroker) -> None:
        match message:
            case wire.Tries(agent=name, tries=tries):
                self._tries.note(name, tries)
            case wire.Asked(agent=name, host=host, port=port):
                self._journal.tell(ReportTry(by=BY, agent=name, host=host, port=port))
            case wire.Changed(number=number):
                self._take_over(number)
            case wire.Used(agent=name):
                self._use.add(message)
                self._stop_if_used_up(name)

    def _stop_if_used_up(self, name: AgentName) -> None:
        """Refuse the next request of a turn under way, and record what exhausted the budget."""
        pending, now = self._use.of(name), self._clock.now_ms()
        if self._journal.read(lambda hive: budget_refusal(hive, name, now, pending)) is not None:
            self._send_policy(name)
            self._record(name)

    def _record(self, name: AgentName | None = None) -> None:
        for command in self._use.take(BY, name):
            with contextlib.suppress(pykka.ActorDeadError):
                self._journal.tell(command)

    def _record_later(self) -> None:
        at = self._clock.now_ms() + RECORD_EVERY_MS
        self._cancel_record = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, "record"))
