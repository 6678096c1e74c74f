"""A real hive for the system tests: `hive up` as a process, socket clients, log access and cleanup."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import nixos_stand_in
import os_image

from hive import lock
from hive.audit.check import check
from hive.audit.replay import state_at
from hive.events.log import LogReader, Row, verify
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.runtimes import ownership
from hive.runtimes.protocol import Running
from hive.runtimes.record import Record
from hive.sockets.client import HostClient, connect

from .host_users import TestUsers

DEADLINE_S = 60.0
"""Generous; only a defect takes this long."""
STEP_S = 0.01
REPLY_S = 60.0
NO_MODEL = "http://127.0.0.1:9"
"""The discard port. Agents need no login, and no turn succeeds."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str, *, within_s: float = DEADLINE_S) -> Found:
    """Call `look` until it returns a true value, and return that value."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(STEP_S)
    return found


class Lines:
    """A connection to a hive socket: sends raw bytes, receives one decoded line per request."""

    def __init__(self, path: Path) -> None:
        self.socket = connect(path)
        self.socket.settimeout(REPLY_S)
        self._unread = b""

    def say(self, cmd: str, /, **fields: Any) -> dict[str, Any]:
        """Send a request; return the reply, also a refusal."""
        self.send(cmd, **fields)
        return self.reply()

    def ask(self, cmd: str, /, **fields: Any) -> dict[str, Any]:
        """Send a request that must succeed."""
        reply = self.say(cmd, **fields)
        assert reply["ok"] is True, (cmd, reply)
        return reply

    def send(self, cmd: str, /, **fields: Any) -> None:
        self.socket.sendall(msgspec.json.encode({"cmd": cmd, **fields}) + b"\n")

    def reply(self) -> dict[str, Any]:
        """Raises EOFError: the daemon closed the connection."""
        reply: dict[str, Any] = msgspec.json.decode(self.line())
        return reply

    def line(self) -> bytes:
        """The next line without its newline. Raises EOFError: the daemon closed the connection."""
        while b"\n" not in self._unread:
            more = self.socket.recv(1 << 16)
            if not more:
                raise EOFError
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HiveProcess:
    """A hive in its own folders. `close` ends the daemon and all processes that it started."""

    def __init__(
        self,
        *,
        runtime: str = "process",
        model_url: str | None = NO_MODEL,
        python: str = sys.executable,
        user: int | None = None,
        dashboard: bool = False,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """`user`: the user of the daemon, if root starts it. `python`: an interpreter that this user may run.

        `dashboard`: runs on a free port; see `url`. `limits`: the `[limits]` of its hive.toml.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="hive-")).resolve()
        if user is not None:
            os.chown(self.folder, user, user)
        self._python, self._user = python, user
        self.paths = Paths(self.folder / "state", self.folder / "run")
        self.output = self.folder / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.users = TestUsers()
        self.ready = ""
        """The daemon's `hive ready` line."""
        self._runtime = runtime
        self._model_url = model_url
        if runtime in ("nspawn", "nixos"):
            settings = os_image.settings() if runtime == "nspawn" else nixos_stand_in.settings()
            self.paths.state.mkdir(parents=True)
            self.paths.settings.write_text(settings)
        if limits is not None:
            self.paths.state.mkdir(exist_ok=True)
            with self.paths.settings.open("a") as file:
                file.write("\n".join(["[limits]", *(f"{key} = {value}" for key, value in limits.items()), ""]))
        self.before: list[str] = []
        """Put in front of each command: enters the network namespace of a test."""
        self.program = ["-m", "hive"]
        """How the interpreter finds the next daemon."""
        self.listen: str | None = "127.0.0.1:0" if dashboard else None
        """The dashboard's port of the next daemon; None: no dashboard."""

    # The daemon

    def up(self) -> "HiveProcess":
        """Start the daemon and wait until it is ready. The first start also waits for the manager."""
        assert self.daemon is None or self.daemon.poll() is not None
        is_new = not self.paths.events.exists()
        if self._user is None and (self._runtime != "process" or self.listen is not None):
            self.users.write_into(self.paths.settings)
        front = ["--no-dashboard"] if self.listen is None else ["--listen", self.listen]
        command = [*self.before, self._python, *self.program, "up", "--runtime", self._runtime, *front]
        command += [] if self._model_url is None else ["--model-url", self._model_url]
        with self.output.open("ab") as log:
            self.daemon = subprocess.Popen(
                command,
                env=self.environment(),
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        assert self.daemon.stdout is not None
        came, _, _ = select.select([self.daemon.stdout], [], [], DEADLINE_S)
        assert came, f"not ready within {DEADLINE_S} s"
        self.ready = self.daemon.stdout.readline().decode()
        assert self.ready.startswith("hive ready "), self.output.read_text()
        if is_new:
            self.becomes_whole()  # A new hive spawns its manager in the background.
        return self

    def runs_with(self, python: str) -> None:
        """Use this interpreter for the next daemon."""
        self._python = python

    @property
    def url(self) -> str:
        """The address of the dashboard."""
        return self.ready.rpartition(" dashboard=")[2].strip()

    def kill(self) -> None:
        """Kill the daemon with SIGKILL."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()
        assert self.daemon.stdout is not None
        self.daemon.stdout.close()

    def down(self, *options: str) -> None:
        self.run("down", *options)
        self.await_end()

    def await_end(self) -> None:
        """Wait for the daemon to end with exit code 0."""
        assert self.daemon is not None
        assert self.daemon.wait(DEADLINE_S) == 0, self.output.read_text()

    @property
    def alive(self) -> bool:
        return self.daemon is not None and self.daemon.poll() is None

    def environment(self) -> dict[str, str]:
        named = {"HIVE_STATE": str(self.paths.state), "HIVE_RUN": str(self.paths.run), "LC_ALL": "C.UTF-8"}
        return {**{key: value for key, value in os.environ.items() if not key.startswith("ANTHROPIC_")}, **named}

    # Asking

    def try_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `hive ARGUMENTS…`; any exit code."""
        command = [*self.before, sys.executable, "-m", "hive", *arguments]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )

    def run(self, *arguments: str) -> str:
        """Run `hive ARGUMENTS…`, which must succeed; returns its output."""
        done = self.try_run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def run_python(self, code: str, *arguments: str) -> int:
        """Run code in a new interpreter; returns its exit code."""
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=self.environment(), timeout=DEADLINE_S, check=False).returncode

    def data(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def ask(self, cmd: str, /, **fields: Any) -> dict[str, Any]:
        """Send a request to the host socket. Raises the client's errors."""
        with HostClient(self.paths.host_socket, reply_timeout_s=REPLY_S) as client:
            return client.ask(cmd, **fields)

    def host(self) -> Lines:
        return Lines(self.paths.host_socket)

    def agent(self, name: str) -> Lines:
        """Connect to an agent's socket, as the agent's process does."""
        return Lines(self.paths.agent_socket(name))

    def spawn(self, *names: str, paused: bool = True) -> None:
        """Spawn agents. Paused ones take no turns."""
        for name in names:
            self.ask("spawn", name=name)
            self.ask("set_paused", name=name, paused=paused)

    def row(self, name: str) -> dict[str, Any]:
        """The agent's row in the daemon's state."""
        rows = {row["name"]: row for row in self.ask("state")["state"]["agents"]}
        row: dict[str, Any] = rows[name]
        return row

    def configure(self, name: str, text: str) -> None:
        """Commit an agent.toml to `applied`, for the agent's next start."""
        git_dir = self.paths.applied(name) / ".git"

        def git(*arguments: str, given: str = "", **more: str) -> str:
            command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", f"--git-dir={git_dir}", *arguments]
            environment = {**os.environ, **more}
            done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=True)
            return done.stdout.strip()

        index = {"GIT_INDEX_FILE": str(self.folder / "index")}
        blob = git("hash-object", "-w", "--stdin", given=text)
        git("read-tree", "main", **index)
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},agent.toml", **index)
        commit = git("commit-tree", git("write-tree", **index), "-p", "main", "-m", "For a test")
        git("update-ref", "refs/heads/main", commit)

    # The log

    def reader(self) -> LogReader:
        return LogReader(self.paths.state, daemon_runs=lock.is_held(self.paths.lock))

    def events(self, *types: str, first: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Events with `seq`, `at`, `type` and data, oldest first, filtered by type and field values."""
        with self.reading() as reader:
            rows = [_data(row) for row in reader.rows(first) if not types or row.type in types]
        wanted = {key.rstrip("_"): value for key, value in fields.items()}
        return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]

    def event(self, type_: str, first: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait for the first matching event."""
        return eventually(lambda: self.events(type_, first=first, **fields), f"{type_} {fields}")[0]

    def head(self) -> int:
        with self.reading() as reader:
            return reader.head().seq

    def replayed(self) -> Hive:
        """The state after a replay of the log."""
        with self.reading() as reader:
            return state_at(reader, reader.head().seq, lambda *_: None)

    @contextlib.contextmanager
    def reading(self) -> Iterator[LogReader]:
        reader = self.reader()
        try:
            yield reader
        finally:
            reader.close()

    def check_files(self) -> None:
        """Check the chain, and compare the stored projections with a replay."""
        with self.reading() as reader:
            head = reader.head().seq
            count, broken = verify(reader.rows(1, head))
            assert (count, broken) == (head, None)
        for position in check(self.paths, lambda *_: None):
            assert position.is_sound, position

    def is_whole(self) -> str | None:
        """None if no work is unfinished. Otherwise the reason: an act, a transient, a missing agent or an approval."""
        hive = self.replayed()
        for row in hive.agents.all:
            if row.act is not None:
                return f"{row.name} is in the middle of {row.act}"
            if row.wanted_running and not row.running and row.failure is None:
                return f"{row.name} is wanted and does not run"
        if held := list(hive.transient.held):
            return f"transients: {held}"
        if under_way := hive.approvals.under_way():
            return f"approved and not carried out: {under_way}"
        return None

    def becomes_whole(self) -> None:
        why = "not looked yet"

        def whole() -> bool:
            nonlocal why
            why = self.is_whole() or ""
            return not why

        try:
            eventually(whole, "whole")
        except AssertionError:
            raise AssertionError(why) from None

    # Processes

    def running(self, name: str) -> Running | None:
        """The agent's run, if its process exists."""
        status = Record(self.paths.record(name)).status()
        return status if isinstance(status, Running) else None

    def shims(self) -> list[int]:
        """Pids of all shims of this hive, one for each container, known to the daemon or not."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if b"/runtimes/shim.py\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def programs(self) -> list[int]:
        """Pids of all harness processes of this hive, known to the daemon or not. Works without a sandbox only."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if b"hive.harness\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def close(self) -> None:
        """End the daemon, all containers and shims, and remove all files."""
        if self.alive:
            self.kill()
        deadline = time.monotonic() + DEADLINE_S
        while True:  # A shim that the daemon started just before its end may appear late.
            for record in self.paths.run.glob("records/*"):
                Record(record).kill()
            left = self.processes()
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"these do not end: {left}"
            time.sleep(STEP_S)
        ownership.remove(str(self.folder))
        self.users.close()

    def processes(self) -> list[int]:
        """Pids of all processes that use this hive's folders: the daemon, shims, containers."""
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and self._is_ours(entry)]

    def _is_ours(self, process: Path) -> bool:
        if int(process.name) == os.getpid():
            return False
        mark = os.fsencode(self.folder) + b"/"
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                return True
            opened = [process / "cwd", *(process / "fd").iterdir()]
            for link in opened:
                with contextlib.suppress(OSError):
                    if os.fsencode(link.readlink()).startswith(mark):
                        return True
        return False


def _data(row: Row) -> dict[str, Any]:
    return {"seq": row.seq, "at": row.at, "type": row.type, "by": row.by, **msgspec.json.decode(row.data)}
