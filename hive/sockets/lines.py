"""JSON lines over a unix socket: bounded, in order, with disconnect detection. Both protocols use it."""

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from hive.sockets.intake import Intake
from hive.sockets.peers import Peer, Process

log = structlog.get_logger()

LINE_MAX_BYTES: Final = 1024 * 1024
"""Maximum length of one request."""
READ_BYTES: Final = 64 * 1024
"""Read from one connection in one turn of the loop."""
LINES_AHEAD_MAX: Final = 64
"""Requests buffered behind the one being answered. At this number the server stops reading from the peer."""
AHEAD_MAX_BYTES: Final = 64 * 1024
"""The same in bytes."""
UNREAD_MAX_BYTES: Final = 32 * 1024 * 1024
"""Replies a peer may leave unread. Above it the connection is closed."""
TOO_LONG: Final = b"\n"
"""Replaces a line over the limit. A real line never contains a line feed."""
REST_MAX_BYTES: Final = 16 * 1024 * 1024
"""Read and dropped of an agent's line over the limit, so that the peer gets its answer before the connection ends."""
REST_MAX_S: Final = 5.0

_read_buffer: Final = memoryview(bytearray(READ_BYTES))
"""Shared: a read is handled before the next one begins."""


class LineConnection(asyncio.BufferedProtocol):
    """One connection. Its `serve` coroutine reads lines and writes replies until the peer disconnects.

    An agent's connection has an `intake`, which all connections of that agent share.
    """

    def __init__(
        self,
        serve: Callable[["LineConnection"], Awaitable[None]],
        opened: set["LineConnection"],
        intake: Intake | None = None,
        harness: Callable[[], Process | None] = lambda: None,
    ):
        self._serve = serve
        self._opened = opened
        self._intake = intake
        self._harness = harness
        self._lines: deque[bytes] = deque()
        self._partial = bytearray()
        self._skips_rest = False
        self._skipped_bytes = 0
        self._ended = False
        self._is_held = False
        self._is_closed = False
        self._line_came = asyncio.Event()
        self._rest_over = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self.buffered = 0
        self.process: Process | None = None
        self.is_own = False
        self.is_counted = True
        """False: one connection more than the agent may have."""
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
        if self._intake is not None and not self.is_own:
            await self._intake.turn()
        line = self._lines.popleft()
        self._buffer(-len(line))
        self._read_or_pause()
        return line

    async def rest_over(self) -> None:
        """Wait until the rest of a line over the limit was read and dropped, within bounds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_MAX_S):
                await self._rest_over.wait()

    async def reply(self, line: bytes) -> bool:
        """Write one line. Returns False if the peer has disconnected, so the line is not read."""
        if self.gone or self.transport.is_closing():
            return False
        self.transport.write(line + b"\n")
        if self.transport.is_closing():  # The peer disconnected; asyncio has not reported it yet.
            return False
        if self._intake is not None:
            self._intake.wrote(self)
        elif self.unread() > UNREAD_MAX_BYTES:
            self.abort()
        if self.transport.is_closing():
            return False
        await self._writable.wait()
        return not self.gone

    def close(self) -> None:
        self.transport.close()

    # As its agent's intake sees it

    def waits(self) -> bool:
        return bool(self._lines)

    def hold(self) -> None:
        self._is_held = True
        self._read_or_pause()

    def release(self) -> None:
        self._is_held = False
        self._read_or_pause()

    def unread(self) -> int:
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        log.warning("socket.closed_for_its_bounds", unread=self.unread(), unanswered=self.buffered)
        self.transport.abort()

    # As asyncio sees it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = Peer(transport.get_extra_info("socket"))
        self._opened.add(self)
        if self._intake is not None:
            self.process = self.peer.process()
            self.is_own = self.process is not None and self.process == self._harness()
            self.is_counted = self._intake.opened(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        first, *rest = bytes(_read_buffer[:nbytes]).split(b"\n")
        self._grow(first)
        for part in rest:
            self._finish_line()
            self._grow(part)
        if self._lines:
            self._line_came.set()
        self._read_or_pause()
        if self._intake is not None:
            self._intake.received(self, nbytes)

    def eof_received(self) -> bool:
        self._ended = True
        self._line_came.set()
        self._rest_over.set()
        if self.hung_up():
            self._set_gone()
        return True  # A half-closed peer still receives its replies.

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._line_came.set()
        self._rest_over.set()
        self._set_gone()
        self._opened.discard(self)
        self._is_closed = True
        if self._intake is not None:
            self._intake.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _read_or_pause(self) -> None:
        if self.transport.is_closing():
            return
        is_ahead = len(self._lines) >= LINES_AHEAD_MAX or (
            bool(self._lines) and self.buffered - len(self._partial) >= AHEAD_MAX_BYTES
        )
        if self._is_held or is_ahead:
            self.transport.pause_reading()
        elif not self._ended:
            self.transport.resume_reading()

    def _buffer(self, change: int) -> None:
        self.buffered += change
        if self._intake is not None and not self._is_closed:
            self._intake.buffered += change

    def _grow(self, part: bytes) -> None:
        if self._skips_rest:
            self._skipped_bytes += len(part)
            if self._skipped_bytes > REST_MAX_BYTES:
                self._rest_over.set()
            return
        self._partial += part
        self._buffer(len(part))
        if len(self._partial) > LINE_MAX_BYTES:
            self._drop_partial()
            self._skips_rest = True
            if self._intake is not None:
                self._lines.append(TOO_LONG)  # Answered at once: an agent's connection ends with it.
                self._buffer(len(TOO_LONG))

    def _finish_line(self) -> None:
        if self._skips_rest:
            self._rest_over.set()
            if self._intake is not None:
                return  # Whatever follows is dropped, too.
            self._skips_rest = False
            line = TOO_LONG
        else:
            line = bytes(self._partial).strip()  # Empty lines count: their sender waits for a reply.
            self._drop_partial()
        self._lines.append(line)
        self._buffer(len(line))

    def _drop_partial(self) -> None:
        self._buffer(-len(self._partial))
        self._partial = bytearray()  # `clear` would keep the memory of the longest line.

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
