"""Checks of what this host offers for running agents, each with a fix. Used by `hive doctor`."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hive.errors import Unavailable
from hive.runtimes import limits
from hive.runtimes.bubblewrap import maps_owners
from hive.runtimes.choose import AUTO, choose, sandboxed
from hive.settings import LimitSettings, Settings

PROGRAMS = {
    "git": "apt-get install git",
    "python3": "apt-get install python3",
}
"""Programs that every agent needs, and how to install them."""


class HostCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check."""

    name: str
    good: bool
    says: str
    fix: str | None = None
    """What to do; None if the check passed."""


def runtime_checks(state: Path, settings: Settings) -> list[HostCheck]:
    """All checks; `state` is the hive's state folder, which may not exist yet. Takes tens of milliseconds."""
    image = settings.runtime.image_path(state)
    runtime, kind = _runtime(image)
    if settings.runtime.kind != AUTO:
        kind = settings.runtime.kind
    user = [_user(), *_limits(state, settings.limits, kind)]
    return [runtime, *_programs(), *_kinds(image), *user, *_owners(state)]


def _runtime(image: Path | None) -> tuple[HostCheck, str]:
    """The check, and the kind that `auto` selects here."""
    try:
        runtime = choose(image=image)
    except Unavailable as error:
        return HostCheck(name="runtime", good=False, says="no sandbox for agents works here", fix=str(error)), AUTO
    return HostCheck(name="runtime", good=True, says=f"`auto` is {runtime.kind}"), runtime.kind


def _programs() -> Iterator[HostCheck]:
    for program, fix in PROGRAMS.items():
        path = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin")
        says = path or f"{program} is not in /usr/bin, where agents look for it"
        yield HostCheck(name=program, good=path is not None, says=says, fix=None if path else f"`{fix}`")


def _kinds(image: Path | None) -> Iterator[HostCheck]:
    """Each sandboxed runtime. One without its configuration is a choice, not a fault."""
    for runtime in sandboxed(image):
        why = runtime.unavailable_reason()
        says = "works" if why is None else "does not work"
        yield HostCheck(name=runtime.kind, good=why is None, says=says, fix=why)


def _user() -> HostCheck:
    if os.geteuid() == 0:
        return HostCheck(name="user", good=True, says="root: each agent runs as its own unprivileged user")
    return HostCheck(
        name="user",
        good=False,
        says="not root: agents run sandboxed as your own user",
        fix="Run `hive up` as root to give each agent its own user.",
    )


def _limits(state: Path, settings: LimitSettings, kind: str) -> Iterator[HostCheck]:
    host = limits.host_size(state)
    usual, most = limits.defaults(settings, host), limits.maximum(settings, host)
    values = {
        "memory": f"{(usual.memory_bytes or 0) // limits.MIB} MiB for each agent, at most {most['memory_mb']}",
        "processes": f"{usual.processes} for each agent, at most {most['processes']}",
        "cpu": f"{usual.cpu_percent or most['cpu_percent']} % for each agent, at most {most['cpu_percent']}",
        "open files": f"{usual.open_files} for each process",
        "disk": f"{(usual.disk_bytes or 0) // limits.MIB} MiB for each agent, at most {most['disk_mb']}",
    }
    for one in limits.enforcement(kind, state):
        says = f"{values[one.limit]}; enforced by {one.by}" if one.limit in values else f"enforced by {one.by}"
        if one.missing is not None:
            says = f"{says}. {one.missing}"
        good = one.missing is None
        yield HostCheck(
            name=f"limit: {one.limit}", good=good, says=says, fix=None if good else _limit_fix(kind, one.limit)
        )


def _limit_fix(kind: str, limit: str) -> str:
    if kind == "process":
        return "Use a sandboxed runtime."
    if limit == "disk":
        return (
            "Run hive as root, with its state on xfs mounted with the option `prjquota`, or on ext4 with it and "
            "the feature `project` (unmounted: `tune2fs -O project,quota -Q prjquota DEVICE`)."
        )
    if os.geteuid() == 0:
        return "Give this host control groups with the memory, pids and cpu controllers, writable for root."
    return (
        "Start hive as root or in a delegated control group: `systemd-run --user --scope -p Delegate=yes hive up`, "
        "or a systemd unit with `Delegate=yes`."
    )


def _owners(state: Path) -> Iterator[HostCheck]:
    if os.geteuid() != 0:
        return
    folder = next(path for path in (state, *state.absolute().parents) if path.is_dir())
    if maps_owners(folder):
        yield HostCheck(name="mounts", good=True, says="agents access a project folder with its owner's rights")
        return
    yield HostCheck(
        name="mounts",
        good=False,
        says=f"the file system of {folder} has no id-mapped mounts, so an agent's uid needs access to its mounts",
        fix="Use Linux 5.12 with ext4, xfs or btrfs (6.3 for tmpfs), or the `setfacl` command of `hive mount`.",
    )
