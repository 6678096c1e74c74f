"""A real hive for the system tests: `hive up` as a process, clients of its sockets, its log, and the end of it all."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

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

DEADLINE_S = 60.0
"""Far more than anything here takes; only a defect waits for it."""
STEP_S = 0.01
REPLY_S = 60.0
NO_MODEL = "http://127.0.0.1:9"
"""The discard port: agents need no login and no turn succeeds."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str, *, within_s: float = DEADLINE_S) -> Found:
    """What `look` returns once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(STEP_S)
    return found


class Lines:
    """One connection to a socket of the hive: raw bytes out, one decoded line for each request back."""

    def __init__(self, path: Path) -> None:
        self.socket = connect(path)
        self.socket.settimeout(REPLY_S)
        self._unread = b""

    def say(self, cmd: str, /, **fields: Any) -> dict[str, Any]:
        """One request and its reply, refused or not."""
        self.send(cmd, **fields)
        return self.reply()

    def ask(self, cmd: str, /, **fields: Any) -> dict[str, Any]:
        """One request that must be granted."""
        reply = self.say(cmd, **fields)
        assert reply["ok"] is True, (cmd, reply)
        return reply

    def send(self, cmd: str, /, **fields: Any) -> None:
        self.socket.sendall(msgspec.json.encode({"cmd": cmd, **fields}) + b"\n")

    def reply(self) -> dict[str, Any]:
        """Raises EOFError when the daemon hung up."""
        reply: dict[str, Any] = msgspec.json.decode(self.line())
        return reply

    def line(self) -> bytes:
        """The next line without its end. Raises EOFError when the daemon hung up."""
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
    """One hive in folders of its own. `close` ends the daemon and everything it ever started."""

    def __init__(
        self,
        *,
        runtime: str = "process",
        model_url: str | None = NO_MODEL,
        python: str = sys.executable,
        user: int | None = None,
        dashboard: bool = False,
    ) -> None:
        """`user`: whose daemon it is, when root starts it; `python`: an interpreter that this user may run.

        `dashboard`: on a free port, see `url`.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="hive-")).resolve()
        if user is not None:
            os.chown(self.folder, user, user)
        self._python, self._user = python, user
        self.paths = Paths(self.folder / "state", self.folder / "run")
        self.output = self.folder / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.ready = ""
        """What the daemon said when its sockets accepted."""
        self._runtime = runtime
        self._model_url = model_url
        self.listen: str | None = "127.0.0.1:0" if dashboard else None
        """Where the next daemon's dashboard is; None: there is none."""

    # The daemon

    def up(self) -> "HiveProcess":
        """Start the daemon and wait until it is ready; the first time also until the manager runs."""
        assert self.daemon is None or self.daemon.poll() is not None
        is_new = not self.paths.events.exists()
        front = ["--no-dashboard"] if self.listen is None else ["--listen", self.listen]
        command = [self._python, "-m", "hive", "up", "--runtime", self._runtime, *front]
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
            self.becomes_whole()  # The manager of a new hive is spawned beside.
        return self

    @property
    def url(self) -> str:
        """Of the dashboard."""
        return self.ready.rpartition(" dashboard=")[2].strip()

    def kill(self) -> None:
        """SIGKILL, as a crash of the daemon."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()
        assert self.daemon.stdout is not None
        self.daemon.stdout.close()

    def down(self, *options: str) -> None:
        self.run("down", *options)
        self.await_end()

    def await_end(self) -> None:
        """The daemon was told to end, and ends well."""
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
        """`hive ARGUMENTS…`, whatever comes of it."""
        command = [sys.executable, "-m", "hive", *arguments]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )

    def run(self, *arguments: str) -> str:
        """`hive ARGUMENTS…` that must succeed; what it prints."""
        done = self.try_run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def data(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def ask(self, cmd: str, /, **fields: Any) -> dict[str, Any]:
        """One request on the host socket; raises what the client raises."""
        with HostClient(self.paths.host_socket, reply_timeout_s=REPLY_S) as client:
            return client.ask(cmd, **fields)

    def host(self) -> Lines:
        return Lines(self.paths.host_socket)

    def agent(self, name: str) -> Lines:
        """A connection to an agent's socket, as its own process would make it."""
        return Lines(self.paths.agent_socket(name))

    def spawn(self, *names: str, paused: bool = True) -> None:
        """Agents that run; paused ones take no turns."""
        for name in names:
            self.ask("spawn", name=name)
            self.ask("set_paused", name=name, paused=paused)

    def row(self, name: str) -> dict[str, Any]:
        """The agent on the daemon's roster."""
        rows = {row["name"]: row for row in self.ask("state")["state"]["agents"]}
        row: dict[str, Any] = rows[name]
        return row

    def configure(self, name: str, text: str) -> None:
        """Put an agent.toml into the applied configuration, for the agent's next start."""
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

    # The log, from outside

    def reader(self) -> LogReader:
        return LogReader(self.paths.state, daemon_runs=lock.is_held(self.paths.lock))

    def events(self, *types: str, first: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """The events' data with their `seq`, `at` and `type`, oldest first; `fields` must be equal."""
        with self.reading() as reader:
            rows = [_data(row) for row in reader.rows(first) if not types or row.type in types]
        wanted = {key.rstrip("_"): value for key, value in fields.items()}
        return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]

    def event(self, type_: str, first: int = 1, **fields: Any) -> dict[str, Any]:
        """The first such event, once it is there."""
        return eventually(lambda: self.events(type_, first=first, **fields), f"{type_} {fields}")[0]

    def head(self) -> int:
        with self.reading() as reader:
            return reader.head().seq

    def replayed(self) -> Hive:
        """The state that the log alone gives."""
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
        """The chain holds and every stored projection is what a replay gives."""
        with self.reading() as reader:
            head = reader.head().seq
            count, broken = verify(reader.rows(1, head))
            assert (count, broken) == (head, None)
        for position in check(self.paths, lambda *_: None):
            assert position.is_sound, position

    def is_whole(self) -> str | None:
        """Why not: an act without an outcome, a transient, an agent that is missing, an approval not carried out."""
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
        """The agent's run, checked against the processes that are really there."""
        status = Record(self.paths.record(name)).status()
        return status if isinstance(status, Running) else None

    def programs(self) -> list[int]:
        """Every agent's program that runs, known to the daemon or not; only where walls do not hide its folders."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if b"hive.harness\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def close(self) -> None:
        """End the daemon, every container and shim, and remove every file."""
        if self.alive:
            self.kill()
        deadline = time.monotonic() + DEADLINE_S
        while True:  # A shim that the daemon had only just started may come up after the first look.
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

    def processes(self) -> list[int]:
        """Every process that has to do with this hive's folders: shims, containers, the daemon."""
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
