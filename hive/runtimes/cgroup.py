"""Control groups (version 1 and 2): they limit one agent, share the CPU among agents and count hits of the limits.

Stdlib only, because the shim imports it. The daemon plans the groups; the shim creates, reads and removes them.
All agents of a hive have one parent group, so their CPU weights compare with each other.

Root uses the top of a hierarchy. An ordinary user needs a delegated group: one that it may write and that holds the
daemon, such as a systemd unit with `Delegate=yes`.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH103, PTH106, PTH110, PTH112, PTH119, PTH120, PTH123, PTH208

import contextlib
import errno
import os
import time

MOUNTS = "/proc/self/mounts"
OWN_GROUPS = "/proc/self/cgroup"
CONTROLLERS = ("memory", "pids", "cpu")
PARENT = "hive"
"""The folder below a hierarchy's base that holds the groups of all hives."""
DAEMON = "hive-daemon"
"""Where a delegated group's own processes move: version 2 allows processes in leaves only."""
CPU_WEIGHT = 100
CPU_SHARES = 1024
"""The weight of each agent in version 2 and 1; equal, so that busy agents get equal parts of the CPU."""
CPU_PERIOD_US = 100_000
REMOVE_TRIES = 50
REMOVE_PAUSE_S = 0.01
"""A group stays busy for a moment after its last process is reaped."""

V1 = 1
V2 = 2
Plan = tuple[int, str, tuple[tuple[str, str], ...]]
"""Version, directory of the group, and the (file, value) pairs to write into it."""
Hierarchy = tuple[int, str, frozenset[str]]
"""Version, base directory for hive's groups, and usable controllers."""


def plan(
    leaf: str,
    *,
    memory_bytes: int | None = None,
    processes: int | None = None,
    cpu_percent: int | None = None,
    all_memory_bytes: int | None = None,
) -> list[Plan]:
    """The groups this host offers an agent, each after its parent; empty without a writable hierarchy.

    `leaf` is `<hive>/<agent>`. `all_memory_bytes` limits all agents of the hive together.
    """
    found: list[Plan] = []
    for version, base, controllers in hierarchies():
        if version == V2 and not _is_root_group(base):
            _move_processes_to_leaf(base)
        parent: list[tuple[str, str]] = []
        values: list[tuple[str, str]] = []
        if "memory" in controllers:
            parent += _memory_values(version, all_memory_bytes)[:1]
            values += _memory_values(version, memory_bytes)
        if "pids" in controllers:
            values.append(("pids.max", "max" if processes is None else str(processes)))
        if "cpu" in controllers:
            values += _cpu_values(version, cpu_percent)
        hive = os.path.dirname(leaf)
        if hive:
            found.append((version, f"{base}/{PARENT}/{hive}", tuple(parent)))
        found.append((version, f"{base}/{PARENT}/{leaf}", tuple(values)))
    return found


def leaves(plans: list[Plan]) -> list[str]:
    """The directories of the groups that hold processes, without their parents."""
    directories = [directory for _, directory, _ in plans]
    return [one for one in directories if not any(other.startswith(f"{one}/") for other in directories)]


def system_plan(leaf: str) -> list[Plan]:
    """Groups for a container with its own systemd, in the hierarchies that have no controller that `plan` uses.

    Without them, the systemd of each container would take over the shim's own group there.
    """
    found: list[Plan] = []
    with open(MOUNTS) as mounts:
        for line in mounts:
            _, where, kind, options, *_ = line.split()
            named = kind == "cgroup" and "name=systemd" in options.split(",")
            unified = kind == "cgroup2" and "memory" not in _read(f"{where}/cgroup.controllers").split()
            if (named or unified) and "ro" not in options.split(","):
                found.append((V1 if named else V2, f"{where}/{PARENT}/{leaf}", ()))
    return found


def _memory_values(version: int, memory_bytes: int | None) -> list[tuple[str, str]]:
    if memory_bytes is None:
        return []
    if version == V1:
        return [("memory.limit_in_bytes", str(memory_bytes)), ("memory.memsw.limit_in_bytes", str(memory_bytes))]
    return [("memory.max", str(memory_bytes)), ("memory.swap.max", "0")]


def _cpu_values(version: int, cpu_percent: int | None) -> list[tuple[str, str]]:
    quota = None if cpu_percent is None else cpu_percent * CPU_PERIOD_US // 100
    if version == V1:
        values = [("cpu.shares", str(CPU_SHARES))]
        return values if quota is None else [*values, ("cpu.cfs_quota_us", str(quota))]
    values = [("cpu.weight", str(CPU_WEIGHT))]
    return values if quota is None else [*values, ("cpu.max", f"{quota} {CPU_PERIOD_US}")]


def hierarchies() -> list[Hierarchy]:
    """The hierarchies in which this process may create groups and that have a controller for them."""
    own = _own_groups()
    found: list[Hierarchy] = []
    with open(MOUNTS) as mounts:
        for line in mounts:
            _, where, kind, options, *_ = line.split()
            if kind not in ("cgroup", "cgroup2") or "ro" in options.split(","):
                continue
            version = V1 if kind == "cgroup" else V2
            offered = options.split(",") if version == V1 else []
            group = next((path for names, path in own if (names & set(offered) if version == V1 else not names)), "/")
            base = where if os.geteuid() == 0 else _delegated(version, f"{where}{group}".rstrip("/"))
            if base is None:
                continue
            usable = frozenset(CONTROLLERS).intersection(offered or _read(f"{base}/cgroup.controllers").split())
            if usable:
                found.append((version, base, usable))
    return found


def _own_groups() -> list[tuple[frozenset[str], str]]:
    """Controllers (none for version 2) and path of each group that holds this process."""
    found = []
    for line in _read(OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        found.append((frozenset(filter(None, controllers.split(","))), path))
    return found


def _delegated(version: int, group: str) -> str | None:
    """The base for an ordinary user's groups: the group that holds the daemon, if the user may write it."""
    base = os.path.dirname(group) if os.path.basename(group) == DAEMON else group
    needed = ["", "/cgroup.procs", *(["/cgroup.subtree_control"] if version == V2 else [])]
    return base if all(os.access(f"{base}{file}", os.W_OK) for file in needed) else None


def _is_root_group(base: str) -> bool:
    return not os.path.exists(f"{base}/cgroup.type")


def _move_processes_to_leaf(base: str) -> None:
    """Move the processes of `base` into a leaf of it; the kernel refuses to enable controllers otherwise."""
    for pid in members(base):
        os.makedirs(f"{base}/{DAEMON}", exist_ok=True)
        _write(f"{base}/{DAEMON}/cgroup.procs", str(pid))


class Groups:
    """The groups of one run. No method raises: on a host without groups there is no limit and no answer."""

    def __init__(self, plans: list[Plan]) -> None:
        self._made: list[tuple[int, str]] = []
        joined = leaves(plans)
        for version, directory, values in plans:
            if _create(version, directory):
                for file, value in values:
                    _write(f"{directory}/{file}", value)
                if directory in joined:
                    self._made.append((version, directory))
        self._killed_before = self._out_of_memory_kills()
        self._refused_seen = self.refused_processes() or 0

    def join(self) -> None:
        """Move the calling process into the groups; its children stay in them."""
        for _, directory in self._made:
            _write(f"{directory}/cgroup.procs", "0")

    def kill(self) -> None:
        """Forbid new processes; on version 2, also kill all members."""
        for version, directory in self._made:
            _write(f"{directory}/pids.max", "0")
            if version == V2:
                _write(f"{directory}/cgroup.kill", "1")

    def out_of_memory(self) -> bool | None:
        """Whether the kernel's OOM killer ended a member since the run began; None if unknown."""
        now = self._out_of_memory_kills()
        if now is None or self._killed_before is None:
            return None
        return now > self._killed_before

    def refused_processes(self) -> int | None:
        """How many forks the process limit has refused; None if unknown."""
        return self._counter("pids.events", "max")

    def newly_refused(self) -> bool:
        """Whether the process limit has refused a fork since the last call."""
        now = self.refused_processes() or 0
        grown, self._refused_seen = now > self._refused_seen, now
        return grown

    def remove(self) -> None:
        remove([directory for _, directory in self._made])

    def _out_of_memory_kills(self) -> int | None:
        v1, v2 = self._counter("memory.oom_control", "oom_kill"), self._counter("memory.events", "oom_kill")
        return v2 if v1 is None else v1

    def _counter(self, file: str, wanted: str) -> int | None:
        for _, directory in self._made:
            for line in _read(f"{directory}/{file}").splitlines():
                key, _, value = line.partition(" ")
                if key == wanted:
                    return int(value)
        return None


def members(directory: str) -> list[int]:
    """Host pids in the group."""
    return [int(pid) for pid in _read(f"{directory}/cgroup.procs").split()]


def remove(directories: list[str]) -> None:
    """Remove groups without processes, with the groups that a container made in them; a busy group is left.

    The group of their hive goes with the last one.
    """
    for directory in directories:
        for _ in range(REMOVE_TRIES):
            if _remove(directory):
                break
            time.sleep(REMOVE_PAUSE_S)
        parent = os.path.dirname(directory)
        if os.path.basename(os.path.dirname(parent)) == PARENT:
            with contextlib.suppress(OSError):  # Other agents have groups in it.
                os.rmdir(parent)


def _remove(directory: str) -> bool:
    try:
        for name in os.listdir(directory):
            if os.path.isdir(f"{directory}/{name}"):
                _remove(f"{directory}/{name}")
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _create(version: int, directory: str) -> bool:
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError:
        return False
    if version == V2:
        # A leaf has a controller's files only after every level above enables it.
        base, _, below = directory.partition(f"/{PARENT}/")
        levels = [base, f"{base}/{PARENT}"]
        for name in below.split("/")[:-1]:
            levels.append(f"{levels[-1]}/{name}")
        for level in levels:
            for controller in CONTROLLERS:
                _write(f"{level}/cgroup.subtree_control", f"+{controller}")
    return True


def _write(path: str, value: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, value.encode())
    except OSError as error:
        return error.errno == errno.ESRCH  # The process has ended meanwhile.
    finally:
        os.close(fd)
    return True


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
