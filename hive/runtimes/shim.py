"""The shim: one small process per agent. It outlives the daemon, stores the output and records how the run ended.

Run by `launch` as `python -I -S shim.py NAME SPEC_FD READY_FD`; stdlib only. After the start it communicates with the
daemon only through the files of the record folder: `lock` (held while the shim lives), `run.json`, `exit.json`,
`output` and `output.1`.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH100, PTH106, PTH108, PTH110, PTH120

import os
import sys

if __name__ == "__main__":  # -I excludes the package from the path.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import contextlib
import fcntl
import marshal
import select
import signal
import time

from hive.runtimes import cgroup, end_cause, network, record_files, rlimits, spawn
from hive.runtimes.output import Output

READ_BYTES = 65536
DRAIN_BYTES = 1024 * 1024
"""More than a pipe can hold; the limit of the final read."""
MAX_WAIT_STATUS = 0xFFFF
HALT_S = 5.0
"""How long a booted system may take to shut down after its program has ended."""
SIGNAL_POWER_OFF = signal.SIGRTMIN + 4
SAMPLE_MS = 30_000
"""How often refused forks are sampled: only recent ones explain an end."""
DATA_BYTES = 256 * 1024 * 1024
"""The shim's own memory limit."""
REPORT_LINE_BYTES = 4096
"""The agent may forge the reports of the container's init, so their length is limited."""


TYPE_CHECKING = False
if TYPE_CHECKING:  # Importing typing costs each shim 1 MB of memory.
    from typing import Any

    Spec = dict[str, Any]
    """Built by `launch`, which documents the keys."""


class FailedError(Exception):
    """The run could not be started; the daemon receives the text."""


class Run:
    """One run of one program, from the spec to its exit."""

    def __init__(self, spec: "Spec") -> None:
        self._spec = spec
        self._record: str = spec["record"]
        self._output = Output(f"{self._record}/output")
        self._groups = cgroup.Groups(spec["cgroups"])
        self._output_read, self._output_write = os.pipe()
        self._report = -1
        """The pipe with init's reports, or -1 without a sandbox."""
        self._life = -1
        """Init exits when this pipe closes, also when the shim dies."""
        self._said = b""
        self._console = -1
        """What a booted system prints outside of the program, or -1."""
        self._root = 0
        """The init of a booted system; 0 for other runs."""
        self._halt_by: float | None = None
        """When a system that is shutting down is killed."""
        self._refused_before = False
        """Whether forks were refused in the last sampled interval."""
        self._child = 0
        self._status: int | None = None
        """Raw wait status of the child: the program, bubblewrap or systemd-nspawn."""
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def start(self) -> tuple[int, int]:
        """Start the program and record it. Return its pid and the time.

        Raises:
            FailedError: it could not be executed. Nothing keeps running and the record is unchanged.
        """
        before = record_files.read(f"{self._record}/run.json")
        if os.path.exists(f"{self._record}/ordered"):
            os.unlink(f"{self._record}/ordered")
        try:
            return (
                self._start_plain() if self._spec["sandbox"] is None else self._start_sandboxed(self._spec["sandbox"])
            )
        except (FailedError, OSError) as error:
            self._kill_child()
            self._groups.remove()
            if before:
                record_files.replace(f"{self._record}/run.json", before)
            elif os.path.exists(f"{self._record}/run.json"):
                os.unlink(f"{self._record}/run.json")
            raise FailedError(str(error)) from error

    def _start_plain(self) -> tuple[int, int]:
        spawn.become_subreaper()
        spec = self._spec
        held = spawn.PausedProcess(
            spec["argv"], spec["environment"], spec["folder"], lambda: self._enter(self._output_write)
        )
        self._child = held.pid
        os.close(self._output_write)
        since_ms = self._put_on_record(held.pid, held.pid)
        if failure := held.release():
            raise FailedError(failure)
        return held.pid, since_ms

    def _start_sandboxed(self, sandbox: "Spec") -> tuple[int, int]:
        """Start the container with our init or launcher, which starts the program and reports how it ended."""
        spec_read, spec_write = os.pipe()
        go_read, go_write = os.pipe()
        self._report, report_write = os.pipe()
        fds = [spec_read, go_read, report_write, spawn.listen_unix(self._record, network.FORWARD_SOCKET_NAME)]
        init = self._boot(sandbox, fds) if "nspawn" in sandbox else self._run_bubblewrap(sandbox, fds)
        for fd in (*fds, self._output_write):
            os.close(fd)
        inside = {key: self._spec[key] for key in ("argv", "environment", "folder", "rlimits")}
        inside |= {key: sandbox[key] for key in ("program_uid", "seccomp", "port", "passable")}
        with contextlib.suppress(BrokenPipeError):  # The container has ended; its error is read next.
            record_files.write_all(spec_write, marshal.dumps(inside))
        os.close(spec_write)
        self._expect("held")
        root = spawn.only_child(self._child)
        program = spawn.only_child(init or root)
        since_ms = self._put_on_record(program, root)
        os.write(go_write, b"g")
        self._expect("executed")
        self._life = go_write
        return program, since_ms

    def _run_bubblewrap(self, sandbox: "Spec", fds: list[int]) -> int:
        """Fork bubblewrap. Its child is init."""
        self._child = os.fork()
        if not self._child:
            try:
                self._enter(self._output_write)
                _exec_sandbox(sandbox, fds)
            except (OSError, FailedError) as error:
                os.write(2, f"{error}\n".encode())
            finally:
                os._exit(127)
        return 0

    def _boot(self, sandbox: "Spec", fds: list[int]) -> int:
        """Fork systemd-nspawn and pass the descriptors to the launcher inside. Return the launcher's host pid."""
        from hive.runtimes import machine  # Only for such runs: it needs ctypes and socket.

        spawn.become_subreaper()
        parent, listener = os.getpid(), machine.unbound_socket()
        self._console, console_write = os.pipe()
        listening, listening_write = os.pipe()
        self._child = os.fork()
        if not self._child:
            try:
                self._enter(console_write)
                machine.execute(sandbox, parent, listener, listening_write)
            except OSError as error:
                os.write(2, f"{error}\n".encode())
            finally:
                os._exit(127)
        os.close(console_write)
        os.close(listening_write)
        launcher = machine.hand_over(sandbox, listener, listening, self._console, [*fds, self._output_write])
        self._root = spawn.only_child(self._child)
        return launcher

    def _enter(self, output: int) -> None:
        """In the child: join the agent's groups and redirect output to a pipe of the shim."""
        self._groups.join()
        rlimits.unlimit_data()
        if self._spec["sandbox"] is None:
            rlimits.apply(self._spec["rlimits"])
        os.dup2(output, 1)
        os.dup2(output, 2)

    def _expect(self, word: str) -> None:
        """Read one line from init.

        Raises:
            FailedError: the line is another one, or the container ended first.
        """
        while b"\n" not in self._said:
            more = os.read(self._report, REPORT_LINE_BYTES)
            if not more:
                raise FailedError(
                    spawn.read_all(self._output_read).decode(errors="replace").strip() or "the container ended"
                )
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        if line.decode(errors="replace") != word:
            raise FailedError(line.decode(errors="replace").removeprefix("failed "))

    def _put_on_record(self, program: int, root: int) -> int:
        """Write run.json before the program runs, so that a daemon finds every running program on record."""
        now = time.time_ns() // 1_000_000
        facts = (
            f',"pid":{program},"started":{spawn.started(program) or 0},"root":{root},'
            f'"root_started":{spawn.started(root) or 0},"shim":{os.getpid()},'
            f'"shim_started":{spawn.started(os.getpid()) or 0},"since_ms":{now},"boot":"{spawn.boot_id()}"}}'
        )
        record_files.replace(f"{self._record}/run.json", self._spec["head"].removesuffix(b"}") + facts.encode())
        return now

    def watch(self) -> None:
        """Store output and reap children until the run ends; then clean up and write exit.json."""
        poll = select.poll()
        console = Output(f"{self._record}/console") if self._root else None
        for fd in (self._output_read, self._report, self._console, self._wake):
            if fd >= 0:
                os.set_blocking(fd, False)
                poll.register(fd, select.POLLIN)
        while self._status is None:
            events = poll.poll(self._patience_ms())
            if not events and self._halt_by is None:
                self._refused_before = self._groups.newly_refused()
            for fd, _ in events:
                if fd == self._wake:
                    _read_some(fd)
                elif fd == self._console and console is not None and (data := _read_some(fd)):
                    console.write(data)
                elif not self._take(fd):
                    poll.unregister(fd)
                    if fd == self._report:
                        self._halt()
            self._reap()
        self._end()

    def _halt(self) -> None:
        """The program has ended: shut the booted system down. Killed later, if it does not."""
        if self._root:
            self._halt_by = time.monotonic() + HALT_S
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._root, SIGNAL_POWER_OFF)

    def _patience_ms(self) -> float:
        """How long to wait for news; kills a system that does not shut down."""
        if self._halt_by is None:
            return SAMPLE_MS
        left_s = self._halt_by - time.monotonic()
        if left_s <= 0:
            for pid in (self._root, self._child):  # The system outlives systemd-nspawn.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return SAMPLE_MS
        return left_s * 1000

    def _take(self, fd: int) -> bool:
        """Read once from the program or from init; False at end of file."""
        data = _read_some(fd)
        if data and fd == self._output_read:
            self._output.write(data)
        elif data and fd == self._report:
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
        at_ms = time.time_ns() // 1_000_000
        self._refused_before |= self._groups.newly_refused()  # Before `kill` refuses forks itself.
        if self._life >= 0:
            os.close(self._life)
        self._groups.kill()
        spawn.kill_descendants()
        left = DRAIN_BYTES
        while left > 0 and (data := _read_some(self._output_read)):
            self._output.write(data)
            left -= len(data)
        if self._report >= 0:
            self._take(self._report)
        code, by_signal = self._how_it_ended()
        oom, limit = self._groups.out_of_memory(), self._limit_hit(code, by_signal)
        self._groups.remove()
        if self._root:
            with contextlib.suppress(OSError):  # systemd-nspawn leaves it where /run is on a disk.
                os.rmdir(self._spec["sandbox"]["leftover"])
        # If only a child was killed for memory, the program ended for another reason.
        out_of_memory = None if oom is None else oom and limit == end_cause.MEMORY
        facts = {"code": code, "signal": by_signal, "out_of_memory": out_of_memory, "at_ms": at_ms}
        pairs = ",".join(f'"{key}":{record_files.json(value)}' for key, value in facts.items())
        if limit is not None:
            pairs += f',"limit":"{limit}"'
        record_files.replace(
            f"{self._record}/exit.json", self._spec["head"].removesuffix(b"}") + f",{pairs}}}".encode()
        )

    def _limit_hit(self, code: int | None, by_signal: int | None) -> str | None:
        """The limit that explains the end; none explains a success or an ordered end."""
        if code == 0 or os.path.exists(f"{self._record}/ordered"):
            return None
        return end_cause.limit_hit(
            self._output.tail,
            self._spec["state"],
            killed=by_signal == signal.SIGKILL,
            oom=self._groups.out_of_memory(),
            refused=None if self._groups.refused_processes() is None else self._refused_before,
        )

    def _how_it_ended(self) -> tuple[int | None, int | None]:
        """Exit code or signal. Init's report takes precedence: bubblewrap turns signals into codes."""
        status = self._status
        assert status is not None
        word, _, number = self._said.partition(b"\n")[0].decode(errors="replace").partition(" ")
        if self._report >= 0 and word == "ended" and number.isdecimal() and int(number) <= MAX_WAIT_STATUS:
            status = int(number)
        elif self._root:
            return None, signal.SIGKILL  # Only the kernel ends a launcher before it reports.
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
        spawn.kill_descendants()


def _exec_sandbox(sandbox: "Spec", fds: list[int]) -> None:
    """Execute bubblewrap. Its arguments go through a memory file, because they name the host's folders."""
    arguments = list(sandbox["arguments"])
    for inside, content in sandbox["files"]:
        arguments += ["--perms", "0644", "--file", str(_memory_file(content)), inside]
    if sandbox["seccomp"]:
        arguments += ["--seccomp", str(_memory_file(sandbox["seccomp"]))]
    if sandbox["idmapped"]:
        from hive.runtimes import idmap  # Only in the child: it needs ctypes.

        idmap.enter_mount_namespace(sandbox["mount_point"], sandbox["idmapped"], sandbox["uid"])
    for fd in fds:
        os.set_inheritable(fd, True)
    arguments += sandbox["last"]
    packed = _memory_file(b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
    command = [sandbox["bwrap"], "--args", str(packed), "--", *sandbox["init"], *(str(fd) for fd in fds)]
    os.umask(0o022)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(sandbox["bwrap"], command, {})


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("hive", 0)
    record_files.write_all(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _read_some(fd: int) -> bytes | None:
    """Available data; empty at end of file, None if there is none yet."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None


def _lock(record: str) -> bool:
    """Lock the record for the shim's lifetime; False if another shim holds it."""
    fd = os.open(f"{record}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def main() -> None:
    spec_fd, ready_fd = int(sys.argv[2]), int(sys.argv[3])
    if os.fork():
        os._exit(0)  # The daemon waits for this process; the other one is adopted by init.
    for fd in (spec_fd, ready_fd):
        os.set_inheritable(fd, False)
    os.setsid()
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    rlimits.limit_data(DATA_BYTES)
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
    with contextlib.suppress(BrokenPipeError):  # The next daemon finds the run on record.
        os.write(ready_fd, f"running {pid} {since_ms}\n".encode())
    os.close(ready_fd)
    run.watch()


if __name__ == "__main__":
    main()
