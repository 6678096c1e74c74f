"""Limits of agents: defaults from the host's size, the host's maximum, and what enforces each limit on this host."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hive.runtimes import cgroup, quota
from hive.runtimes.protocol import Limits
from hive.settings import RAISE_MAX, SHARES, LimitSettings

MIB = 1024**2
GIB = 1024**3
PERCENT_PER_CPU = 100
MEMORY_PART = 8
"""By default an agent may use this part of the memory: an eighth, at least 1 GiB, at most half.

The limits of many agents add up to more than there is: an idle agent needs 70 MB, one with a live CLI 300 MB.
"""
MEMORY_MIN_BYTES = GIB
RESERVE_PART = 16
RESERVE_MIN_BYTES = 512 * MIB
"""All agents together leave a sixteenth of the memory, at least this, to the daemon and the host."""
PROCESSES = 1_024
OPEN_FILES = 16_384
"""Of each process; not configurable."""
BUILD_MEMORY_BYTES = 4 * GIB
BUILD_PROCESSES = 512
DISK_BYTES = 20 * GIB
WALKED = "The disk limit is checked about once a minute, by a walk: there are no project quotas."
DISK_PART = 4
"""On a file system below 80 GiB, an agent may use a quarter of it."""


class HostSize(msgspec.Struct, frozen=True, kw_only=True):
    """What this host has in total."""

    memory_bytes: int
    cpus: int
    processes: int
    disk_bytes: int
    """Of the file system that holds the hive's state."""


def host_size(state: Path) -> HostSize:
    """The size of this host; `state` may not exist yet."""
    folder = next(path for path in (state, *state.absolute().parents) if path.is_dir())
    return HostSize(
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cpus=len(os.sched_getaffinity(0)),
        processes=int(Path("/proc/sys/kernel/pid_max").read_text()),
        disk_bytes=shutil.disk_usage(folder).total,
    )


def defaults(settings: LimitSettings, host: HostSize) -> Limits:
    """The limits of an agent whose configuration sets none: `hive.toml`'s, otherwise a part of the host."""
    fair = max(host.memory_bytes // MEMORY_PART, min(MEMORY_MIN_BYTES, host.memory_bytes // 2))
    reserve = max(host.memory_bytes // RESERVE_PART, min(RESERVE_MIN_BYTES, host.memory_bytes // 4))
    return Limits(
        memory_bytes=fair if settings.memory_mb is None else settings.memory_mb * MIB,
        processes=PROCESSES if settings.processes is None else settings.processes,
        cpu_percent=settings.cpu_percent,
        disk_bytes=_disk(host) if settings.disk_mb is None else settings.disk_mb * MIB,
        open_files=OPEN_FILES,
        all_memory_bytes=host.memory_bytes - reserve,
    )


def of_build(host: HostSize) -> Limits:
    """The limits of a build command. Its files are limited when they are copied into the generation."""
    usual = defaults(LimitSettings(), host)
    memory = min(BUILD_MEMORY_BYTES, host.memory_bytes // 2)
    return msgspec.structs.replace(usual, memory_bytes=memory, processes=BUILD_PROCESSES)


def _disk(host: HostSize) -> int:
    return min(DISK_BYTES, host.disk_bytes // DISK_PART)


def maximum(settings: LimitSettings, host: HostSize) -> dict[str, int]:
    """The highest value that an agent's configuration may ask for: `hive.toml`'s, otherwise the host's size."""
    available = {
        "memory_mb": (defaults(settings, host).all_memory_bytes or 0) // MIB,
        "processes": host.processes // 2,
        "cpu_percent": host.cpus * PERCENT_PER_CPU,
        "disk_mb": host.disk_bytes // MIB,
        **{key: RAISE_MAX * usual for key, usual in SHARES.items()},
    }
    return {name: value if (own := getattr(settings, name)) is None else own for name, value in available.items()}


def has_quota(kind: str, state: Path) -> bool:
    """Whether project quotas limit agents' disks under this kind of runtime. They do not hold for root."""
    return kind != "process" and quota.offered(str(next(one for one in (state, *state.parents) if one.is_dir())))


class Enforcement(msgspec.Struct, frozen=True, kw_only=True):
    """What enforces one limit on this host."""

    limit: str
    by: str
    """For people."""
    missing: str | None = None
    """What is not enforced; None if the limit holds."""


def not_enforced(kind: str, state: Path) -> tuple[str, ...]:
    """What is not enforced under this kind of runtime, in sentences for people."""
    return tuple(one.missing for one in enforcement(kind, state) if one.missing is not None)


def enforcement(kind: str, state: Path) -> Iterator[Enforcement]:
    """What enforces each limit under this kind of runtime; `state` is the hive's state folder."""
    found = {name: version for version, _, offered in cgroup.hierarchies() for name in offered}
    sandboxed = kind != "process"

    def by(controller: str) -> str:
        return f"control group v{found[controller]}"

    if "memory" in found:
        yield Enforcement(limit="memory", by=by("memory"))
    else:
        missing = "Memory is limited for each process, not for the agent."
        yield Enforcement(limit="memory", by="RLIMIT_DATA of each process", missing=missing)
    if "pids" in found:
        yield Enforcement(limit="processes", by=by("pids"))
    elif sandboxed:
        yield Enforcement(limit="processes", by="RLIMIT_NPROC of the agent")
    else:
        yield Enforcement(limit="processes", by="nothing", missing="The number of processes is not limited.")
    if "cpu" in found:
        yield Enforcement(limit="cpu", by=f"{by('cpu')}, equal weights")
    else:
        yield Enforcement(limit="cpu", by="nothing", missing="CPU time is not shared equally among agents.")
    yield Enforcement(limit="open files", by="RLIMIT_NOFILE of each process")
    if has_quota(kind, state):
        yield Enforcement(limit="disk", by="a project quota of the file system")
    else:
        yield Enforcement(limit="disk", by="a walk through the folders", missing=WALKED)
    if sandboxed:
        yield Enforcement(limit="/tmp", by="the size of its tmpfs")
    else:
        yield Enforcement(limit="/tmp", by="nothing", missing="/tmp is the host's and is not limited.")
