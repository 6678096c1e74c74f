"""Checks of what this host offers for running agents, each with a fix. Used by `hive doctor`."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hive.errors import Unavailable
from hive.runtimes import cgroup
from hive.runtimes.bubblewrap import maps_owners
from hive.runtimes.choose import choose, sandboxed

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


def runtime_checks(state: Path, image: Path | None = None) -> list[HostCheck]:
    """All checks; `state` is the hive's state folder, which may not exist yet; `image` is the one of hive.toml."""
    return [_runtime(image), *_programs(), *_kinds(image), _user(), *_limits(), *_owners(state)]


def _runtime(image: Path | None) -> HostCheck:
    try:
        runtime = choose(image=image)
    except Unavailable as error:
        return HostCheck(name="runtime", good=False, says="no sandbox for agents works here", fix=str(error))
    return HostCheck(name="runtime", good=True, says=f"`auto` is {runtime.kind}")


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
        says="not root: agents run sandboxed as your own user, without limits of memory and processes",
        fix="Run `hive up` as root to give each agent its own user.",
    )


def _limits() -> Iterator[HostCheck]:
    given: set[str] = set()
    if os.geteuid() == 0:
        given = {controller for _, _, controllers in cgroup.hierarchies() for controller in controllers}
    for controller, what in (
        ("memory", "hive distinguishes out of memory from a kill"),
        ("pids", "processes are limited"),
    ):
        if controller in given:
            yield HostCheck(name=f"cgroup {controller}", good=True, says=what)
            continue
        yield HostCheck(
            name=f"cgroup {controller}",
            good=False,
            says=f"no {controller} limit is enforced",
            fix=f"Run as root, with a writable cgroup hierarchy that has the {controller} controller.",
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
