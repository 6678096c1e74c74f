"""Reports messages, turns and badges to the daemon in order. Each report is repeated until it is accepted."""

import asyncio
from typing import Any

import msgspec
import structlog

from hive.clock import TimeMs, rfc3339
from hive.harness.connection import Connection, DaemonBusy, DaemonLimited, DaemonRefused, fresh_key
from hive.harness.stats import TurnRow

log = structlog.get_logger()

BUSY_RETRY_S = 2.0
"""Interval of retries while the daemon cannot write."""


class Reports:
    """Repeats each report until the daemon replies. A refused report is logged and dropped."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ack(self, ids: list[int]) -> None:
        """Ack these messages: their turn succeeded."""
        if ids:
            await self._tell("ack", ids=ids)

    async def requeue(self, ids: list[int], reason: str) -> None:
        """Requeue these messages."""
        if ids:
            await self._tell("requeue", ids=ids, reason=reason)

    async def turn_started(self, *, model: str | None, wake_from: str, ids: list[int]) -> None:
        await self._tell("turn_started", model=model, wake_from=wake_from, message_ids=ids)

    async def turn_ended(self, row: TurnRow) -> None:
        """Send every column; unknown values are null."""
        await self._tell_whole("turn_ended", msgspec.structs.asdict(row))

    async def rate_limited(self, until: TimeMs | None) -> None:
        """Set the badge and its end; None clears it."""
        await self._tell_whole("rate_limited", {"until": None if until is None else rfc3339(until)})

    async def login(self, logged_in: bool) -> None:
        """Report whether the CLI has valid credentials."""
        await self._tell("login", logged_in=logged_in)

    async def _tell(self, cmd: str, **fields: Any) -> None:
        await self._tell_whole(cmd, {name: value for name, value in fields.items() if value is not None})

    async def _tell_whole(self, cmd: str, fields: dict[str, Any]) -> None:
        key = fresh_key()
        while True:
            try:
                await self._connection.call(cmd, key=key, whole=fields)
            except DaemonLimited as limited:
                await asyncio.sleep(limited.retry_after_s)
            except DaemonBusy:
                await asyncio.sleep(BUSY_RETRY_S)
            except DaemonRefused as refused:
                log.warning("harness.report_refused", report=cmd, error=str(refused))
                return
            else:
                return
