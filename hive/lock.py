"""The flock that allows one daemon per state folder. The daemon and an offline rebuild take it; readers test it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hive.errors import CorruptState

TAKE_FOR_S = 0.5
"""How long to try: a reader's test holds a shared lock for a moment."""
STEP_S = 0.02


def is_held(lock: Path) -> bool:
    """Whether a daemon or an offline rebuild runs on this state. Creates no file."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # Another user's state. Assume that it can change at any time.
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold the lock exclusively. Children do not inherit it; the kernel releases it when the process ends.

    Raises:
        CorruptState: another daemon holds the lock.
    """
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(fd, lock)
        yield
    finally:
        os.close(fd)


def _take(fd: int, lock: Path) -> None:
    deadline = time.monotonic() + TAKE_FOR_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise CorruptState(
                    f"A hive daemon already runs on {lock.parent}; stop it with `hive down` first."
                ) from None
            time.sleep(STEP_S)
        else:
            return
