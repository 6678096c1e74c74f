"""What this host has and lacks for running agents, each with the fix. For `hive doctor`."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hive.errors import Unavailable
from hive.runtimes import cgroup
from hive.runtimes.bubblewrap import BubblewrapRuntime, maps_owners
from hive.runtimes.choose import choose

PROGRAMS = {
    "git": "apt-get install git",
    "python3": "apt-get install python3",
}
"""What every agent is promised, and how to get it."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a host has or lacks."""

    name: str
    good: bool
    says: str
    fix: str | None = None
    """What to do about it; None when it is good."""


def runtime_facts(state: Path) -> list[Fact]:
    """Facts about this host; `state` is the hive's state folder, or where it will be. Takes tens of milliseconds."""
    return [_runtime(), *_programs(), _bubblewrap(), _user(), *_limits(), *_owners(state)]


def _runtime() -> Fact:
    try:
        runtime = choose()
    except Unavailable as error:
        return Fact(name="runtime", good=False, says="no walls for agents", fix=str(error))
    return Fact(name="runtime", good=True, says=f"`auto` is {runtime.kind}")


def _programs() -> Iterator[Fact]:
    for program, fix in PROGRAMS.items():
        path = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin")
        says = path or f"{program} is not in /usr/bin, where agents look"
        yield Fact(name=program, good=path is not None, says=says, fix=None if path else f"`{fix}`")


def _bubblewrap() -> Fact:
    why = BubblewrapRuntime().lacks()
    return Fact(name="bubblewrap", good=why is None, says="works" if why is None else "does not work", fix=why)


def _user() -> Fact:
    if os.geteuid() == 0:
        return Fact(name="user", good=True, says="root: each agent is an unprivileged user of its own")
    return Fact(
        name="user",
        good=False,
        says="not root: agents are your own user behind walls, without limits of memory and processes",
        fix="Run `hive up` as root to give each agent a user of its own.",
    )


def _limits() -> Iterator[Fact]:
    given: set[str] = set()
    if os.geteuid() == 0:
        given = {controller for _, _, controllers in cgroup.hierarchies() for controller in controllers}
    for controller, what in (("memory", "out of memory is told from a kill"), ("pids", "processes are limited")):
        if controller in given:
            yield Fact(name=f"cgroup {controller}", good=True, says=what)
            continue
        yield Fact(
            name=f"cgroup {controller}",
            good=False,
            says=f"no {controller} limit; it is not so that {what}",
            fix=f"As root, with a writable cgroup hierarchy that has the {controller} controller.",
        )


def _owners(state: Path) -> Iterator[Fact]:
    if os.geteuid() != 0:
        return
    folder = next(path for path in (state, *state.absolute().parents) if path.is_dir())
    if maps_owners(folder):
        yield Fact(name="mounts", good=True, says="an agent uses a project folder as its owner would")
        return
    yield Fact(
        name="mounts",
        good=False,
        says=f"the file system of {folder} cannot map owners, so a project folder must be opened to the agent's uid",
        fix="Linux 5.12 or later with ext4, xfs, btrfs or (6.3) tmpfs; otherwise `setfacl` as `hive mount` says.",
    )
