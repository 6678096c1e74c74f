"""Control groups (version 1 and 2): they limit one agent and tell out of memory from a kill.

Stdlib only, because the shim imports it. The daemon plans the groups; the shim creates, reads and removes them.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH208, PTH112, PTH103, PTH106, PTH120, PTH123

import os
import time

MOUNTS = "/proc/self/mounts"
PARENT = "hive"
"""The folder below a hierarchy's root that holds one group for each agent."""
REMOVE_TRIES = 50
REMOVE_PAUSE_S = 0.01
"""A group stays busy for a moment after its last process is reaped."""

V1 = 1
V2 = 2
Plan = tuple[int, str, tuple[tuple[str, str], ...]]
"""Version, directory of the group, and the (file, value) pairs to write into it."""


def plan(leaf: str, memory_bytes: int | None, processes: int | None) -> list[Plan]:
    """The groups this host offers an agent; empty without root or without a writable hierarchy."""
    if os.geteuid() != 0:
        return []
    found: list[Plan] = []
    for version, root, controllers in hierarchies():
        values: list[tuple[str, str]] = []
        if "memory" in controllers and memory_bytes is not None:
            values += _memory_values(version, memory_bytes)
        if "pids" in controllers:
            values.append(("pids.max", "max" if processes is None else str(processes)))
        found.append((version, f"{root}/{PARENT}/{leaf}", tuple(values)))
    return found


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


def _memory_values(version: int, memory_bytes: int) -> list[tuple[str, str]]:
    if version == V1:
        return [("memory.limit_in_bytes", str(memory_bytes)), ("memory.memsw.limit_in_bytes", str(memory_bytes))]
    return [("memory.max", str(memory_bytes)), ("memory.swap.max", "0")]


def hierarchies() -> list[tuple[int, str, frozenset[str]]]:
    """Version, mount point and supported controllers of each writable hierarchy that has any."""
    found: list[tuple[int, str, frozenset[str]]] = []
    with open(MOUNTS) as mounts:
        for line in mounts:
            _, where, kind, options, *_ = line.split()
            wanted: set[str] = set()
            if kind == "cgroup":
                wanted = {"memory", "pids"}.intersection(options.split(","))
            elif kind == "cgroup2":
                wanted = {"memory", "pids"}.intersection(_read(f"{where}/cgroup.controllers").split())
            if wanted and "ro" not in options.split(","):
                found.append((V1 if kind == "cgroup" else V2, where, frozenset(wanted)))
    return found


class Groups:
    """The groups of one run. No method raises: on a host without groups there is no limit and no answer."""

    def __init__(self, plans: list[Plan]) -> None:
        self._made: list[tuple[int, str]] = []
        for version, directory, values in plans:
            if _create(version, directory):
                self._made.append((version, directory))
                for file, value in values:
                    _write(f"{directory}/{file}", value)
        self._killed_before = self._out_of_memory_kills()

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

    def remove(self) -> None:
        remove([directory for _, directory in self._made])

    def _out_of_memory_kills(self) -> int | None:
        for version, directory in self._made:
            text = _read(f"{directory}/{'memory.oom_control' if version == V1 else 'memory.events'}")
            for line in text.splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return None


def members(directory: str) -> list[int]:
    """Host pids in the group."""
    return [int(pid) for pid in _read(f"{directory}/cgroup.procs").split()]


def remove(directories: list[str]) -> None:
    """Remove groups whose processes are gone, with the groups that a container made in them; busy ones are left."""
    for directory in directories:
        for _ in range(REMOVE_TRIES):
            if _remove(directory):
                break
            time.sleep(REMOVE_PAUSE_S)


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
    parent = os.path.dirname(directory)
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError:
        return False
    if version == V2:
        # A leaf has a controller's files only after every level above enables it.
        for level in (os.path.dirname(parent), parent):
            for controller in ("+memory", "+pids"):
                _write(f"{level}/cgroup.subtree_control", controller)
    return True


def _write(path: str, value: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, value.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
