"""JSON lines over a unix socket: bounded, in order, with disconnect detection. Both protocols use it."""

import asyncio
import select
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

log = structlog.get_logger()

LINE_MAX_BYTES: Final = 1024 * 1024
"""Maximum length of one request."""
LINES_AHEAD_MAX: Final = 64
"""Requests buffered behind the one being answered. At this number the server stops reading from the peer."""
UNREAD_MAX_BYTES: Final = 32 * 1024 * 1024
"""Replies a peer may leave unread. Above it the connection is closed."""
TOO_LONG: Final = b"\n"
"""Replaces a line over the limit. A real line never contains a line feed."""


class Peer:
    """The process at the other end, as the kernel reports it (SO_PEERCRED)."""

    def __init__(self, connection: socket.socket):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid, self.uid, self.gid = struct.unpack("3i", raw)


class LineConnection(asyncio.Protocol):
    """One connection. Its `serve` coroutine reads lines and writes replies until the peer disconnects."""

    def __init__(self, serve: Callable[["LineConnection"], Awaitable[None]], opened: set["LineConnection"]):
        self._serve = serve
        self._opened = opened
        self._lines: deque[bytes] = deque()
        self._partial = bytearray()
        self._skips_rest = False
        self._ended = False
        self._line_came = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self.gone = False
        """The peer has disconnected and will not read a reply."""
        self.on_gone: Callable[[], None] = lambda: None
        self.transport: asyncio.Transport
        self.peer: Peer

    async def next_line(self) -> bytes | None:
        """The next request; TOO_LONG for a request over the limit; None at the end of the stream."""
        while not self._lines:
            if self._ended:
                return None
            self._line_came.clear()
            await self._line_came.wait()
        line = self._lines.popleft()
        if len(self._lines) < LINES_AHEAD_MAX // 2 and not self.transport.is_closing():
            self.transport.resume_reading()
        return line

    async def reply(self, line: bytes) -> bool:
        """Write one line. Returns False if the peer has disconnected, so the line is not read."""
        if self.gone or self.transport.is_closing():
            return False
        self.transport.write(line + b"\n")
        if self.transport.is_closing():  # The peer disconnected; asyncio has not reported it yet.
            return False
        if self.transport.get_write_buffer_size() > UNREAD_MAX_BYTES:
            log.warning("socket.peer_does_not_read", bytes=self.transport.get_write_buffer_size())
            self.transport.abort()
            return False
        await self._writable.wait()
        return not self.gone

    def close(self) -> None:
        self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = Peer(transport.get_extra_info("socket"))
        self._opened.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        first, *rest = data.split(b"\n")
        self._grow(first)
        for part in rest:
            self._finish_line()
            self._grow(part)
        if self._lines:
            self._line_came.set()
        if len(self._lines) >= LINES_AHEAD_MAX:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._line_came.set()
        if self.hung_up():
            self._set_gone()
        return True  # A half-closed peer still receives its replies.

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._line_came.set()
        self._set_gone()
        self._opened.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _grow(self, part: bytes) -> None:
        if self._skips_rest:
            return
        self._partial += part
        if len(self._partial) > LINE_MAX_BYTES:
            self._partial.clear()
            self._skips_rest = True

    def _finish_line(self) -> None:
        if self._skips_rest:
            self._lines.append(TOO_LONG)
            self._skips_rest = False
        else:
            self._lines.append(bytes(self._partial).strip())  # Empty lines count: their sender waits for a reply.
        self._partial.clear()

    def _set_gone(self) -> None:
        self.gone = True
        self._writable.set()
        self.on_gone()

    def hung_up(self) -> bool:
        """Whether the peer has disconnected. Asks the kernel, because asyncio may not have seen the event yet."""
        if self.gone or self.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    async def _run(self) -> None:
        try:
            await self._serve(self)
        except Exception:  # A bug closes this connection only, not the daemon.
            log.exception("socket.connection_failed")
        finally:
            self.transport.close()
