"""Which process is at the other end of a connection, as the kernel reports it."""

import contextlib
import socket
import struct
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process, told from others that had its pid before."""

    pid: int
    started: int
    """Clock ticks since the host's boot."""


class Peer:
    """The process at the other end, as the kernel reports it (SO_PEERCRED)."""

    def __init__(self, connection: socket.socket):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid, self.uid, self.gid = struct.unpack("3i", raw)

    def process(self) -> Process | None:
        """None if it has ended or belongs to a pid namespace that this host does not see."""
        return process_of(self.pid)


def process_of(pid: int) -> Process | None:
    """The running process with this pid."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return Process(pid, int(fields[19]))
    return None
