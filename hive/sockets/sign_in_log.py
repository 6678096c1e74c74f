"""Records sign-ins and refused sign-ins at the dashboard. Event loop only."""

import asyncio
from typing import Final

import structlog

from hive.actors.journal_clients import AsyncJournalClient
from hive.deciders.controls import RefuseSignIn, SignIn
from hive.errors import HiveError
from hive.events.base import By, actor

log = structlog.get_logger()

BY: Final = actor("dashboard")
REFUSALS_EVERY_S: Final = 60.0
"""One event for all refused attempts of this time: anybody who reaches the dashboard can cause them."""


class SignInLog:
    """Counts refused attempts. A daemon that ends loses the count since its last event."""

    def __init__(self, journal: AsyncJournalClient, every_s: float = REFUSALS_EVERY_S):
        self._journal = journal
        self._every_s = every_s
        self._refused = 0
        self._source = ""
        self._recording: asyncio.Task[None] | None = None

    async def signed_in(self, name: str, source: str, *, link: bool) -> None:
        """Record a sign-in. Without the event there is no session.

        Raises:
            Unavailable: the log cannot be written.
        """
        await self._journal.ask(SignIn(by=By("operator", name, way="dashboard"), name=name, source=source, link=link))

    def refused(self, source: str) -> None:
        """Count a refused attempt. The first one is recorded at once, further ones together."""
        self._refused += 1
        self._source = source
        if self._recording is None:
            self._recording = asyncio.get_running_loop().create_task(self._record())

    async def _record(self) -> None:
        try:
            while self._refused:
                attempts, self._refused = self._refused, 0
                try:
                    await self._journal.ask(RefuseSignIn(by=BY, source=self._source, attempts=attempts))
                except HiveError as error:
                    log.warning("sign_ins.not_recorded", attempts=attempts, error=str(error))
                await asyncio.sleep(self._every_s)
        finally:
            self._recording = None
