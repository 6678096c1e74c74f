"""JSON lines over a unix socket: bounded, in order, and aware of a peer that has gone. Serves both protocols."""

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
"""Of one request."""
LINES_AHEAD_MAX: Final = 64
"""Requests read ahead of the one being answered; then the peer has to wait."""
UNREAD_MAX_BYTES: Final = 32 * 1024 * 1024
"""Replies a peer may leave unread before it is hung up on."""
TOO_LONG: Final = b"\n"
"""Stands for a line over the limit; a real line holds no line feed."""


class Peer:
    """Who connected, by the kernel's word (SO_PEERCRED)."""

    def __init__(self, connection: socket.socket):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid, self.uid, self.gid = struct.unpack("3i", raw)


class LineConnection(asyncio.Protocol):
    """One connection. Its `serve` coroutine asks for lines and writes replies until the peer goes."""

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
        """The peer has hung up; nobody will read a reply."""
        self.on_gone: Callable[[], None] = lambda: None
        self.transport: asyncio.Transport
        self.peer: Peer

    async def next_line(self) -> bytes | None:
        """The next request, TOO_LONG in place of one over the limit, None when there will be no more."""
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
        """Write one line. False when the peer is gone: it will not be read."""
        if self.gone or self.transport.is_closing():
            return False
        self.transport.write(line + b"\n")
        if self.transport.is_closing():  # The peer went and the event that says so is still to come.
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
        return True  # A peer that only stopped sending still gets its replies.

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
            self._lines.append(bytes(self._partial).strip())  # An empty one too: who waits for a reply must get one.
        self._partial.clear()

    def _set_gone(self) -> None:
        self.gone = True
        self._writable.set()
        self.on_gone()

    def hung_up(self) -> bool:
        """Whether the peer has closed, by the kernel's word: the event that says so may not have been read yet."""
        if self.gone or self.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    async def _run(self) -> None:
        try:
            await self._serve(self)
        except Exception:  # One connection ends with it, the daemon does not.
            log.exception("socket.connection_failed")
        finally:
            self.transport.close()
