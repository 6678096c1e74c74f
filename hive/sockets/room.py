"""Room on the disk of the state folder: below a floor agents are refused, so that the operator can still decide.

Event-loop only. Looks at the disk when an agent asks for something, at most a few times a second.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hive.errors import Unavailable
from hive.settings import FREE_MB
from hive.sockets.buckets import Seconds

MIB: Final = 1024 * 1024
LOOK_EVERY_S: Final = 0.25
SMALL_DISK_PART: Final = 10
"""Where `limits.free_mb` is absent, a tenth of a small file system is enough."""
FREED_PART: Final = 1.1
"""Agents go on when there is a tenth more than the floor, so that they do not stop and go with each message."""


class Room:
    """Whether there is room for what agents want to write."""

    def __init__(
        self, folder: Path, free_mb: Callable[[], int | None], report: Callable[[bool, int, int], None], now: Seconds
    ):
        """`report(is_low, free_mb, floor_mb)` is called when that changes."""
        self._folder = folder
        self._free_mb = free_mb
        self._report = report
        self._now = now
        self._looked_s = now() - LOOK_EVERY_S
        self._is_low = False
        self._free = self._floor = 0

    def refuse_low(self, cmd: str) -> None:
        """Raises Unavailable: there is too little room."""
        if self._now() - self._looked_s >= LOOK_EVERY_S:
            self._look()
        if self._is_low:
            raise Unavailable(
                f"{cmd} is refused: the disk has {self._free // MIB} MiB left, and agents must leave"
                f" {self._floor // MIB} MiB. Nothing was written. Try again later; hive goes on when there is room."
            )

    def _look(self) -> None:
        self._looked_s = self._now()
        disk = os.statvfs(self._folder)
        self._free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        wanted = self._free_mb()
        self._floor = min(FREE_MB * MIB, whole // SMALL_DISK_PART) if wanted is None else wanted * MIB
        is_low = self._free < self._floor * (FREED_PART if self._is_low else 1.0)
        if is_low is not self._is_low:
            self._is_low = is_low
            self._report(is_low, self._free // MIB, self._floor // MIB)
