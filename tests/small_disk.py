"""A small real file system: a tmpfs in a mount namespace of the test's own, which nothing else on the host sees."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from missing_tool import missing_tool

CLONE_FS: Final = 0x00000200
CLONE_NEWNS: Final = 0x00020000
"""Of `sched.h`."""
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def small_disk(folder: Path, mb: int) -> Iterator[None]:
    """Mount a file system of so many MiB on a folder, for this thread and what it starts from here on."""
    folder.mkdir(exist_ok=True)
    with _own_mounts():
        _run("mount", "-t", "tmpfs", "-o", f"size={mb}m", "tmpfs", str(folder))
        yield


def grow(folder: Path, mb: int) -> None:
    """Give the file system so many MiB."""
    _run("mount", "-o", f"remount,size={mb}m", str(folder))


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def _own_mounts() -> Iterator[None]:
    outside, here = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), Path.cwd()
    try:
        if _libc.unshare(CLONE_NEWNS) != 0:
            missing_tool(f"this user cannot make a mount namespace: {os.strerror(ctypes.get_errno())}")
        try:
            _run("mount", "--make-rprivate", "/")
            yield
        finally:
            _libc.unshare(CLONE_FS)  # Threads that were started meanwhile share it, and `setns` refuses that.
            assert _libc.setns(outside, CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
            os.chdir(here)
    finally:
        os.close(outside)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
