"""What every runtime offers. The Agent actor is its only caller; one contract test holds for all of them."""

from pathlib import Path
from signal import SIGRTMIN, Signals
from typing import Protocol

import msgspec

from hive.names import AgentName


class Mount(msgspec.Struct, frozen=True):
    """A project folder given to an agent, seen at `/work/<folder>`."""

    host_path: Path
    folder: str
    """One path component: the name under `/work`."""
    read_only: bool = False


class Bind(msgspec.Struct, frozen=True):
    """A folder of the hive shown inside the container, beside the ones every agent has."""

    host_path: Path
    inside: str
    """Absolute path inside."""
    read_only: bool = True


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent may use; None is unlimited."""

    memory_bytes: int | None = None
    processes: int | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a runtime needs to start one agent."""

    name: AgentName
    incarnation: str
    """New for each start; tells this run of the agent from the ones before."""
    argv: tuple[str, ...]
    """The program and its arguments, as seen inside."""
    environment: dict[str, str]
    """The environment of the program; nothing is inherited. Never put on a command line: it may hold a key.

    The runtime adds `HIVE_AGENT_SOCKET` (path of `hive.sock`), `HIVE_AGENT_STATE` and `HIVE_AGENT_CONFIG` (folders) as
    the program sees them: `/run/hive/hive.sock`, `/state`, `/config` behind walls, host paths without, and a PATH with
    /usr/bin.
    """
    state: Path
    """Seen as `/state`, read-write, the agent's own."""
    config: Path
    """The running generation, seen as `/config`, read-only."""
    socket_folder: Path
    """Holds `hive.sock`; seen as `/run/hive`; the agent cannot write the folder."""
    record: Path
    """A folder outside the agent's reach, where the shim writes pid, exit reason and output."""
    uid: int | None = None
    """The unprivileged host uid (and gid) of the agent when the daemon is root; None: the daemon's own.

    A runtime without walls ignores it: what the daemon's own user installed may be out of another uid's reach.
    """
    mounts: tuple[Mount, ...] = ()
    binds: tuple[Bind, ...] = ()
    limits: Limits = Limits()


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. Exactly one of code and signal is set, unless nobody could see it end."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool | None = None
    """None where no cgroup could tell."""
    at_ms: int | None = None

    def reason(self) -> str:
        """`exit code 1`, `signal 9 (SIGKILL)`, `out of memory`, or `unknown`, for people and events."""
        if self.out_of_memory:
            return "out of memory"
        if self.signal is not None:
            return f"signal {self.signal} ({_signal_name(self.signal)})"
        if self.code is not None:
            return f"exit code {self.code}"
        return "unknown"


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
    """The last run is over."""

    incarnation: str
    exit: Exit


class NeverRan(msgspec.Struct, frozen=True, tag="never_ran"):
    """No record of a run: a new agent, or the run folder went with a reboot."""


Status = Running | Ended | NeverRan


class Runtime(Protocol):
    """Starts and ends containers. Blocking; called from actor threads; safe to call from several at once.

    Runs outlive the daemon: a new `Runtime` object over the same record folders finds them again.
    """

    kind: str

    def lacks(self) -> str | None:
        """Why this host cannot run this kind, with the fix; None when it can."""
        ...

    def start(self, container: Container) -> Running:
        """Start one run and return once the program is executing.

        Raises:
            Unavailable: the walls could not be set up or the program could not be executed; nothing is left behind.
            AlreadyDone: a run of this record is still alive.
        """
        ...

    def stop(self, record: Path, *, grace_s: float) -> Exit | None:
        """SIGTERM, then after `grace_s` SIGKILL for the whole container. None when nothing was running.

        Raises:
            Unavailable: a process survived SIGKILL for long (uninterruptible I/O).
        """
        ...

    def kill(self, record: Path) -> Exit | None:
        """SIGKILL for the whole container, at once. None when nothing was running. Raises as `stop`."""
        ...

    def status(self, record: Path) -> Status:
        """What the record says, checked against the processes that are really there (pids are reused)."""
        ...

    def output(self, record: Path, *, lines: int) -> list[str]:
        """The newest lines of the program's stdout and stderr, oldest first."""
        ...
