"""Starts the dashboard's process and restarts it. Binds its address first, while the daemon has the privilege."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
import pykka
import structlog

from hive.actors import mail
from hive.clock import Clock, DurationMs
from hive.errors import Unavailable
from hive.settings import Settings, check_listen

log = structlog.get_logger()

BACKLOG: Final = 128
RESTART_FIRST_MS: Final[DurationMs] = 500
RESTART_MAX_MS: Final[DurationMs] = 30_000
STABLE_MS: Final[DurationMs] = 60_000
"""After a run of this length the restart delay is reset."""
STOP_TIMEOUT_S: Final = 5.0
PASSED_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
"""The variables that the dashboard inherits. Others may hold keys, which it does not need."""


class Listener(msgspec.Struct, frozen=True):
    """The dashboard's listening socket, bound by the daemon, so that a restart of the dashboard loses no connection."""

    listener: socket.socket
    folder: Path
    """Holds the dashboard's socket to the daemon."""
    url: str
    """The public address."""
    domain: str | None
    uid: int | None
    """Under root, the host user of the process."""
    agents_from_uid: int | None
    """Under root, the first uid of agents. The dashboard refuses connections from these uids."""

    def command(self) -> list[str]:
        """The command line of the process."""
        given = {"folder": self.folder, "domain": self.domain, "uid": self.uid, "agents-from-uid": self.agents_from_uid}
        options = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return [sys.executable, "-P", "-m", "hive.dashboard", f"--fd={self.listener.fileno()}", *options]


def bind_listener(settings: Settings, listen: str, folder: Path) -> Listener:
    """Bind the dashboard's address.

    Raises:
        Unavailable: the address is in use or not an address of this host.
    """
    host, port = check_listen(listen, "--listen")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        raise Unavailable(
            f"The dashboard cannot listen on {listen}: {error.strerror}. Choose another with --listen."
        ) from error
    port = listener.getsockname()[1]
    domain, is_root = settings.dashboard.domain, os.geteuid() == 0
    shown = f"[{host}]" if ":" in host else host
    return Listener(
        listener=listener,
        folder=folder,
        url=f"http://{shown}:{port}" if domain is None else f"https://{domain}",
        domain=domain,
        uid=settings.dashboard.uid if is_root else None,
        agents_from_uid=settings.runtime.first_uid if is_root else None,
    )


class DashboardProcess(pykka.ThreadingActor):
    """Keeps one dashboard process running.

    A crash loses nothing: the process ends with its stdin pipe, and the next actor starts another.
    """

    use_daemon_thread = True

    def __init__(self, listener: Listener, clock: Clock):
        super().__init__()
        self._listener = listener
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_ms = 0
        self._pause_ms = RESTART_FIRST_MS
        self._cancel_start: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        self._start()

    def on_receive(self, message: Literal["ended", "start"]) -> None:
        match message:
            case "start":
                self._start()
            case "ended":
                self._start_later()

    def on_stop(self) -> None:
        self._cancel_start()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _start(self) -> None:
        self._started_ms = self._clock.now_ms()
        environment = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                self._listener.command(),
                stdin=subprocess.PIPE,  # The dashboard ends when this pipe closes, also when the daemon is killed.
                stdout=subprocess.DEVNULL,
                env=environment,
                pass_fds=(self._listener.listener.fileno(),),
            )
        except OSError as error:
            log.error("dashboard.cannot_start", error=str(error))  # noqa: TRY400
            self._start_later()
            return
        threading.Thread(target=self._wait, args=(self._process,), name="dashboard-wait", daemon=True).start()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        mail.tell(self.actor_ref, "ended")

    def _start_later(self) -> None:
        code = None if self._process is None else self._process.returncode
        now = self._clock.now_ms()
        if now - self._started_ms >= STABLE_MS:
            self._pause_ms = RESTART_FIRST_MS
        log.warning("dashboard.ended", exit_code=code, again_in_ms=self._pause_ms)
        self._cancel_start = self._clock.call_at(now + self._pause_ms, lambda: mail.tell(self.actor_ref, "start"))
        self._pause_ms = min(self._pause_ms * 2, RESTART_MAX_MS)
