"""The daemon's view of a run's record: whether it is alive, how it ended, what it printed; and how to end it.

The shim writes the files (see `shim`); this module checks them against the live processes.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from hive.errors import CorruptState, Unavailable
from hive.runtimes import cgroup, spawn
from hive.runtimes.protocol import Ended, Exit, NeverRan, Running, Status

SETTLE_S = 30.0
"""How long a shim may take to write run.json after it locks the record, and exit.json after the program ends."""
SETTLE_PAUSE_S = 0.005
KILL_S = 20.0
"""How long a process may exist after SIGKILL; only uninterruptible I/O takes longer."""
OUTPUT_READ_BYTES = 4 * 1024 * 1024
"""How much of a file's end `output` reads; the shim's limit for one file."""


_T = TypeVar("_T")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """run.json: the processes of a run, each with its start time because pids are reused."""

    incarnation: str
    groups: tuple[str, ...]
    pid: int
    started: int
    root: int
    """The process whose death ends the container: the sandbox's init, otherwise the program."""
    root_started: int
    shim: int
    shim_started: int
    since_ms: int
    boot: str
    output_from: int = 0
    """Size of the file `output` before the run; the file has the output of earlier runs, too."""

    def here(self) -> bool:
        """Whether the run belongs to this boot; if not, its pids mean other processes."""
        return self.boot == spawn.boot_id()

    def alive(self) -> bool:
        return self.here() and spawn.started(self.pid) == self.started

    def watched(self) -> bool:
        """Whether its shim is alive and will record how it ends."""
        return self.here() and spawn.started(self.shim) == self.shim_started


class _Exit(Exit, frozen=True, kw_only=True):
    incarnation: str


class Record:
    """One record folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def status(self) -> Status:
        """The checked state; waits while a shim is between two states, which takes milliseconds."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            run = self._run()
            if run is not None and run.alive():
                return Running(incarnation=run.incarnation, pid=run.pid, since_ms=run.since_ms)
            # Check the shim before the file, so that its last write is not missed.
            busy = self._shim_at_work()
            ended = self._ended(run)
            if not busy or time.monotonic() > deadline:
                if ended is not None or run is None:
                    return ended or NeverRan()
                cgroup.remove(list(run.groups))  # The shim did not live to do it.
                return Ended(incarnation=run.incarnation, exit=Exit())
            time.sleep(SETTLE_PAUSE_S)

    def stop(self, grace_s: float) -> Exit | None:
        run = self._alive()
        if run is None:
            return None
        self._order()
        with _handle(run.pid, run.started) as program:
            if program is not None:
                signal.pidfd_send_signal(program, signal.SIGTERM)
        if not self._wait(run, grace_s):
            self._kill(run)
        return self._exit(run)

    def kill(self) -> Exit | None:
        run = self._alive()
        if run is None:
            return None
        self._order()
        self._kill(run)
        return self._exit(run)

    def output(self, lines: int) -> list[str]:
        """The newest lines of both files; a rotation during the read duplicates no line."""
        newest, inode, _ = _tail(self._folder / "output")
        found = newest.splitlines()
        if len(found) < lines:
            older, older_inode, _ = _tail(self._folder / "output.1")
            if older_inode != inode:
                found = (older + newest).splitlines()
        return [line.decode(errors="replace") for line in found[-lines:]] if lines > 0 else []

    def output_size(self) -> int:
        return _tail(self._folder / "output", 0)[2]

    def last_line(self) -> str | None:
        """The last line that is not blank of the newest run's output; None if it wrote none."""
        run = self._run()
        if run is None:
            return None
        written, _, size = _tail(self._folder / "output")
        if size >= run.output_from:  # Otherwise the file was rotated during the run: all of it is this run's.
            written = written[max(0, len(written) - (size - run.output_from)) :]
        lines = written.decode(errors="surrogateescape").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), None)

    def _alive(self) -> Run | None:
        run = self._run() if isinstance(self.status(), Running) else None
        return run if run is not None and run.alive() else None

    def _order(self) -> None:
        """Note that hive ends the run, so that its SIGKILL is not taken for the OOM killer's."""
        (self._folder / "ordered").touch(mode=0o600)

    def _kill(self, run: Run) -> None:
        watched = run.watched()
        with _handle(run.root, run.root_started) as root:
            if root is not None:
                signal.pidfd_send_signal(root, signal.SIGKILL)
        if not watched:
            self._clear_up(run)
        if not self._wait(run, KILL_S):
            raise Unavailable(
                f"Process {run.pid} does not end: it is blocked in the kernel. See `ps -o stat,wchan {run.pid}`."
            )

    def _clear_up(self, run: Run) -> None:
        """Clean up in place of a shim that was killed."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(run.pid, signal.SIGKILL)
        for group in run.groups:
            for pid in cgroup.members(group):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        cgroup.remove(list(run.groups))

    def _wait(self, run: Run, seconds: float) -> bool:
        """Wait until the shim has recorded the end and exited; without a shim, until the program has exited."""
        pid, started = (run.shim, run.shim_started) if run.watched() else (run.pid, run.started)
        with _handle(pid, started) as handle:
            if handle is None:
                return True
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            return bool(poll.poll(seconds * 1000))

    def _exit(self, run: Run) -> Exit:
        ended = self._ended(run)
        return ended.exit if ended is not None else Exit()

    def _run(self) -> Run | None:
        return _decode(self._folder / "run.json", Run)

    def _ended(self, run: Run | None) -> Ended | None:
        if run is None:
            return None
        told = _decode(self._folder / "exit.json", _Exit)
        if told is None or told.incarnation != run.incarnation:
            return None
        fields = {field: getattr(told, field) for field in Exit.__struct_fields__}
        return Ended(incarnation=run.incarnation, exit=Exit(**fields))

    def _shim_at_work(self) -> bool:
        """Whether a shim holds the record. Does not take the lock, because a starting shim would then fail."""
        try:
            fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(fd, fcntl.F_GETLK, asked)
            return int(struct.unpack("hhqqi4x", answer)[0]) != fcntl.F_UNLCK
        finally:
            os.close(fd)


@contextlib.contextmanager
def _handle(pid: int, started: int) -> Iterator[int | None]:
    """A pidfd of exactly that process, or None if it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if spawn.started(pid) == started else None
    finally:
        os.close(fd)


def _decode(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise CorruptState(f"{path} is damaged: {error}. Stop the agent and remove the file.") from error


def _tail(path: Path, limit: int = OUTPUT_READ_BYTES) -> tuple[bytes, int, int]:
    """The end of a file, its inode and its size."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            file.seek(max(0, facts.st_size - limit))
            return file.read(min(limit, facts.st_size)), facts.st_ino, facts.st_size
    except FileNotFoundError:
        return b"", 0, 0
