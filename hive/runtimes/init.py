"""Process 1 in the sandbox: drops privileges, starts the program, reaps orphans, reports how the program ended.

Run by bubblewrap as `python -I -S init.py SPEC_FD GO_FD REPORT_FD FORWARD_FD`; stdlib only.
When it exits, the kernel kills every other process in the sandbox.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH100, PTH120

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import _socket
import _thread
import ctypes
import marshal
import time
from collections.abc import Callable

from hive.runtimes import network, rlimits, spawn

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CAPABILITIES = 64
"""More than any kernel has; the kernel refuses to drop an unknown one, which is harmless."""
FORWARDER_PAUSE_S = 1.0
"""Delay before a forwarder that ended is started again."""
CAPABILITY_VERSION_3 = 0x20080522


def drop_privileges(uid: int | None) -> None:
    """Switch to `uid` irrevocably, without capabilities and supplementary groups. None: already an ordinary user."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0 or libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused to drop privileges")
    # The program has the same uid; this denies it ptrace and access to our descriptors.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def end_with_shim(life: int) -> None:
    """Exit, and end the container, when the shim's pipe closes.

    A parent-death signal does not work: bubblewrap without capabilities may not signal another uid.
    """
    wait_for_shim_end(life)
    os._exit(1)


def wait_for_shim_end(life: int) -> None:
    """Return once the shim has closed its pipe or died."""
    while os.read(life, 1):
        pass


class Forwarding:
    """The forwarder, as a child process. The listener stays here, so a new child takes over waiting connections."""

    def __init__(self, port: int, inward: int, uid: int | None = None) -> None:
        """`uid`: who the child becomes, if the caller has privileges. Raises OSError: loopback cannot be used."""
        # Not the socket module: it would cost every container two megabytes once more.
        self._listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        self._listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(network.BACKLOG)
        self._inward = inward
        self._uid = uid
        self.pid = 0

    def fill_in(self, environment: dict[str, str]) -> dict[str, str]:
        """Name the port that was taken; it differs from the fixed one only on the host's network."""
        address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        return {name: value.replace(network.ADDRESS, address) for name, value in environment.items()}

    def start(self, *unneeded: int, after_s: float = 0) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        try:
            for fd in unneeded:
                os.close(fd)
            if self._uid is not None:
                drop_privileges(self._uid)
            if after_s:
                time.sleep(after_s)
            from hive.runtimes import forwarder  # In the child alone.

            forwarder.serve(self._listener.fileno(), network.NET_SOCKET, self._inward)
        except Exception as error:  # noqa: BLE001  (a forked child must never return into its parent's code)
            sys.stderr.write(f"hive: the forwarder ended: {error!r}\n")
        finally:
            os._exit(1)


def supervise(
    held: spawn.PausedProcess,
    forwarding: Forwarding,
    go_fd: int,
    report_fd: int,
    watch_shim: Callable[[int], None] = end_with_shim,
) -> None:
    """Release the program once the shim says so, reap orphans, and report how the program ended.

    `watch_shim` runs in a thread of its own and ends the container when the shim's pipe closes.
    """
    os.write(report_fd, b"held\n")
    if not os.read(go_fd, 1):
        return
    forwarding.start(go_fd, report_fd)
    if failure := held.release():
        os.write(report_fd, f"failed {' '.join(failure.split())}\n".encode())
        return
    os.write(report_fd, b"executed\n")
    _thread.start_new_thread(watch_shim, (go_fd,))
    while True:
        pid, status = os.wait()
        if pid == forwarding.pid:
            forwarding.start(go_fd, report_fd, after_s=FORWARDER_PAUSE_S)
        if pid == held.pid:
            os.write(report_fd, f"ended {status}\n".encode())
            return


def main() -> None:
    spec_fd, go_fd, report_fd, forward_fd = (int(argument) for argument in sys.argv[1:5])
    for fd in (spec_fd, go_fd, report_fd, forward_fd):
        os.set_inheritable(fd, False)
    spec = marshal.loads(spawn.read_all(spec_fd))
    try:
        drop_privileges(spec["program_uid"])
        rlimits.apply(spec["rlimits"])
        forwarding = Forwarding(spec["port"], forward_fd)
        held = spawn.PausedProcess(spec["argv"], forwarding.fill_in(spec["environment"]), spec["folder"])
    except OSError as error:
        os.write(report_fd, f"failed {error}\n".encode())
        return
    del spec
    supervise(held, forwarding, go_fd, report_fd)


if __name__ == "__main__":
    main()
