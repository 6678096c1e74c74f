"""The live turn stream: typed lines, sent to the daemon in batches; dropped if the daemon does not take them."""

import asyncio
import collections
import time
from typing import Any

from hive.clock import rfc3339
from hive.errors import WireUnsupported
from hive.harness.connection import Connection, DaemonAway, DaemonLimited, DaemonRefused

BATCH_PAUSE_S = 0.1
"""How long lines are collected before they are sent."""
BATCH_LINES = 200
WAITING_LINES = 2_000
"""Lines kept while the daemon is away; the oldest are dropped first."""
TEXT_LIMIT_CHARACTERS = 4_000
AWAY_S = 30.0


class Live:
    """Collects lines and sends them. A line is an object with `at`, `type` and the fields of that type.

    Types: turn_started, text, tool_call, tool_result, turn_ended, notice, login_url, login_result.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: collections.deque[dict[str, Any]] = collections.deque(maxlen=WAITING_LINES)
        self._some = asyncio.Event()

    def line(self, type: str, /, **fields: Any) -> None:
        """Add one line; long strings are truncated."""
        shown = {name: _cut(value) for name, value in fields.items() if value is not None}
        self._waiting.append({"at": rfc3339(time.time_ns() // 1_000_000), "type": type, **shown})
        self._some.set()

    def notice(self, text: str) -> None:
        """Add a sentence about the harness itself."""
        self.line("notice", text=text)

    async def send_forever(self) -> None:
        """Send collected lines until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(BATCH_PAUSE_S)
            await self.flush()

    async def flush(self) -> None:
        """Send the collected lines now; lines that the daemon does not take are lost."""
        while self._waiting:
            lines = [self._waiting.popleft() for _ in range(min(BATCH_LINES, len(self._waiting)))]
            try:
                await self._connection.call("live", lines=lines, away_s=AWAY_S)
            except DaemonLimited as limited:
                self._waiting.extendleft(reversed(lines[-(WAITING_LINES - len(self._waiting)) :]))
                await asyncio.sleep(limited.retry_after_s)
            except (DaemonAway, DaemonRefused, WireUnsupported):
                pass  # These lines are lost; nobody waits for them.
        self._some.clear()


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > TEXT_LIMIT_CHARACTERS:
        return f"{value[:TEXT_LIMIT_CHARACTERS]} … ({len(value) - TEXT_LIMIT_CHARACTERS} more characters)"
    return value
