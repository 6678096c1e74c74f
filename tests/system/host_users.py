"""Gives every hive of the tests host users of its own, also when several test runs of root share a host."""

import fcntl
import os
import re
import struct
from pathlib import Path

from hive.errors import Unavailable
from hive.host_users import FLOCK, FREE_RANGES, HELPER_USERS, HostUsers, Reserved

TEST_LOCK = Path("/run/hive-test-uids.lock")
"""The byte at offset N is locked while a test process uses the Nth range."""
BESIDE_DEMOS = 500
"""Distance from the ranges that demos choose."""
KEYS = (("runtime", "first_uid", 0), ("dashboard", "uid", 1), ("broker", "uid", 2))
"""Tables and keys of hive.toml, and how far below the first agent's uid each lies."""


class TestUsers:
    """A range of host users for one hive, from its first use to `close`. Under an ordinary user: none."""

    __test__ = False

    def __init__(self) -> None:
        self._fd: int | None = None
        self.first_uid = 0

    def write_into(self, settings: Path) -> None:
        """Set the host users in a hive.toml that does not set them."""
        if os.geteuid() != 0:
            return
        if self._fd is None:
            self._fd, self.first_uid = _claim()
        text = settings.read_text() if settings.exists() else ""
        for table, key, below in KEYS:
            text = _with_key(text, table, f"{key} = {self.first_uid - below}")
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(text)
        settings.chmod(0o600)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _with_key(text: str, table: str, line: str) -> str:
    if re.search(
        rf"^{line.split(maxsplit=1)[0]} = ", text.partition(f"[{table}]")[2].partition("\n[")[0], re.MULTILINE
    ):
        return text
    header = f"[{table}]\n"
    if header in text:
        return text.replace(header, f"{header}{line}\n")
    return f"{text}\n{header}{line}\n"


def _claim() -> tuple[int, int]:
    """The open lock and the first uid. Skips ranges that a daemon of a killed test run still uses."""
    fd = os.open(TEST_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for nth in range(len(FREE_RANGES)):
        number = (os.getpid() + nth) % len(FREE_RANGES)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0))
        except BlockingIOError:
            continue
        first = FREE_RANGES[number] + BESIDE_DEMOS
        if _is_free(first):
            return fd, first
    raise AssertionError("every range of host users is in use")


def _is_free(first: int) -> bool:
    users = HostUsers()
    try:
        users.reserve(Reserved("runtime.first_uid", first - HELPER_USERS, BESIDE_DEMOS))
    except Unavailable:
        return False
    else:
        return True
    finally:
        users.close()
