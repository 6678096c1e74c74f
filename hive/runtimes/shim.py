"""The shim: one small process per agent that outlives the daemon, keeps the output and writes down how the run ended.

Run by `launch` as `python -I -S shim.py NAME SPEC_FD READY_FD`; stdlib only. It speaks to the daemon
through the files of the record folder alone: `lock` (held while the shim lives), `run.json`, `exit.json`, `output` and
`output.1`.
"""

# pathlib would cost every shim a megabyte.
# ruff: noqa: PTH100, PTH105, PTH108, PTH110, PTH120, PTH123

import os
import sys

if __name__ == "__main__":  # -I leaves the package out of the path.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import contextlib
import fcntl
import marshal
import select
import signal
import time

from hive.runtimes import cgroup, spawn

OUTPUT_FILE_BYTES = 4 * 1024 * 1024
"""An agent's output takes at most two such files."""
READ_BYTES = 65536
DRAIN_BYTES = 1024 * 1024
"""More than a pipe can hold: what is read after the last writer has gone."""
MAX_WAIT_STATUS = 0xFFFF
PR_SET_CHILD_SUBREAPER = 36
REPORT_LINE_BYTES = 4096
"""The container's init speaks from within the agent's reach; a longer line is cut."""


TYPE_CHECKING = False
if TYPE_CHECKING:  # Importing typing would cost every shim a megabyte.
    from typing import Any

    Spec = dict[str, Any]
    """Built by `launch`; its keys are written down there."""


class FailedError(Exception):
    """The run could not be started; the text goes to the daemon."""


class Output:
    """The program's output in two files of bounded size. A full disk loses lines, never the program."""

    def __init__(self, record: str) -> None:
        self._path = f"{record}/output"
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        try:
            if self._size + len(data) > OUTPUT_FILE_BYTES:
                full = self._fd
                os.replace(self._path, f"{self._path}.1")
                self._open()
                os.close(full)
            self._size += os.write(self._fd, data)
        except OSError:
            return


class Run:
    """One run of one program, from the spec to its exit."""

    def __init__(self, spec: "Spec") -> None:
        self._spec = spec
        self._record: str = spec["record"]
        self._output = Output(self._record)
        self._groups = cgroup.Groups(spec["cgroups"])
        self._output_read, self._output_write = os.pipe()
        self._report = -1
        """What the container's init says, or -1 without walls."""
        self._life = -1
        """Init ends when this pipe is closed, by us or by our death."""
        self._said = b""
        self._child = 0
        self._status: int | None = None
        """Raw wait status of the child: the program, or bubblewrap around it."""
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def start(self) -> tuple[int, int]:
        """Start the program and put it on record; its pid and when.

        Raises:
            FailedError: it could not be executed. What was started is gone again and the record is as it was.
        """
        before = _read(f"{self._record}/run.json")
        if os.path.exists(f"{self._record}/ordered"):
            os.unlink(f"{self._record}/ordered")
        try:
            return self._start_plain() if self._spec["walls"] is None else self._start_walled(self._spec["walls"])
        except (FailedError, OSError) as error:
            self._kill_child()
            self._groups.remove()
            if before:
                _replace(f"{self._record}/run.json", before)
            elif os.path.exists(f"{self._record}/run.json"):
                os.unlink(f"{self._record}/run.json")
            raise FailedError(str(error)) from error

    def _start_plain(self) -> tuple[int, int]:
        _become_subreaper()
        spec = self._spec
        held = spawn.Held(spec["argv"], spec["environment"], spec["folder"], self._enter)
        self._child = held.pid
        os.close(self._output_write)
        since_ms = self._put_on_record(held.pid, held.pid)
        if failure := held.let_go():
            raise FailedError(failure)
        return held.pid, since_ms

    def _start_walled(self, walls: "Spec") -> tuple[int, int]:
        """Start bubblewrap with our init inside, which starts the program and says how it ended."""
        spec_read, spec_write = os.pipe()
        go_read, go_write = os.pipe()
        self._report, report_write = os.pipe()
        self._child = os.fork()
        if not self._child:
            try:
                self._enter()
                _exec_walls(walls, (spec_read, go_read, report_write))
            except (OSError, FailedError) as error:
                os.write(2, f"{error}\n".encode())
            finally:
                os._exit(127)
        for fd in (spec_read, go_read, report_write, self._output_write):
            os.close(fd)
        inside = {key: self._spec[key] for key in ("argv", "environment", "folder")} | {"uid": walls["uid"]}
        with contextlib.suppress(BrokenPipeError):  # Bubblewrap has ended; what it said comes next.
            _write_all(spec_write, marshal.dumps(inside))
        os.close(spec_write)
        self._expect("held")
        init = _only_child(self._child)
        program = _only_child(init)
        since_ms = self._put_on_record(program, init)
        os.write(go_write, b"g")
        self._expect("executed")
        self._life = go_write
        return program, since_ms

    def _enter(self) -> None:
        """In the child: stand in the agent's groups and write to the shim's pipe."""
        self._groups.join()
        os.dup2(self._output_write, 1)
        os.dup2(self._output_write, 2)

    def _expect(self, word: str) -> None:
        """Read one line from init.

        Raises:
            FailedError: it said something else, or bubblewrap ended before it could say anything.
        """
        while b"\n" not in self._said:
            more = os.read(self._report, REPORT_LINE_BYTES)
            if not more:
                raise FailedError(
                    spawn.read_all(self._output_read).decode(errors="replace").strip() or "bubblewrap ended"
                )
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        if line.decode(errors="replace") != word:
            raise FailedError(line.decode(errors="replace").removeprefix("failed "))

    def _put_on_record(self, program: int, root: int) -> int:
        """Write run.json, so that a daemon that finds the program running also finds it on record."""
        now = _now_ms()
        facts = (
            f',"pid":{program},"started":{spawn.started(program) or 0},"root":{root},'
            f'"root_started":{spawn.started(root) or 0},"shim":{os.getpid()},'
            f'"shim_started":{spawn.started(os.getpid()) or 0},"since_ms":{now},"boot":"{spawn.boot_id()}"}}'
        )
        _replace(f"{self._record}/run.json", self._spec["head"].removesuffix(b"}") + facts.encode())
        return now

    def watch(self) -> None:
        """Keep the output and collect the dead until the run is over; then clear up and write exit.json."""
        poll = select.poll()
        for fd in (self._output_read, self._report, self._wake):
            if fd >= 0:
                os.set_blocking(fd, False)
                poll.register(fd, select.POLLIN)
        while self._status is None:
            for fd, _ in poll.poll():
                if fd == self._wake:
                    _read_some(fd)
                elif not self._take(fd):
                    poll.unregister(fd)
            self._reap()
        self._end()

    def _take(self, fd: int) -> bool:
        """Read once from the program or from init; False at the end of it."""
        data = _read_some(fd)
        if data and fd == self._output_read:
            self._output.write(data)
        elif data:
            self._said = (self._said + data)[-REPORT_LINE_BYTES:]
        return data != b""

    def _reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self._child:
                    self._status = status
                if pid == 0:
                    return
        except ChildProcessError:
            return

    def _end(self) -> None:
        at_ms = _now_ms()
        if self._life >= 0:
            os.close(self._life)
        self._groups.kill()
        _kill_descendants()
        left = DRAIN_BYTES
        while left > 0 and (data := _read_some(self._output_read)):
            self._output.write(data)
            left -= len(data)
        if self._report >= 0:
            self._take(self._report)
        code, by_signal = self._how_it_ended()
        out_of_memory = self._groups.out_of_memory()
        if out_of_memory and not (by_signal == signal.SIGKILL and not os.path.exists(f"{self._record}/ordered")):
            out_of_memory = False  # Something it ran was killed for memory; it ended for another reason.
        self._groups.remove()
        facts = {"code": code, "signal": by_signal, "out_of_memory": out_of_memory, "at_ms": at_ms}
        pairs = ",".join(f'"{key}":{_json(value)}' for key, value in facts.items())
        _replace(f"{self._record}/exit.json", self._spec["head"].removesuffix(b"}") + f",{pairs}}}".encode())

    def _how_it_ended(self) -> tuple[int | None, int | None]:
        """Exit code or signal. Init's word goes before bubblewrap's, which folds signals into codes."""
        status = self._status
        assert status is not None
        word, _, number = self._said.partition(b"\n")[0].decode(errors="replace").partition(" ")
        if self._report >= 0 and word == "ended" and number.isdecimal() and int(number) <= MAX_WAIT_STATUS:
            status = int(number)
        elif self._report >= 0:
            code = os.waitstatus_to_exitcode(status)
            return None, (-code if code < 0 else code - 128 if code > 128 else None)
        code = os.waitstatus_to_exitcode(status)
        return (None, -code) if code < 0 else (code, None)

    def _kill_child(self) -> None:
        if self._child and self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        self._groups.kill()
        _kill_descendants()


def _only_child(pid: int) -> int:
    found = spawn.children(pid)
    if len(found) != 1:
        raise FailedError(f"Expected one process below {pid}, found {found}.")
    return found[0]


def _exec_walls(walls: "Spec", fds: tuple[int, int, int]) -> None:
    """Become bubblewrap. Its arguments go through a file in memory: they name the host's folders."""
    arguments = list(walls["arguments"])
    for inside, content in walls["files"]:
        arguments += ["--perms", "0644", "--file", str(_memory_file(content)), inside]
    if walls["seccomp"]:
        arguments += ["--seccomp", str(_memory_file(walls["seccomp"]))]
    if walls["stage"]:
        from hive.runtimes import stage  # In the child alone: it needs ctypes.

        stage.enter(walls["stage_folder"], walls["stage"], walls["uid"])
    for fd in fds:
        os.set_inheritable(fd, True)
    arguments += walls["last"]
    packed = _memory_file(b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
    command = [walls["bwrap"], "--args", str(packed), "--", *walls["init"], *(str(fd) for fd in fds)]
    os.umask(0o022)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(walls["bwrap"], command, {})


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("hive", 0)
    _write_all(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _become_subreaper() -> None:
    """Inherit the orphans of the program, so that none outlives it."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise FailedError("The kernel refused to make the shim a subreaper.")


def _kill_descendants() -> None:
    """Kill all that is left below the shim. Orphans of the killed come to the shim, so this ends with none."""
    while True:
        for pid in _below(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _below(pid: int) -> list[int]:
    found = [pid]
    for ancestor in found:
        found += spawn.children(ancestor)
    return found[1:]


def _read_some(fd: int) -> bytes | None:
    """What is there now: empty at the end, None when nothing is there yet."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _replace(path: str, content: bytes) -> None:
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(fd, content)
    finally:
        os.close(fd)
    os.replace(f"{path}.new", path)


def _json(value: bool | int | None) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(int(value))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _lock(record: str) -> bool:
    """Hold the record for as long as the shim lives; False when another shim does."""
    fd = os.open(f"{record}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def main() -> None:
    spec_fd, ready_fd = int(sys.argv[2]), int(sys.argv[3])
    if os.fork():
        os._exit(0)  # The daemon waits for this one; the other is nobody's child.
    for fd in (spec_fd, ready_fd):
        os.set_inheritable(fd, False)
    os.setsid()
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.write(ready_fd, f"shim {os.getpid()}\n".encode())
    spec: Spec = marshal.loads(spawn.read_all(spec_fd))
    os.close(spec_fd)
    if not _lock(spec["record"]):
        os.write(ready_fd, b"busy\n")
        return
    try:
        run = Run(spec)
        pid, since_ms = run.start()
    except (FailedError, OSError) as error:
        os.write(ready_fd, f"failed {' '.join(str(error).split())}\n".encode())
        return
    del spec
    with contextlib.suppress(BrokenPipeError):  # The daemon has gone; it will find the run on record.
        os.write(ready_fd, f"running {pid} {since_ms}\n".encode())
    os.close(ready_fd)
    run.watch()


if __name__ == "__main__":
    main()
