"""Records that agents are refused, for their share or for a full disk. Event loop only."""

import asyncio
from typing import Final

import structlog

from hive.actors.journal_clients import AsyncJournalClient
from hive.deciders.throttling import RecordDisk, RecordThrottled
from hive.errors import HiveError
from hive.events.base import actor
from hive.names import AgentName
from hive.sockets.shares import What

log = structlog.get_logger()

BY: Final = actor("shares")


class ThrottleLog:
    """Sends reports to the journal. The caller limits how many there are."""

    def __init__(self, journal: AsyncJournalClient):
        self._journal = journal
        self._recording: set[asyncio.Task[bool]] = set()

    def report(self, agent: AgentName, refused: int, what: What) -> None:
        """Record it without waiting."""
        command = RecordThrottled(by=BY, agent=agent, refused=refused, share=what)
        task = asyncio.get_running_loop().create_task(self._record(command))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def disk(self, is_low: bool, free_mb: int, floor_mb: int) -> bool:
        """Record that agents are refused for the disk, or go on. Returns whether the log could be written."""
        return await self._record(RecordDisk(by=BY, is_low=is_low, free_mb=free_mb, floor_mb=floor_mb))

    async def _record(self, command: RecordThrottled | RecordDisk) -> bool:
        try:
            await self._journal.ask(command)
        except HiveError as error:  # The agent is refused all the same.
            log.warning("refusals.not_recorded", command=type(command).__name__, error=str(error))
            return False
        return True
