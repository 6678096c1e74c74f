"""Starts a shim and waits for its report that the program runs. Every runtime uses it."""

import marshal
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from hive.errors import AlreadyDone, Unavailable
from hive.runtimes import cgroup, rlimits
from hive.runtimes.protocol import Container, Running
from hive.runtimes.record import Record

START_S = 60.0
"""From the shim's start to the program's; allows for a cold disk and eight starts at once."""
SHIM = Path(__file__).with_name("shim.py")
PATH = "/usr/local/bin:/usr/bin:/bin"


class Sandbox(TypedDict):
    """What the shim needs to run the program under bubblewrap."""

    bwrap: str
    arguments: list[str]
    files: list[tuple[str, bytes]]
    """Small generated files: path inside and content."""
    seccomp: bytes | None
    """The system call filter."""
    passable: list[str]
    """Only for a booted system; see `os_tree`."""
    last: list[str]
    """Arguments that follow the files."""
    idmapped: list[tuple[str, str, bool, str]]
    """Folders to mount with their owner mapped to the agent; see `idmap`."""
    mount_point: str
    """Where the id-mapped mounts are assembled."""
    uid: int | None
    """The agent's host uid; None if the daemon is an ordinary user already."""
    program_uid: int | None
    """The uid to switch to inside; None as above."""
    init: list[str]
    port: int
    """Of 127.0.0.1, where the forwarder listens inside; 0: any, on the host's network."""


class _Spec(TypedDict):
    record: str
    head: bytes
    argv: list[str]
    environment: dict[str, str]
    folder: str
    cgroups: list[cgroup.Plan]
    rlimits: list[rlimits.Rlimit]
    state: str
    """The state folder, whose file system may be full."""
    sandbox: Mapping[str, Any] | None


def start(
    container: Container,
    *,
    environment: dict[str, str],
    folder: str,
    sandbox: Mapping[str, Any] | None,
    more_groups: Sequence[cgroup.Plan] = (),
) -> Running:
    """Start one run under its own shim. `sandbox` is a `Sandbox`, a `Machine` of `os_tree`, or None.

    Raises:
        AlreadyDone: a run with this record is alive.
        Unavailable: the program could not be started. Nothing keeps running.
    """
    container.record.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = Record(container.record).status()
    if isinstance(status, Running):
        raise AlreadyDone(f"Agent {container.name} already runs as process {status.pid}.")
    limits = container.limits
    plans = cgroup.plan(
        group_name(container),
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        cpu_percent=limits.cpu_percent,
        all_memory_bytes=limits.all_memory_bytes,
    )
    plans += more_groups
    head = {
        "incarnation": container.incarnation,
        "name": container.name,
        "groups": cgroup.leaves(plans),
        "output_from": Record(container.record).output_size(),
    }
    spec: _Spec = {
        "record": str(container.record),
        "head": msgspec.json.encode(head),
        "argv": list(container.argv),
        "environment": environment,
        "folder": folder,
        "cgroups": plans,
        "rlimits": rlimits.of_limits(limits, sandboxed=sandbox is not None),
        "state": str(container.state),
        "sandbox": None if sandbox is None else dict(sandbox),
    }
    # marshal: the shim is the same interpreter, and importing json would cost it 1 MB of memory.
    outcome = _run_shim(container.name, marshal.dumps(dict(spec)))
    match outcome.split(" ", 2):
        case ["running", pid, since_ms]:
            return Running(incarnation=container.incarnation, pid=int(pid), since_ms=int(since_ms))
        case ["busy", *_]:
            raise AlreadyDone(f"Agent {container.name} is already being started.")
        case _:
            reason = outcome.removeprefix("failed ") or "its shim ended without a report"
            cgroup.remove(cgroup.leaves(plans))  # The shim may have been killed before it could.
            raise Unavailable(f"Agent {container.name} could not be started: {reason}")


def group_name(container: Container) -> str:
    """The agent's control group, below its hive's."""
    return f"{container.hive}/{unique_name(container)}"


def unique_name(container: Container) -> str:
    """The agent's name on this host, unique among all hives."""
    import hashlib

    return f"{container.name}.{hashlib.sha256(bytes(container.record.resolve())).hexdigest()[:12]}"


def _run_shim(name: str, spec: bytes) -> str:
    """Start the shim, send it the spec through a pipe, and return its last line."""
    spec_read, spec_write = os.pipe()
    ready_read, ready_write = os.pipe()
    try:
        command = [sys.executable, "-I", "-S", str(SHIM), name, str(spec_read), str(ready_write)]
        shim = subprocess.Popen(
            command,
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(spec_read, ready_write),
            start_new_session=True,
        )
    except OSError as error:
        os.close(spec_write)
        os.close(ready_read)
        raise Unavailable(f"The shim could not be started: {error}") from error
    finally:
        os.close(spec_read)
        os.close(ready_write)
    try:
        with os.fdopen(spec_write, "wb") as pipe:
            pipe.write(spec)
    except BrokenPipeError:
        pass  # It has ended; its report, if any, is read below.
    shim.wait()  # It forks immediately; the process that stays is not our child.
    try:
        return _outcome(ready_read)
    finally:
        os.close(ready_read)


def _outcome(ready: int) -> str:
    """The line after the shim's pid. A shim that does not answer in time is killed, and bubblewrap with it."""
    deadline = time.monotonic() + START_S
    said = b""
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    while said.count(b"\n") < 2:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if said.startswith(b"shim "):
                os.kill(int(said.split()[1]), signal.SIGKILL)
            return f"failed no answer from the shim in {START_S:g} s"
        more = os.read(ready, 4096)
        if not more:
            break
        said += more
    lines = said.decode(errors="replace").splitlines()
    return lines[1] if len(lines) > 1 else ""
