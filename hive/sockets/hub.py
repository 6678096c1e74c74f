"""What lives only as long as the daemon: who is parked, who is connected, turn streams, controls. Event-loop only."""

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from hive.clock import Clock, TimeMs
from hive.errors import LimitReached
from hive.events.agents import Paused, Resumed, Started
from hive.events.messages import MessageRequeued, MessageSent
from hive.names import EVERYONE, AgentName
from hive.projections.table import Recorded
from hive.sockets.lines import LineConnection

LIVE_LINES_KEPT: Final = 1_000
"""Of each agent's turn stream."""
LIVE_BYTES_KEPT: Final = 4 * 1024 * 1024
"""The same in bytes."""
CONTROLS_MAX: Final = 32
"""Controls waiting for one harness."""
CONTROL_ID_BYTES: Final = 9
"""Random, so that no daemon gives one out that a harness knows from the daemon before."""
FOLLOWER_LAG_MAX: Final = 10_000
"""Batches a follower may fall behind before it is told to start over."""


class Presence:
    """Which harnesses are connected. Read by the crash watch from its own thread: plain dict reads only."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._connections: dict[AgentName, int] = {}
        self._seen: dict[AgentName, TimeMs] = {}
        self._incarnations: dict[AgentName, dict[LineConnection, str]] = {}

    @contextmanager
    def connected(self, agent: AgentName, connection: LineConnection) -> Iterator[None]:
        """While one connection is open."""
        self._connections[agent] = self._connections.get(agent, 0) + 1
        try:
            yield
        finally:
            self._connections[agent] -= 1
            self._incarnations.get(agent, {}).pop(connection, None)
            self._seen[agent] = self._clock.now_ms()

    def speaks_for(self, agent: AgentName, connection: LineConnection, incarnation: str) -> None:
        """The connection said hello."""
        self._incarnations.setdefault(agent, {})[connection] = incarnation

    def incarnations(self, agent: AgentName) -> frozenset[str]:
        """Those of the connections whose peer is there."""
        known = self._incarnations.get(agent, {})
        return frozenset(incarnation for connection, incarnation in known.items() if not connection.hung_up())

    def last_seen(self, agent: AgentName) -> TimeMs | None:
        """When it was last connected: now, if it is; None if not since the daemon started."""
        return self._clock.now_ms() if self._connections.get(agent) else self._seen.get(agent)


class Feed:
    """Batches for one follower; filled by the hub, emptied by a connection."""

    def __init__(self) -> None:
        self._batches: deque[list[Any]] = deque()
        self._came = asyncio.Event()

    def put(self, batch: list[Any]) -> None:
        if len(self._batches) >= FOLLOWER_LAG_MAX:
            self._batches.clear()
        self._batches.append(batch)
        self._came.set()

    async def next(self) -> list[Any]:
        """Everything since the last call, as one list."""
        await self._came.wait()
        self._came.clear()
        batches, self._batches = self._batches, deque()
        return [item for batch in batches for item in batch]


class Parked:
    """Who waits for something to come for an agent, longest first."""

    def __init__(self) -> None:
        self._waiting: dict[AgentName, dict[asyncio.Event, None]] = {}

    @contextmanager
    def parked(self, agent: AgentName) -> Iterator[asyncio.Event]:
        """An event that is set when something may have come; enter before looking, so that nothing is missed.

        Whoever leaves with the event set may not have taken what it was set for: the next one looks.
        """
        event = asyncio.Event()
        self._waiting.setdefault(agent, {})[event] = None
        try:
            yield event
        finally:
            waiting = self._waiting[agent]
            del waiting[event]
            if not waiting:
                del self._waiting[agent]
            elif event.is_set():
                self.wake_one(agent)

    def wake_one(self, agent: AgentName) -> None:
        """The one that waits longest looks again; all of them would look thousands of times for one message."""
        for event in self._waiting.get(agent, ()):
            if not event.is_set():
                event.set()
                return

    def wake_one_each(self) -> None:
        """For something that may come to everyone."""
        for agent in self._waiting:
            self.wake_one(agent)

    def wake_all(self, agent: AgentName) -> None:
        for event in self._waiting.get(agent, ()):
            event.set()


class Hub:
    """Wakes what waits when a batch was committed, and carries what is not in the log."""

    def __init__(self, clock: Clock) -> None:
        self.presence = Presence(clock)
        self.receiving = Parked()
        """Recvs, woken one a message."""
        self.controlled = Parked()
        """Harnesses that wait for a control."""
        self._followers: set[Feed] = set()
        self._live: dict[AgentName, deque[msgspec.Raw]] = {}
        self._live_followers: dict[AgentName, set[Feed]] = {}
        self._controls: dict[AgentName, deque[dict[str, str]]] = {}

    def will_send(self, to: str) -> None:
        """Call before the journal is asked to send: a recv parked for it looks in the same batch, so that one commit
        makes the message durable and delivers it. Where the send is refused it finds nothing and parks again."""
        if to == EVERYONE:
            self.receiving.wake_one_each()
        else:
            self.receiving.wake_one(to)

    def on_committed(self, batch: list[Recorded]) -> None:
        """On the loop, after the commit."""
        for recorded in batch:
            event = recorded.event
            match event:
                case MessageSent() | MessageRequeued():
                    self.receiving.wake_one(event.to)
                case Paused() | Resumed():
                    self.receiving.wake_all(event.agent)
                    self.controlled.wake_all(event.agent)
                case Started():
                    self._drop_cancels(event.agent)
                case _:
                    pass  # Nobody is parked for it.
        for follower in self._followers:
            follower.put(batch)

    @contextmanager
    def following(self) -> Iterator[Feed]:
        """Every committed batch from now on."""
        feed = Feed()
        self._followers.add(feed)
        try:
            yield feed
        finally:
            self._followers.discard(feed)

    def add_live(self, agent: AgentName, lines: Iterable[msgspec.Raw]) -> None:
        """More of an agent's turn stream, each line encoded; the oldest lines give way."""
        added = [msgspec.Raw(bytes(line)) for line in lines]  # Copied: a slice would keep its whole request alive.
        ring = self._live.setdefault(agent, deque(maxlen=LIVE_LINES_KEPT))
        ring.extend(added)
        size = sum(len(bytes(line)) for line in ring)
        while size > LIVE_BYTES_KEPT and len(ring) > 1:
            size -= len(bytes(ring.popleft()))
        for feed in self._live_followers.get(agent, ()):
            feed.put(added)

    def live(self, agent: AgentName) -> list[Any]:
        """What the ring holds, oldest first."""
        return list(self._live.get(agent, ()))

    @contextmanager
    def following_live(self, agent: AgentName) -> Iterator[Feed]:
        """An agent's turn stream from now on."""
        feed = Feed()
        followers = self._live_followers.setdefault(agent, set())
        followers.add(feed)
        try:
            yield feed
        finally:
            followers.discard(feed)

    def add_control(self, agent: AgentName, control: dict[str, str]) -> None:
        """Raises LimitReached: the harness does not take its controls."""
        waiting = self._controls.setdefault(agent, deque())
        if len(waiting) >= CONTROLS_MAX:
            raise LimitReached(f"{agent} has {CONTROLS_MAX} controls waiting and takes none; restart it.")
        waiting.append({"id": secrets.token_urlsafe(CONTROL_ID_BYTES), **control})
        self.controlled.wake_all(agent)

    def next_control(self, agent: AgentName, done: str | None) -> dict[str, str] | None:
        """The oldest control; it stays until it is `done`, so that one whose reply was lost comes again.

        A harness of an older version does not say what is done (None): it takes each one at once.
        """
        waiting = self._controls.get(agent)
        if not waiting:
            return None
        if done is None:
            return waiting.popleft()
        if waiting[0]["id"] == done:
            waiting.popleft()
        return waiting[0] if waiting else None

    def _drop_cancels(self, agent: AgentName) -> None:
        """They were meant for a turn of the run before."""
        waiting = self._controls.pop(agent, ())
        if left := deque(control for control in waiting if control["action"] != "cancel"):
            self._controls[agent] = left

    def forget(self, agent: AgentName) -> None:
        """A destroyed agent leaves nothing behind."""
        self._live.pop(agent, None)
        self._controls.pop(agent, None)
