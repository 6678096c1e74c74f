"""Sends requests over the agent socket and repeats them when the daemon restarts."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hive.errors import HiveError, WireUnsupported
from hive.wire import UNSUPPORTED, WIRE

LINE_LIMIT_BYTES = 16 * 1024 * 1024
"""Limit of one reply: 32 messages of 256 KiB and some room."""
REPLY_TIMEOUT_S = 60.0
"""Added to the request's own wait; after that the connection counts as dead."""
RECONNECT_FIRST_S = 0.05
RECONNECT_CAP_S = 0.25
"""Short, so that a waiting request reaches a restarted daemon well within a second. A try costs microseconds."""
IDLE_CONNECTIONS = 4


class DaemonRefused(HiveError):
    """The daemon replied `ok: false`; `str()` is its error text."""

    code = "refused"


class DaemonLimited(DaemonRefused):
    """The agent's share is used up. The same request may succeed in `retry_after_s`."""

    def __init__(self, text: str, retry_after_s: float):
        super().__init__(text)
        self.retry_after_s = retry_after_s


class DaemonBusy(DaemonRefused):
    """The daemon cannot do it now, for example because its disk is full. The same request may succeed later."""


class DaemonAway(HiveError):
    """The daemon did not reply in time."""

    code = "unavailable"


def fresh_key() -> str:
    """Return an idempotency key: the daemon answers a repeated request with its first reply."""
    return secrets.token_urlsafe(18)


class Connection:
    """One connection. Requests are sequential; after a reconnect a request is sent again with the same key."""

    def __init__(self, socket: Path, incarnation: str) -> None:
        self._socket = socket
        self._incarnation = incarnation
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(
        self,
        cmd: str,
        *,
        waits_s: float = 0.0,
        away_s: float | None = None,
        key: str | None = None,
        whole: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Send one request and return the reply. `fields` that are None are omitted; those of `whole` are kept.

        `waits_s`: how long the daemon may hold the reply. `away_s`: how long to retry while it is away (None: forever).

        Raises:
            DaemonRefused: the daemon refused.
            DaemonAway: it was away for longer than `away_s`.
            WireUnsupported: it does not speak this harness's version of the protocol.
        """
        request = {"cmd": cmd, **{name: value for name, value in fields.items() if value is not None}}
        request.update(whole or {})
        if key is not None:
            request["key"] = key
        line = msgspec.json.encode(request) + b"\n"
        gone_since: float | None = None
        pause_s = RECONNECT_FIRST_S
        async with self._turn:
            while True:
                try:
                    reply = await self._exchange(line, waits_s)
                    break
                except (OSError, EOFError, TimeoutError, msgspec.DecodeError) as error:
                    self._drop()
                    now = time.monotonic()
                    gone_since = now if gone_since is None else gone_since
                    if away_s is not None and now - gone_since >= away_s:
                        raise DaemonAway(f"The hive daemon did not answer for {away_s:.0f} s.") from error
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, RECONNECT_CAP_S)
                except asyncio.CancelledError:
                    # The reply may still arrive; the next request must not read it.
                    self._drop()
                    raise
        if not reply.get("ok"):
            raise _refusal(reply)
        if gone_since is not None:
            reply["daemon_away_s"] = round(time.monotonic() - gone_since, 1)
        return reply

    async def _exchange(self, line: bytes, waits_s: float) -> dict[str, Any]:
        if self._writer is None:
            await self._open()
        return await self._ask(line, waits_s)

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(str(self._socket), limit=LINE_LIMIT_BYTES)
        hello = {"cmd": "hello", "incarnation": self._incarnation, "wire": WIRE}
        reply = await self._ask(msgspec.json.encode(hello) + b"\n", 0.0)
        if reply.get("code") == UNSUPPORTED:
            raise WireUnsupported(str(reply.get("error")))

    async def _ask(self, line: bytes, waits_s: float) -> dict[str, Any]:
        if self._writer is None or self._reader is None:
            raise ConnectionResetError
        self._writer.write(line)
        await self._writer.drain()
        async with asyncio.timeout(waits_s + REPLY_TIMEOUT_S):
            try:
                answer = await self._reader.readline()
            except ValueError as error:
                raise ConnectionResetError("a reply over the line limit") from error
        if not answer.endswith(b"\n"):
            raise EOFError
        return msgspec.json.decode(answer, type=dict[str, Any])

    def _drop(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.close()
        self._reader = self._writer = None

    def close(self) -> None:
        """Close the connection; the next call reconnects."""
        self._drop()

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._writer is not None


def _refusal(reply: Mapping[str, Any]) -> DaemonRefused:
    text = str(reply.get("error") or "The daemon refused without a reason.")
    if isinstance(wait_ms := reply.get("retry_after_ms"), int):
        return DaemonLimited(text, wait_ms / 1000)
    return DaemonBusy(text) if reply.get("code") == "unavailable" else DaemonRefused(text)


class Daemon:
    """The connections to the daemon: one for each kind of traffic and a pool for the model's tools."""

    def __init__(self, socket: Path, incarnation: str) -> None:
        def connect() -> Connection:
            return Connection(socket, incarnation)

        self._connect = connect
        self.inbox = connect()
        """Parked in recv most of the time."""
        self.reports = connect()
        """Acks, requeues, turns, badges: in order."""
        self.controls = connect()
        self.live = connect()
        self._idle: list[Connection] = []

    async def tool(self, cmd: str, *, waits_s: float, away_s: float, **fields: Any) -> dict[str, Any]:
        """Send a request of one of the model's tools, in parallel to parked ones; it is repeated safely.

        Raises:
            DaemonRefused, DaemonAway
        """
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            return await connection.call(cmd, waits_s=waits_s, away_s=away_s, key=fresh_key(), **fields)
        finally:
            if len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in (self.inbox, self.reports, self.controls, self.live, *self._idle):
            connection.close()
