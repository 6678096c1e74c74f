"""Reserves host users, so that two hives of root on one host never share a uid.

The daemon takes the reservations, and `hive demo` looks for a free range. Under an ordinary user neither needs them.
"""

import errno
import fcntl
import os
import secrets
import struct
import time
from pathlib import Path
from typing import Final

import msgspec

from hive.errors import Unavailable

LOCK_FILE: Final = Path("/run/hive-uids.lock")
"""Only root can open it. The byte at offset N stands for uid N; the file stays empty."""
AGENT_USERS: Final = 100
"""Uids that a daemon reserves for builds and agents at its start. More are reserved when an agent needs one."""
SYSTEMS: Final = 16
"""The same for agents that have a range of uids each."""
FREE_RANGES: Final = range(300_000, 500_000, 1_000)
"""First uids that `free_first_uid` chooses from. Below the uids of systemd's containers."""
HELPER_USERS: Final = 10
"""Uids directly below the first one, for the dashboard and other processes of the daemon."""
STEP_S: Final = 0.05
FLOCK: Final = "hhqqi4x"
"""struct flock of 64-bit Linux."""


class Reserved(msgspec.Struct, frozen=True):
    """Uids and the key of hive.toml that chooses them."""

    key: str
    first: int
    count: int = 1

    def users(self) -> str:
        return str(self.first) if self.count == 1 else f"{self.first}-{self.first + self.count - 1}"


class HostUsers:
    """The reserved uids of one hive, as locks on byte ranges of a file.

    The kernel releases them when the process ends, also after a crash. Child processes do not inherit them.
    """

    def __init__(self, lock_file: Path = LOCK_FILE):
        self._path = lock_file
        self._fd: int | None = None

    def reserve(self, *wanted: Reserved, within_s: float = 0) -> None:
        """Reserve uids. Uids that this hive already has stay reserved.

        `within_s`: how long to try. A process that a killed daemon was just starting holds its locks for a moment.

        Raises:
            Unavailable: another hive uses some of them. Names the keys to set.
        """
        deadline = time.monotonic() + within_s
        while (taken := [one for one in wanted if not self._lock(one)]) and time.monotonic() < deadline:
            time.sleep(STEP_S)
        if taken:
            users = ", ".join(one.users() for one in taken)
            keys = " and ".join(one.key for one in taken)
            raise Unavailable(
                f"Another hive on this host uses the host users {users}. "
                f"In hive.toml, set {keys} to users that no other hive has."
            )

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self, one: Reserved) -> bool:
        if self._fd is None:
            self._fd = _open(self._path)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(one.first, one.count))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


def reserved_users(ids_per_agent: int) -> int:
    """How many uids a daemon reserves at its start."""
    return AGENT_USERS if ids_per_agent == 1 else SYSTEMS * ids_per_agent


def free_first_uid(lock_file: Path = LOCK_FILE) -> int:
    """A value for `runtime.first_uid` that no running hive uses, nor the uids right below it; chosen at random.

    Raises:
        Unavailable: every range is in use.
    """
    candidates = list(FREE_RANGES)
    fd = _open(lock_file)
    try:
        while candidates:
            first = candidates.pop(secrets.randbelow(len(candidates)))
            asked = _flock(first - HELPER_USERS, HELPER_USERS + AGENT_USERS)
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
            if struct.unpack(FLOCK, answer)[0] == fcntl.F_UNLCK:
                return first
    finally:
        os.close(fd)
    raise Unavailable("Every range of host users for a demo is in use. Stop a hive on this host.")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _flock(first: int, count: int) -> bytes:
    return struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
