"""Process 1 in the sandbox: drops privileges, starts the program, reaps orphans, reports how the program ended.

Run by bubblewrap as `python -I -S init.py SPEC_FD GO_FD REPORT_FD`; stdlib only.
When it exits, the kernel kills every other process in the sandbox.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH100, PTH120

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import _thread
import ctypes
import marshal
from collections.abc import Callable

from hive.runtimes import rlimits, spawn

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CAPABILITIES = 64
"""More than any kernel has; the kernel refuses to drop an unknown one, which is harmless."""
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


def supervise(
    held: spawn.PausedProcess, go_fd: int, report_fd: int, watch_shim: Callable[[int], None] = end_with_shim
) -> None:
    """Release the program once the shim says so, reap orphans, and report how the program ended.

    `watch_shim` runs in a thread of its own and ends the container when the shim's pipe closes.
    """
    os.write(report_fd, b"held\n")
    if not os.read(go_fd, 1):
        return
    if failure := held.release():
        os.write(report_fd, f"failed {' '.join(failure.split())}\n".encode())
        return
    os.write(report_fd, b"executed\n")
    _thread.start_new_thread(watch_shim, (go_fd,))
    while True:
        pid, status = os.wait()
        if pid == held.pid:
            os.write(report_fd, f"ended {status}\n".encode())
            return


def main() -> None:
    spec_fd, go_fd, report_fd = (int(argument) for argument in sys.argv[1:4])
    for fd in (spec_fd, go_fd, report_fd):
        os.set_inheritable(fd, False)
    spec = marshal.loads(spawn.read_all(spec_fd))
    try:
        drop_privileges(spec["uid"])
        rlimits.apply(spec["rlimits"])
        held = spawn.PausedProcess(spec["argv"], spec["environment"], spec["folder"])
    except OSError as error:
        os.write(report_fd, f"failed {error}\n".encode())
        return
    del spec
    supervise(held, go_fd, report_fd)


if __name__ == "__main__":
    main()
