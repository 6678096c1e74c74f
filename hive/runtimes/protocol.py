"""The interface of every runtime. The agent actors and the builders call it; one contract test covers all kinds."""

from pathlib import Path
from signal import SIGRTMIN, Signals
from typing import Literal, Protocol

import msgspec

from hive.names import AgentName


class Mount(msgspec.Struct, frozen=True):
    """A project folder given to an agent, seen at `/work/<folder>`."""

    host_path: Path
    folder: str
    """One path component: the name under `/work`."""
    read_only: bool = False


class Bind(msgspec.Struct, frozen=True):
    """An additional hive folder that the container shows."""

    host_path: Path
    inside: str
    """Absolute path inside."""
    read_only: bool = True


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a container may use; None is unlimited. `limits` computes an agent's."""

    memory_bytes: int | None = None
    """Includes the tmpfs of /tmp and /dev/shm."""
    processes: int | None = None
    """Processes and threads."""
    cpu_percent: int | None = None
    """100 is one core. Independent of it, busy agents get equal parts of the CPU."""
    disk_bytes: int | None = None
    """Of the state folder and the proposed repository; enforced by the daemon, not by the container."""
    open_files: int | None = None
    """Of each process."""
    all_memory_bytes: int | None = None
    """Of all containers of the hive together, so that the daemon keeps a part of the host's memory."""


Network = Literal["own", "host"]


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a runtime needs to start one agent."""

    name: AgentName
    incarnation: str
    """A new id for each start."""
    argv: tuple[str, ...]
    """The program and its arguments, with paths inside the container."""
    environment: dict[str, str]
    """The program's whole environment; it inherits nothing. Never put it on a command line: it may hold a key.

    The runtime adds `HIVE_AGENT_SOCKET` (path of `hive.sock`), `HIVE_AGENT_STATE` and `HIVE_AGENT_CONFIG` (folders)
    with the paths that the program sees: `/run/hive/hive.sock`, `/state`, `/config` in a sandbox, host paths otherwise.
    It also adds a PATH with /usr/bin.
    """
    state: Path
    """Mounted read-write at `/state`; the agent owns it."""
    config: Path
    """The running generation, mounted read-only at `/config`."""
    socket_folder: Path
    """Holds `hive.sock`; mounted at `/run/hive`; the agent cannot write to the folder."""
    record: Path
    """A folder that the agent cannot access. The shim writes pid, exit status and output there."""
    uid: int | None = None
    """The unprivileged host uid (and gid) of the agent if the daemon is root; None means the daemon's own.

    The `process` runtime ignores it: another uid may not be able to read the daemon user's installation.
    """
    mounts: tuple[Mount, ...] = ()
    binds: tuple[Bind, ...] = ()
    limits: Limits = Limits()
    hive: str = "hive"
    """Identifies the hive on this host. All its containers share one parent control group."""
    network: Network = "own"
    """`own`: a network namespace with `lo` alone, and the forwarder to `net.sock` in the socket folder.

    `host`: the host's network; the forwarder still serves the model. A runtime without walls ignores it.
    """


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. Exactly one of code and signal is set; neither if no shim observed the end."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool | None = None
    """None if no cgroup could tell."""
    limit: Literal["memory", "processes", "disk"] | None = None
    """The limit that the run hit, if that explains its end."""
    at_ms: int | None = None

    def reason(self) -> str:
        """`exit code 1`, `signal 9 (SIGKILL)`, `out of memory`, `too many processes`, `disk full` or `unknown`."""
        if self.out_of_memory:
            return "out of memory"
        if self.limit is not None:
            return _LIMIT_REASONS[self.limit]
        if self.signal is not None:
            return f"signal {self.signal} ({_signal_name(self.signal)})"
        if self.code is not None:
            return f"exit code {self.code}"
        return "unknown"


_LIMIT_REASONS = {"memory": "out of memory", "processes": "too many processes", "disk": "disk full"}


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - SIGRTMIN}" if number >= SIGRTMIN else "unnamed"


class Running(msgspec.Struct, frozen=True, kw_only=True, tag="running"):
    """The run is alive."""

    incarnation: str
    pid: int
    """The program's host pid."""
    since_ms: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The last run has ended."""

    incarnation: str
    exit: Exit


class NeverRan(msgspec.Struct, frozen=True, tag="never_ran"):
    """There is no record of a run: the agent is new, or a reboot cleared the run folder."""


Status = Running | Ended | NeverRan


class Runtime(Protocol):
    """Starts and ends containers. Methods block; actor threads call them concurrently.

    Runs outlive the daemon: a new `Runtime` object with the same record folders finds them again.
    """

    kind: str
    ids_per_agent: int
    """Consecutive host uids of each agent, its own one included."""

    def host_uid(self, first: int, slot: int) -> int | None:
        """The host uid of the agent in a slot, given the first uid for agents; None: the daemon's own."""
        ...

    def unavailable_reason(self) -> str | None:
        """Why this host cannot run this kind, and the fix; None if it can."""
        ...

    def start(self, container: Container) -> Running:
        """Start one run and return once the program is executing.

        Raises:
            Unavailable: the sandbox could not be set up or the program could not be executed. Nothing keeps running.
            AlreadyDone: a run with this record is still alive.
        """
        ...

    def stop(self, record: Path, *, grace_s: float) -> Exit | None:
        """Send SIGTERM, and after `grace_s` SIGKILL to the whole container. None if nothing was running.

        Raises:
            Unavailable: a process still exists long after SIGKILL (uninterruptible I/O).
        """
        ...

    def kill(self, record: Path) -> Exit | None:
        """Send SIGKILL to the whole container. None if nothing was running. Raises like `stop`."""
        ...

    def status(self, record: Path) -> Status:
        """The state on record, checked against the live processes (pids are reused)."""
        ...

    def output(self, record: Path, *, lines: int) -> list[str]:
        """The newest lines of the program's stdout and stderr, oldest first."""
        ...
