"""Boots an OS tree with systemd-nspawn and connects to the launcher inside. Only the shim of such a run imports it.

Stdlib only. The root of the container is an overlay: the tree below, shared and read-only, and a tmpfs above. The
launcher, a unit of the booted system, connects to a socket and receives the descriptors of the shim's pipes.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH102, PTH103, PTH112, PTH120, PTH211

import ctypes
import os
import select
import signal
import socket
import struct
import time

from hive.runtimes import idmap, spawn

BOOT_S = 50.0
"""From the start of systemd-nspawn to the launcher's connection; less than the daemon waits for the shim."""
IDS = 65536
"""User ids of one container."""
CONTROL = "control"
"""Folder with the shim's socket, below the mount point."""
SOCKET = "shim.sock"
UNITS = "units"
ROOT = "root"
TEXT_BYTES = 8192
PR_SET_PDEATHSIG = 1
MS_NOSUID_NODEV = 2 | 4
MS_BIND = 4096

TYPE_CHECKING = False
if TYPE_CHECKING:  # Importing typing costs each shim 1 MB of memory.
    from typing import Any

    Machine = dict[str, Any]
    """Built by `os_tree`, which documents the keys."""


def unbound_socket() -> socket.socket:
    """The shim's end of the connection to the launcher; the child binds it in its own mount namespace."""
    return socket.socket(socket.AF_UNIX)


def execute(machine: "Machine", parent: int, listener: socket.socket, listening: int) -> None:
    """In the shim's child: set up the root and execute systemd-nspawn.

    Raises:
        OSError: the kernel refused; the text says what.
    """
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        raise OSError("the shim has ended")
    place, base = machine["mount_point"], machine["first_id"]
    idmap.enter_mount_namespace(place, machine["idmapped"], machine["uid"])
    os.umask(0o022)
    os.chdir(place)
    _make_root(machine, base)
    _make_units(machine["units"])
    os.mkdir(CONTROL, 0o700)
    listener.bind(f"{CONTROL}/{SOCKET}")
    listener.listen(1)
    for path in (CONTROL, f"{CONTROL}/{SOCKET}"):
        os.chown(path, base, base)
    os.write(listening, b"l")
    os.chdir("/")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(machine["nspawn"], [machine["nspawn"], *machine["arguments"]], machine["variables"])


def _make_root(machine: "Machine", base: int) -> None:
    """Mount the root. Files of the tree keep their owners, shifted into the container's range."""
    for name, path in machine["shared"]:
        idmap.mount_range(path, name, base, IDS, required=False)
    os.mkdir("volatile")
    idmap.mount("tmpfs", "volatile", f"mode=0755,size={machine['root_bytes']}", MS_NOSUID_NODEV)
    for name in ("upper", "work"):
        os.mkdir(f"volatile/{name}", 0o755)
        os.chown(f"volatile/{name}", base, base)
    for path in machine["folders"]:
        _make_folder(f"volatile/upper{path}", base)
    for path, content in machine["files"]:
        _make_folder(os.path.dirname(f"volatile/upper{path}"), base)
        _write(f"volatile/upper{path}", content)
        os.chown(f"volatile/upper{path}", base, base)
    for path, target in machine["links"]:
        os.symlink(target, f"volatile/upper{path}")
    os.mkdir(ROOT)
    if not machine["tree"]:
        idmap.mount("none", ROOT, "", MS_BIND, "volatile/upper")
        return
    idmap.mount_range(machine["tree"], "tree", base, IDS)
    idmap.mount("overlay", ROOT, "lowerdir=tree,upperdir=volatile/upper,workdir=volatile/work", 0)


def _make_folder(path: str, base: int) -> None:
    if not os.path.isdir(path):
        _make_folder(os.path.dirname(path), base)
        os.mkdir(path, 0o755)
        os.chown(path, base, base)


def _make_units(units: list[tuple[str, bytes, str]]) -> None:
    """Unit files, each wanted by a target."""
    for name, content, target in units:
        os.makedirs(f"{UNITS}/{target}.wants", exist_ok=True)
        _write(f"{UNITS}/{name}", content)
        os.symlink(f"../{name}", f"{UNITS}/{target}.wants/{name}")


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)


def hand_over(machine: "Machine", listener: socket.socket, listening: int, boot: int, fds: list[int]) -> int:
    """In the shim: wait for the launcher and pass it the descriptors. Return the launcher's host pid.

    Raises:
        OSError: systemd-nspawn ended, or the system did not boot in time; the text is what it printed.
    """
    is_listening = os.read(listening, 1)
    os.close(listening)
    if not is_listening:
        raise OSError(_text(spawn.read_all(boot)) or "systemd-nspawn could not be executed")
    deadline, printed = time.monotonic() + BOOT_S, b""
    poll = select.poll()
    for fd in (listener.fileno(), boot):
        poll.register(fd, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
        if listener.fileno() in ready:
            connection, _ = listener.accept()
            with connection, listener:
                pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if uid != machine["first_id"]:
                    raise OSError(f"uid {uid} connected in place of the launcher")
                socket.send_fds(connection, [b"x"], fds)
            return int(pid)
        if boot in ready:
            more = os.read(boot, TEXT_BYTES)
            printed = (printed + more)[-TEXT_BYTES:]
            if not more:
                raise OSError(_text(printed) or "systemd-nspawn ended")
        if not ready:
            raise OSError(f"the system did not boot in {BOOT_S:g} s: {_text(printed)}")


def _text(printed: bytes) -> str:
    return " ".join(printed.decode(errors="replace").split())
