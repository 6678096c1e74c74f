"""Whether agents are refused because the disk has too little room."""

from typing import Final, Literal

import msgspec

from hive.clock import TimeMs
from hive.events.daemon import DiskFreed, DiskLow
from hive.projections.table import Projection, Recorded, Table

STATE: Final = "state"
"""Key of the only row; without it there is room."""


class LowDisk(msgspec.Struct, frozen=True):
    disk: Literal["state"]
    """The one that holds the state folder."""
    since_ms: TimeMs
    free_mb: int
    """When it was noticed."""
    floor_mb: int


class Disk(Projection):
    NAME = "disk"
    VERSION = 1

    def __init__(self) -> None:
        self.low: Table[str, LowDisk] = Table("low_disks", LowDisk)

    @property
    def is_low(self) -> LowDisk | None:
        """What is known of the low disk; None: there is room."""
        return self.low.get(STATE)

    def handlers(self) -> dict[type, object]:
        return {DiskLow: self._on_low, DiskFreed: lambda _event, _: self.low.drop(STATE)}

    def _on_low(self, event: DiskLow, recorded: Recorded) -> None:
        self.low.put(STATE, LowDisk(STATE, recorded.at_ms, event.free_mb, event.floor_mb))
