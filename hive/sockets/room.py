"""Room on the disk of the state folder: below a floor agents are refused, so that the operator can still decide.

Event-loop only. Looks at the disk when an agent asks for something, and each second by itself.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from hive.errors import Unavailable
from hive.reserve import Reserve
from hive.settings import FREE_MB
from hive.sockets.buckets import Seconds

MIB: Final = 1024 * 1024
LOOK_EVERY_S: Final = 0.25
"""When an agent asks."""
TICK_S: Final = 1.0
"""When none does."""
RECORD_AGAIN_S: Final = 10.0
"""After a change that could not be recorded."""
SMALL_DISK_PART: Final = 10
"""Where `limits.free_mb` is absent, a tenth of a small file system is enough."""
FREED_PART: Final = 1.1
"""Agents go on when there is a tenth more than the floor, so that they do not stop and go with each message."""

Record = Callable[[bool, int, int], Awaitable[bool]]
"""`record(is_low, free_mb, floor_mb)` writes it to the log. Returns False if the log cannot be written."""


class Room:
    """Whether there is room for what agents want to write."""

    def __init__(self, folder: Path, free_mb: Callable[[], int | None], record: Record, now: Seconds, was_low: bool):
        """`was_low`: what the log says."""
        self._folder = folder
        self._free_mb = free_mb
        self._record = record
        self._now = now
        self._reserve = Reserve(folder)
        self._looked_s = now() - LOOK_EVERY_S
        self._is_low = self._recorded = was_low
        self._record_from_s = now()
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

    async def watch(self) -> None:
        """Look each second, record what changed, and fill the reserve when there is room. Runs until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Look once. What could not be recorded is recorded by a later tick, if it still holds."""
        self._look()
        is_low = self._is_low
        if is_low is not self._recorded and self._now() >= self._record_from_s:
            if await self._record(is_low, self._free // MIB, self._floor // MIB):
                self._recorded = is_low
            else:
                self._record_from_s = self._now() + RECORD_AGAIN_S
        if not self._is_low:
            await asyncio.to_thread(self._reserve.fill)

    def _look(self) -> None:
        self._looked_s = self._now()
        disk = os.statvfs(self._folder)
        self._free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        wanted = self._free_mb()
        self._floor = min(FREE_MB * MIB, whole // SMALL_DISK_PART) if wanted is None else wanted * MIB
        self._is_low = self._free < self._floor * (FREED_PART if self._is_low else 1.0)
