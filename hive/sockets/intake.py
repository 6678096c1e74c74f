"""Takes in what one agent sends: its connections read and are answered in turn, within bounds of memory and time.

Event-loop only. Bounds hold for all connections of an agent together, so that more connections give it nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from hive.sockets.buckets import Bucket, Seconds
from hive.sockets.peers import Process

REQUESTS_PER_S: Final = 500.0
"""Requests of one agent that are looked at, refused ones too; further ones wait."""
REQUESTS_BURST: Final = 1_000.0
INPUT_PER_S: Final = 4.0 * 1024 * 1024
"""Bytes read from one agent; further ones wait in the kernel. A minute's default share takes a second."""
INPUT_BURST: Final = 4.0 * 1024 * 1024
BUFFERED_MAX: Final = 8 * 1024 * 1024
"""Bytes of unfinished and unanswered requests of one agent. Above it, connections finish one at a time."""
STALLED_S: Final = 2.0
"""An agent above that bound loses the connection that does not finish its request."""
UNREAD_MAX_BYTES: Final = 16 * 1024 * 1024
"""Replies that one agent leaves unread. Above it, the connection with the most is closed."""
LOOK_AGAIN_S: Final = 0.01
"""While all that is buffered waits for its turn."""
SWEEP_EVERY_S: Final = 1.0
"""How often an agent at its limit has its connections searched for those whose peer is gone."""
HARNESS_CONNECTIONS_MAX: Final = 64
"""Of the harness's process, which do not count as the agent's."""


class Source(Protocol):
    """A connection as the intake sees it."""

    process: Process | None
    """Which process is connected; None if unknown."""
    is_own: bool
    """Of the harness's process."""
    buffered: int
    """Bytes received and not yet handed out."""

    def waits(self) -> bool:
        """A complete request waits for its turn."""
        ...

    def hung_up(self) -> bool:
        """The peer has disconnected."""
        ...

    def hold(self) -> None:
        """Stop reading."""
        ...

    def release(self) -> None:
        """Read again."""
        ...

    def unread(self) -> int:
        """Bytes of replies that the peer has not read."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Intake:
    """The connections of one agent."""

    def __init__(self, now: Seconds, connections_max: Callable[[], int]):
        self._now = now
        self._connections_max = connections_max
        self._open: set[Source] = set()
        self.buffered = 0
        """Bytes of all connections together."""
        self._swept_s = now() - SWEEP_EVERY_S
        self._requests = Bucket(REQUESTS_PER_S, REQUESTS_BURST, now)
        self._input = Bucket(INPUT_PER_S, INPUT_BURST, now)
        self._turn_taken = False
        self._turns: deque[asyncio.Future[None]] = deque()
        self._held: deque[Source] = deque()
        self._waiting: set[Source] = set()
        """Those in `_held`."""
        self._resuming = False
        self._alone: Source | None = None
        """The one connection that reads while too much is buffered."""
        self._stalling: asyncio.TimerHandle | None = None

    # Connections

    def opened(self, source: Source) -> bool:
        """Count a connection; False if it is one too many and must be closed."""
        self._open.add(source)
        most = HARNESS_CONNECTIONS_MAX if source.is_own else self._connections_max()
        alike = [one for one in self._open if one.is_own is source.is_own]
        if len(alike) <= most:
            return True
        if self._now() - self._swept_s < SWEEP_EVERY_S:
            return False
        self._swept_s = self._now()
        gone = [one for one in alike if one.hung_up()]  # Not noticed yet: nothing reads from a held connection.
        for one in gone:
            one.abort()
        return len(alike) - len(gone) <= most

    def closed(self, source: Source) -> None:
        if source not in self._open:
            return
        self._open.discard(source)
        self.buffered -= source.buffered
        if source in self._waiting:
            self._waiting.discard(source)
            self._held.remove(source)
        if source is self._alone:
            self._alone = None
        self._resume_soon()

    def harness_is(self, process: Process | None) -> None:
        """Another process turned out to be the harness."""
        for one in self._open:
            one.is_own = one.process == process
            if one.is_own and one in self._waiting:
                self._held.remove(one)
                self._release(one)

    def wrote(self, source: Source) -> None:
        """A reply was written; close the connection with the most unread bytes if the agent leaves too many."""
        if not source.unread():
            return
        unread = {one: one.unread() for one in self._open}
        while sum(unread.values()) > UNREAD_MAX_BYTES:
            worst = max(unread, key=lambda one: (not one.is_own, unread[one]))
            del unread[worst]
            worst.abort()

    # Turns

    async def turn(self) -> None:
        """Wait until the next request of this agent may be looked at: one for each turn of the loop, in order."""
        if not self._turn_taken and not self._turns and self._requests.level() >= 1:
            self._grant()
            return
        waiting = asyncio.get_running_loop().create_future()
        self._turns.append(waiting)
        if not self._turn_taken:
            self._next_turn()
        await waiting

    def _grant(self) -> None:
        self._requests.take(1)
        self._turn_taken = True
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_taken = False
        while self._turns and self._turns[0].done():  # Its connection has ended.
            self._turns.popleft()
        if not self._turns:
            return
        if (wait_s := self._requests.wait_s(1)) > 0:
            self._turn_taken = True
            asyncio.get_running_loop().call_later(wait_s, self._next_turn)
            return
        self._turns.popleft().set_result(None)
        self._grant()

    # Reading

    def received(self, source: Source, size: int) -> None:
        """A connection has read so many bytes; hold it if others come first."""
        if source.is_own:
            return
        self._input.take(size)
        if source is self._alone:
            self._alone = None
            if self._stalling is not None:
                self._stalling.cancel()
        if self.buffered > BUFFERED_MAX:
            for one in self._open:  # Each might hold a little more, and together that is much.
                self._hold(one)
        elif self._input.level() < 0:
            self._hold(source)
        self._resume_soon()

    def _hold(self, source: Source) -> None:
        if not source.is_own and source not in self._waiting:
            source.hold()
            self._waiting.add(source)
            self._held.append(source)

    def _release(self, source: Source) -> None:
        self._waiting.discard(source)
        source.release()

    def _resume_soon(self) -> None:
        if self._held and not self._resuming:
            self._resuming = True
            asyncio.get_running_loop().call_later(max(0.0, -self._input.level() / INPUT_PER_S), self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if not self._held or self._alone is not None:
            return
        if self._input.level() < 0:
            self._resume_soon()
            return
        if self.buffered <= BUFFERED_MAX:
            self._release(self._held.popleft())
            self._resume_soon()
            return
        # The one that is nearest to its end goes first, and alone: if all went on, all would grow.
        unfinished = [one for one in self._held if not one.waits()]
        if not unfinished:
            self._resuming = True
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._resume)
            return
        source = max(unfinished, key=lambda one: one.buffered)
        self._held.remove(source)
        self._alone = source
        self._release(source)
        self._stalling = asyncio.get_running_loop().call_later(STALLED_S, self._end_stalled, source)

    def _end_stalled(self, source: Source) -> None:
        if source is self._alone:
            self._alone = None
            source.abort()
            self._resume_soon()
