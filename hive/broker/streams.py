"""One HTTP connection over asyncio streams, parsed by h11; and copying of bytes that are no HTTP any more."""

import asyncio
import contextlib
import re
from typing import Any, Final

import h11

from hive.broker.pace import Pace

HEAD_MAX_BYTES: Final = 64 * 1024
"""Of one request's or response's head."""
HEAD_MAX_LINES: Final = 250
"""Of one head: a parse of more would hold up every agent."""
EVENTS_PER_STEP: Final = 8
"""Pieces that were received together, such as tiny chunks, and are passed on in one step."""
PULL_BYTES: Final = 1
"""The limit of each `StreamReader`: beyond twice as much buffered, asyncio receives no more until somebody reads."""
BUFFER_BYTES: Final = 32 * 1024
"""Read ahead and written behind for each connection: a slow reader holds up its own connection alone."""
IDLE_S: Final = 900.0
"""A connection on which nothing moves in any direction for so long is closed."""
HEAD_TIMEOUT_S: Final = 60.0
"""From the first byte of a request to the end of its head."""

END_OF_HEAD: Final = re.compile(rb"\n\r?\n")

Headers = list[tuple[bytes, bytes]]
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"upgrade",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"expect",
        b"http2-settings",
    }
)


class Gone(Exception):
    """The other end closed the connection, was silent too long or did not speak HTTP."""


class HttpStream:
    """One side of a conversation. Every wait is bounded."""

    def __init__(self, role: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: Pace) -> None:
        self.reader = reader
        self.writer = writer
        self.pace = pace
        self._events = 0
        _limit_buffers(writer)
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD_MAX_BYTES)

    async def next(self, timeout_s: float = IDLE_S) -> Any:
        """The next h11 event.

        Raises:
            Gone, h11.RemoteProtocolError
        """
        while True:
            if self.http.their_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._refuse_many_lines()
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                self._events += 1
                if self._events % EVENTS_PER_STEP == 0:
                    await self.pace.step()
                return event
            if self.http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self._receive(timeout_s)

    async def request(self) -> h11.Request | None:
        """The next request; None: the client has closed the connection. Raises as `next`."""
        if not self.http.trailing_data[0]:
            await self._receive(IDLE_S)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):  # A head that arrives byte by byte is bounded as a whole.
                event = await self.next()
        except TimeoutError:
            raise Gone from None
        return event if isinstance(event, h11.Request) else None

    def _refuse_many_lines(self) -> None:
        received, _ = self.http.trailing_data
        if received.count(b"\n") > HEAD_MAX_LINES:
            head = END_OF_HEAD.split(received, 1)[0]
            if head.count(b"\n") > HEAD_MAX_LINES:
                raise h11.RemoteProtocolError(f"a head of over {HEAD_MAX_LINES} lines", error_status_hint=431)

    async def _receive(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                data = await self.reader.read(BUFFER_BYTES)
        except (OSError, TimeoutError) as error:
            raise Gone from error
        await self.pace.step()
        self.http.receive_data(data)

    async def send(self, event: Any) -> None:
        """Raises Gone: the other end does not read or has closed."""
        data = self.http.send(event)
        if not data:
            return
        try:
            self.writer.write(data)
            async with asyncio.timeout(IDLE_S):
                await self.writer.drain()
        except (OSError, TimeoutError) as error:
            raise Gone from error

    async def discard_body(self) -> None:
        """Read the rest of the request, so that its sender reads the answer."""
        while self.http.their_state is h11.SEND_BODY:
            await self.next()

    async def respond(self, status: int, headers: Headers, body: bytes, reason: bytes = b"") -> None:
        """A whole response."""
        length = (b"content-length", str(len(body)).encode())
        await self.send(h11.Response(status_code=status, headers=[*headers, length], reason=reason))
        if body and self.http.our_state is h11.SEND_BODY:
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())

    def is_idle_and_open(self) -> bool:
        """Whether a client connection can carry another request."""
        return not self.reader.at_eof() and not self.writer.is_closing() and self.http.our_state is h11.IDLE

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.close()


def end_to_end(headers: Headers, *dropped: bytes) -> Headers:
    """The headers that concern the other end. A length beside a transfer encoding is dropped: h11 heeds the latter."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    unwanted = HOP_BY_HOP | named | set(dropped)
    if any(name == b"transfer-encoding" for name, _ in headers):
        unwanted |= {b"content-length"}
    return [(name, value) for name, value in headers if name not in unwanted or name == b"transfer-encoding"]


class _Activity:
    def __init__(self) -> None:
        self.last_s = asyncio.get_running_loop().time()


async def copy_both_ways(
    near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    pace: Pace,
    first: tuple[bytes, bytes] = (b"", b""),
) -> None:
    """Copy until both ends have closed, one fails, or nothing moves for long. `first`: read already, from each."""
    activity = _Activity()
    with contextlib.suppress(OSError, TimeoutError):
        outward = asyncio.ensure_future(_copy(near[0], far[1], first[0], activity, pace))
        inward = asyncio.ensure_future(_copy(far[0], near[1], first[1], activity, pace))
        try:
            await asyncio.gather(outward, inward)
        finally:
            outward.cancel()
            inward.cancel()
            await asyncio.gather(outward, inward, return_exceptions=True)
            far[1].close()
            near[1].close()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, activity: _Activity, pace: Pace
) -> None:
    loop = asyncio.get_running_loop()
    _limit_buffers(writer)
    data = first
    while True:
        if data:
            activity.last_s = loop.time()
            writer.write(data)
            async with asyncio.timeout(IDLE_S):
                await writer.drain()
        try:
            async with asyncio.timeout_at(max(activity.last_s, loop.time() - 1) + IDLE_S):
                data = await reader.read(BUFFER_BYTES)
            await pace.step()
        except TimeoutError:
            if loop.time() - activity.last_s < IDLE_S:
                data = b""
                continue  # The other direction moves.
            raise
        if not data:
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()
            return


def _limit_buffers(writer: asyncio.StreamWriter) -> None:
    writer.transport.set_write_buffer_limits(BUFFER_BYTES)
    if hasattr(writer.transport, "max_size"):  # What asyncio receives at once, 256 KiB unless told.
        writer.transport.max_size = BUFFER_BYTES
