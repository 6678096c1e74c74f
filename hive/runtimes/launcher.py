"""The unit of a booted container that starts the agent's program. Run by systemd inside, as the container's root.

`python -I -S launcher.py SOCKET`; stdlib only. The shim sends the descriptors of its pipes over the socket. The program
runs as the agent, without privileges; the launcher keeps the container's root, so that the agent cannot signal it.
"""

# Importing pathlib costs each container 1 MB of memory.
# ruff: noqa: PTH100, PTH101, PTH116, PTH120

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import ctypes
import marshal
import socket
import stat

from hive.runtimes import init, rlimits, spawn

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
POWER_OFF = 0x4321FEDC
FDS = 5
STEP_BYTES = 8


def connect(path: str) -> tuple[int, ...]:
    """The shim's descriptors: specification, start signal, reports, listener of `hive forward`, output."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        _, fds, _, _ = socket.recv_fds(connection, 1, FDS)
    for fd in fds:
        os.set_inheritable(fd, False)
    return tuple(fds)


def power_off() -> None:
    """Kill every process of the container: the kernel kills the init of a namespace that calls reboot."""
    ctypes.CDLL(None).reboot(POWER_OFF)
    os._exit(1)


def end_with_shim(life: int) -> None:
    """Kill the container when the shim dies: it would go on without systemd-nspawn."""
    init.wait_for_shim_end(life)
    power_off()


def let_pass(folder: str) -> None:
    """Let the agent reach what lies below. Done here, because a system sets the mode of /root as it boots."""
    mode = os.stat(folder).st_mode
    if not mode & 0o001:
        os.chmod(folder, stat.S_IMODE(mode) | 0o011)


def filter_calls(program: bytes) -> None:
    """Install a system call filter for the calling process and its children."""
    steps = ctypes.create_string_buffer(program, len(program))
    header = _Filter(len(program) // STEP_BYTES, ctypes.cast(steps, ctypes.c_void_p))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused the system call filter")


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("steps", ctypes.c_ushort), ("code", ctypes.c_void_p))


def main() -> None:
    try:
        spec_fd, go_fd, report_fd, forward_fd, output_fd = connect(sys.argv[1])
    except (OSError, ValueError):  # The shim has died meanwhile.
        power_off()
        return
    raw = spawn.read_all(spec_fd)
    if not raw:
        power_off()
    spec = marshal.loads(raw)

    for folder in spec["passable"]:
        let_pass(folder)

    def become_agent() -> None:
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        init.drop_privileges(spec["program_uid"])
        rlimits.apply(spec["rlimits"])
        if spec["seccomp"]:
            filter_calls(spec["seccomp"])

    try:
        forwarding = init.Forwarding(spec["port"], forward_fd, spec["program_uid"])
        environment = forwarding.fill_in(spec["environment"])
        held = spawn.PausedProcess(spec["argv"], environment, spec["folder"], become_agent)
    except OSError as error:
        os.write(report_fd, f"failed {error}\n".encode())
        return
    spec.clear()
    os.close(output_fd)
    init.supervise(held, forwarding, go_fd, report_fd, end_with_shim)
    os.close(report_fd)  # The shim shuts the system down now.
    end_with_shim(go_fd)


if __name__ == "__main__":
    main()
