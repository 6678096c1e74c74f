"""Disk space that a hive holds back: on a full disk the journal releases it, so that the operator can still decide.

It is one file of zeros in the state folder. Its size says how much is left, so it needs no other state.
"""

import os
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
FILE_NAME: Final = "reserve"
SIZE_BYTES: Final = 8 * MIB
SMALL_DISK_PART: Final = 20
"""A twentieth of a small file system is enough."""
PORTION_BYTES: Final = 256 * 1024
"""Released at once, and a multiple of what is to be written: whoever fills the disk may take a part of it."""
PORTION_FACTOR: Final = 4


class Reserve:
    """The reserve of one state folder. The journal's thread releases it; any thread may fill it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / FILE_NAME

    def is_whole(self) -> bool:
        """Whether all of it is there. False: the disk is full, or was until a moment ago."""
        return self._left() >= self._wanted()

    def fill(self) -> bool:
        """Take what is missing, if the disk then still has as much room. Returns whether the reserve is whole."""
        wanted, left = self._wanted(), self._left()
        if left >= wanted:
            return True
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < 2 * wanted - left:
            return False
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            if os.geteuid() == 0:  # Root may work on the files of a daemon with a user of its own.
                owner = self._folder.stat()
                os.fchown(file, owner.st_uid, owner.st_gid)
            os.posix_fallocate(file, 0, wanted)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def release(self, needed_bytes: int) -> bool:
        """Give back room for a write that found the disk full. False: there was room, or nothing is left."""
        disk = os.statvfs(self._folder)
        portion = max(PORTION_BYTES, PORTION_FACTOR * needed_bytes)
        left = self._left()
        if not left or disk.f_bavail * disk.f_frsize > portion:
            return False
        try:
            os.truncate(self._path, max(0, left - portion))
        except OSError:
            return False
        return True

    def _wanted(self) -> int:
        disk = os.statvfs(self._folder)
        return min(SIZE_BYTES, disk.f_blocks * disk.f_frsize // SMALL_DISK_PART)

    def _left(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
