"""Process helpers of the shim and the container's init: fork a program, pause it until it is on record, execute it.

Stdlib only.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH101, PTH108, PTH123, PTH208

import contextlib
import os
from collections.abc import Callable

PR_SET_CHILD_SUBREAPER = 36

LISTEN_BACKLOG = 128


class PausedProcess:
    """A forked child that waits for `release`. It exits if its parent exits first."""

    def __init__(
        self, argv: list[str], environment: dict[str, str], folder: str, prepare: Callable[[], None] | None = None
    ) -> None:
        """`prepare` runs in the child before it waits. The program gets its own session."""
        go_read, self._go = os.pipe()
        self._failure, failure_write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(go_read)
            os.close(failure_write)
            return
        os.close(self._go)
        os.close(self._failure)
        try:
            if prepare is not None:
                prepare()
            if not os.read(go_read, 1):
                os._exit(0)
            execute(argv, environment, folder)
        except OSError as error:
            os.write(failure_write, f"{argv[0]}: {error.strerror}".encode())
        except Exception as error:  # noqa: BLE001  (a forked child must never return into its parent's code)
            os.write(failure_write, repr(error).encode())
        finally:
            os._exit(127)

    def release(self) -> str:
        """Execute the program. Return the error, or an empty string."""
        os.write(self._go, b"g")
        os.close(self._go)
        said = read_all(self._failure)
        os.close(self._failure)
        return said.decode(errors="replace")


def execute(argv: list[str], environment: dict[str, str], folder: str) -> None:
    """Replace the calling process; signals are at their defaults and only 0, 1 and 2 stay open."""
    import signal  # After the fork, so that the parent does not load it.

    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.umask(0o022)
    os.chdir(folder)
    os.execve(find_program(argv[0], environment), argv, environment)


def find_program(name: str, environment: dict[str, str]) -> str:
    """The path of `name` in the program's own PATH."""
    if "/" in name:
        return name
    for folder in environment.get("PATH", "").split(":"):
        path = f"{folder}/{name}"
        if folder and os.access(path, os.X_OK):
            return path
    return name


def read_all(fd: int) -> bytes:
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


def children(pid: int) -> list[int]:
    """Host pids of the children of a process."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:  # No CONFIG_PROC_CHILDREN, or the process has ended.
        return [other for other in _all_pids() if parent_of(other) == pid]


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def parent_of(pid: int) -> int | None:
    fields = stat_fields(pid)
    return int(fields[1]) if fields else None


def started(pid: int) -> int | None:
    """The start time in clock ticks since boot, which identifies a process together with its pid; None if not alive."""
    fields = stat_fields(pid)
    if not fields or fields[0] in "ZX":
        return None
    return int(fields[19])


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may contain spaces and brackets."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def become_subreaper() -> None:
    """Adopt the program's orphans, so that none outlives it."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("The kernel refused to make the shim a subreaper.")


def kill_descendants() -> None:
    """Kill all processes below the shim. It adopts orphans, so the loop ends when none is left."""
    while True:
        for pid in below(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def below(pid: int) -> list[int]:
    """Host pids of all descendants of a process."""
    found = [pid]
    for ancestor in found:
        found += children(ancestor)
    return found[1:]


def only_child(pid: int) -> int:
    found = children(pid)
    if len(found) != 1:
        raise OSError(f"Expected one process below {pid}, found {found}.")
    return found[0]


def listen_unix(folder: str, name: str) -> int:
    """Listen on a socket file for this process's user alone, in a folder with a path of any length."""
    import _socket  # The socket module costs each shim 2 MB of memory.

    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{opened}/{name}")
        os.chmod(f"{folder}/{name}", 0o600)
        listener.listen(LISTEN_BACKLOG)
        return listener.detach()
    finally:
        os.close(opened)
