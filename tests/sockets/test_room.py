"""The room on a small real disk with injected time: who is refused, what is recorded, and when it ends by itself."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import fill, small_disk

from hive.errors import Unavailable
from hive.reserve import Reserve
from hive.sockets.room import LOOK_EVERY_S, RECORD_AGAIN_S, Room

DISK_MB = 4
FLOOR_MB = 2


class Watched:
    """A room, what it recorded, and the time that it sees."""

    def __init__(self, folder: Path, *, was_low: bool = False):
        self.now_s = 0.0
        self.recorded = list[bool]()
        self.can_write = True
        self.room = Room(folder, lambda: FLOOR_MB, self._record, lambda: self.now_s, was_low)

    async def _record(self, is_low: bool, free_mb: int, floor_mb: int) -> bool:
        assert floor_mb == FLOOR_MB
        assert (free_mb < FLOOR_MB) is is_low
        if self.can_write:
            self.recorded.append(is_low)
        return self.can_write

    def tick(self) -> None:
        asyncio.run(self.room.tick())

    def refuses(self) -> bool:
        try:
            self.room.refuse_low("send")
        except Unavailable as error:
            assert "Nothing was written" in str(error)
            return True
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK_MB):
        yield tmp_path / "disk"


def test_agents_are_refused_at_once_and_it_is_recorded_once(disk: Path) -> None:
    watched = Watched(disk)
    assert not watched.refuses()
    fill(disk / "filler")
    watched.now_s += LOOK_EVERY_S
    assert watched.refuses()
    watched.tick()
    watched.tick()
    assert watched.recorded == [True]


def test_end_is_noticed_without_a_request_and_the_reserve_is_whole_again(disk: Path) -> None:
    watched = Watched(disk)
    fill(disk / "filler")
    watched.tick()
    assert not Reserve(disk).is_whole()
    (disk / "filler").unlink()
    watched.tick()
    assert watched.recorded == [True, False]
    assert Reserve(disk).is_whole()
    assert not watched.refuses()


def test_restart_on_a_low_disk_records_nothing_again(disk: Path) -> None:
    fill(disk / "filler")
    watched = Watched(disk, was_low=True)
    watched.tick()
    assert watched.recorded == []
    (disk / "filler").unlink()
    watched.tick()
    assert watched.recorded == [False]


def test_what_could_not_be_recorded_is_recorded_later_or_not_at_all(disk: Path) -> None:
    watched = Watched(disk)
    watched.can_write = False
    fill(disk / "filler")
    watched.tick()
    watched.can_write = True
    watched.tick()
    assert watched.recorded == [], "a full disk is not tried each second"
    watched.now_s += RECORD_AGAIN_S
    watched.tick()
    assert watched.recorded == [True]
    watched.can_write = False
    (disk / "filler").unlink()
    watched.tick()
    fill(disk / "filler")
    watched.can_write = True
    watched.now_s += RECORD_AGAIN_S
    watched.tick()
    assert watched.recorded == [True], "low then and low now"
