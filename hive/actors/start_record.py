"""Records the start of the daemon. On a full disk it waits until there is room. Event loop only."""

import asyncio
import sys
from collections.abc import Callable
from typing import Final

import structlog

from hive.actors.journal_clients import AsyncJournalClient
from hive.deciders.record import Boot
from hive.deciders.roster import Spawn
from hive.errors import Unavailable
from hive.names import MANAGER
from hive.paths import Paths
from hive.reserve import Reserve

log = structlog.get_logger()

FIRST_RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 5.0
READS_ONLY: Final = (
    "The daemon answers reads and refuses writes; it starts no agent and does not watch running ones. "
    "It retries until there is room."
)
DECISIONS_ONLY: Final = (
    "The disk is full. The daemon answers reads and takes decisions; it starts no agent and does not watch running"
    " ones. It goes on when there is room. Free disk space."
)


class StartRecord:
    """The first commands of a daemon: `Boot` and, on the first start, the manager. On a full disk it waits for room."""

    def __init__(self, journal: AsyncJournalClient, boot: Boot, paths: Paths):
        self._journal = journal
        self._boot = boot
        self._reserve = Reserve(paths.state)
        self._has_booted = False
        self.waits = False
        """For room on the disk; until then no agent is started."""

    async def record(self) -> None:
        """Record it, if the log can be written. Without room the operator is told, and `waits` is set."""
        try:
            await self._record()
        except Unavailable as error:
            self._say_waiting(f"{error} {READS_ONLY}")
        else:
            if not await self._has_room():
                self._say_waiting(DECISIONS_ONLY)

    async def record_later(self, begin: Callable[[], object]) -> None:
        """Retry until it is recorded and there is room, then call `begin`."""
        pause_s = FIRST_RETRY_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._record()
            except Unavailable:
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                pause_s = FIRST_RETRY_S
                if await self._has_room():
                    break
        log.info("daemon.begins", why="the disk has room again")
        self.waits = False
        begin()

    def _say_waiting(self, text: str) -> None:
        self.waits = True
        print(f"hive: {text}", file=sys.stderr, flush=True)  # noqa: T201

    async def _has_room(self) -> bool:
        return await asyncio.to_thread(self._reserve.fill)

    async def _record(self) -> None:
        if not self._has_booted:
            await self._journal.ask(self._boot)
            self._has_booted = True
        if await self._journal.read(lambda state: state.agents.living_one(MANAGER)) is None:
            await self._journal.ask(Spawn(by=self._boot.by, agent=MANAGER))
