"""Records that agents are refused for their share. Event loop only."""

import asyncio
from typing import Final

import structlog

from hive.actors.journal_clients import AsyncJournalClient
from hive.deciders.throttling import RecordThrottled
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
        self._recording: set[asyncio.Task[None]] = set()

    def report(self, agent: AgentName, refused: int, what: What) -> None:
        """Record it without waiting."""
        task = asyncio.get_running_loop().create_task(self._record(agent, refused, what))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record(self, agent: AgentName, refused: int, what: What) -> None:
        try:
            await self._journal.ask(RecordThrottled(by=BY, agent=agent, refused=refused, share=what))
        except HiveError as error:  # The agent is refused all the same.
            log.warning("shares.not_recorded", agent=agent, refused=refused, error=str(error))
