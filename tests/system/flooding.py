"""A hostile client of one agent's socket: many connections, each sending one mixture of requests as fast as it can."""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

WIDE: Final = {
    "events_per_minute": 10**6,
    "burst_events": 10**6,
    "kib_per_minute": 10**6,
    "burst_kib": 10**6,
}
"""Limits for tests in which an agent sends more than its default share."""
REPLY_MAX_BYTES = 64 * 1024 * 1024
BIG = "x" * 250_000
BEYOND = "y" * 900_000
"""Within the limit of a line and beyond that of a message."""
MIXTURE: Sequence[dict[str, Any]] = (
    {"cmd": "send", "to": "operator", "body": BIG},
    {"cmd": "send", "to": "operator", "body": BEYOND},
    {"cmd": "send", "to": "*", "body": "to everyone"},
    {"cmd": "send", "to": "operator", "body": "small", "key": "one"},
    {"cmd": "ask_operator", "question": "Left or right?", "ttl_seconds": 1},
    {"cmd": "remind", "message": "again", "delay_seconds": 0},
    {"cmd": "set_status", "text": "flooding"},
    {"cmd": "turn_started", "model": "m" * 8_000},
    {"cmd": "turn_ended", "note": "n" * 8_000},
    {"cmd": "rate_limited", "until": None},
    {"cmd": "login", "logged_in": False},
    {"cmd": "login", "logged_in": True},
    {"cmd": "hello", "incarnation": "forged"},
    {"cmd": "recv", "max": 32},
    {"cmd": "requeue", "ids": [1], "reason": "failed"},
    {"cmd": "ack", "ids": [1]},
    {"cmd": "live", "lines": [{"type": "text", "text": BEYOND}]},
    {"cmd": "recent", "limit": 200},
    {"cmd": "open_threads"},
    {"cmd": "whoami"},
    {"cmd": "next_control", "wait_seconds": 0},
    {"cmd": "unknown"},
)


class Flood:
    """Runs while its block does. `codes` counts the replies: `ok` or the code of the error."""

    def __init__(self, socket: Path, *, connections: int, mixture: Sequence[dict[str, Any]] = MIXTURE) -> None:
        self.codes: Counter[str] = Counter()
        self.waits_ms: list[int] = []
        self.seconds = 0.0
        self._socket = socket
        self._count = connections
        self._lines = [json.dumps(request).encode() + b"\n" for request in mixture]
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        self.seconds = time.monotonic() - self._began

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._flood(nth)) for nth in range(self._count)]
        await asyncio.to_thread(self._ends.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _flood(self, nth: int) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=REPLY_MAX_BYTES)
                try:
                    while True:
                        writer.write(self._lines[nth % len(self._lines)])
                        await writer.drain()
                        self._note(await reader.readuntil())
                        nth += 1
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.01)

    def _note(self, line: bytes) -> None:
        reply = json.loads(line)
        self.codes["ok" if reply["ok"] else reply["code"]] += 1
        if "retry_after_ms" in reply:
            self.waits_ms.append(reply["retry_after_ms"])
