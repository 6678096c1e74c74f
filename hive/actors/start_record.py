"""Records the start of the daemon. On a full disk it retries until the log can be written. Event loop only."""

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

log = structlog.get_logger()

FIRST_RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 5.0
READS_ONLY: Final = (
    "The daemon answers reads and refuses writes; it starts no agent and does not watch running ones. "
    "It retries until there is room."
)


class StartRecord:
    """The first commands of a daemon: `Boot` and, on the first start, the manager."""

    def __init__(self, journal: AsyncJournalClient, boot: Boot):
        self._journal = journal
        self._boot = boot
        self._has_booted = False

    async def record(self) -> bool:
        """False: the log cannot be written; the operator is told."""
        try:
            await self._record()
        except Unavailable as error:
            print(f"hive: {error} {READS_ONLY}", file=sys.stderr, flush=True)  # noqa: T201
            return False
        return True

    async def record_later(self, begin: Callable[[], object]) -> None:
        """Retry until it is recorded, then call `begin`."""
        pause_s = FIRST_RETRY_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._record()
            except Unavailable:
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                break
        log.info("daemon.begins", why="the log can be written again")
        begin()

    async def _record(self) -> None:
        if not self._has_booted:
            await self._journal.ask(self._boot)
            self._has_booted = True
        if await self._journal.read(lambda state: state.agents.living_one(MANAGER)) is None:
            await self._journal.ask(Spawn(by=self._boot.by, agent=MANAGER))
