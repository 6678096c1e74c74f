"""Notices changes of the files that policies depend on, so that a request that follows one finds the new policy."""

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable
from typing import Final

from hive.broker.wire import Changed, FromBroker

EVENT: Final = struct.Struct("iIII")
"""struct inotify_event: watch, mask, cookie, length of the name that follows."""
READ_BYTES: Final = 64 * 1024
POLICY_WITHIN_S: Final = 10.0
"""If the daemon takes longer, requests go on with the policy before the change."""


class Files:
    """An inotify descriptor from the daemon, which alone can read the files."""

    def __init__(self, report: Callable[[FromBroker], None]) -> None:
        self._report = report
        self._fd: int | None = None
        self._names: frozenset[str] = frozenset()
        self._changes = 0
        self._settled = 0
        self._on_settled = asyncio.Event()

    def watch(self, fd: int, names: tuple[str, ...]) -> None:
        """Changes of files with these names count, in every folder of the descriptor."""
        self.close()
        self._fd, self._names = fd, frozenset(names)
        asyncio.get_running_loop().add_reader(fd, self._look)
        self._look()

    def settle(self, number: int) -> None:
        """The daemon has sent the policies of so many changes."""
        self._settled = max(self._settled, number)
        self._on_settled.set()
        self._on_settled.clear()

    async def current(self) -> None:
        """Wait until the policies are those of the files as they are now; without a change this returns at once."""
        self._look()
        wanted = self._changes
        if self._settled >= wanted:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLICY_WITHIN_S):
                while self._settled < wanted:
                    await self._on_settled.wait()

    def close(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _look(self) -> None:
        if self._fd is None:
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        if any(not name or name in self._names for name in _names(data)):
            self._changes += 1
            self._report(Changed(number=self._changes))


def _names(data: bytes) -> list[str]:
    """The files that events are about; an empty name for an event about the queue or a folder itself."""
    found, at = [], 0
    while at < len(data):
        *_, length = EVENT.unpack_from(data, at)
        at += EVENT.size
        found.append(os.fsdecode(data[at : at + length].rstrip(b"\0")))
        at += length
    return found
