"""State that is not in the log: parked requests, connections, turn streams, controls. Event loop only."""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec

from hive.clock import Clock, TimeMs
from hive.errors import LimitReached
from hive.events.agents import DiskFull, DiskNoLongerFull, Paused, Resumed, Started
from hive.events.messages import MessageRequeued, MessageSent
from hive.names import EVERYONE, AgentName
from hive.projections.table import Recorded
from hive.sockets.lines import LineConnection
from hive.sockets.peers import Process, process_of

LIVE_LINES_KEPT: Final = 1_000
"""Lines kept of each agent's turn stream."""
LIVE_BYTES_KEPT: Final = 4 * 1024 * 1024
"""Bytes kept of each agent's turn stream."""
CONTROLS_MAX: Final = 32
"""Controls that may wait for one harness."""
CONTROL_ID_BYTES: Final = 9
"""Ids are random, so that a restarted daemon does not reuse an id that a harness has seen."""
FOLLOWER_LAG_MAX: Final = 10_000
"""Batches a follower may lag behind. Above it the oldest batches are dropped."""


class Presence:
    """Which harnesses are connected. The crash watch reads it from its own thread, so reads are plain dict reads."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._connections: dict[AgentName, int] = {}
        self._seen: dict[AgentName, TimeMs] = {}
        self._incarnations: dict[AgentName, dict[LineConnection, str]] = {}
        self._started: dict[AgentName, str] = {}
        self._harness: dict[AgentName, Process] = {}

    @contextmanager
    def connected(self, agent: AgentName, connection: LineConnection) -> Iterator[None]:
        """Count a connection while it is open."""
        self._connections[agent] = self._connections.get(agent, 0) + 1
        try:
            yield
        finally:
            self._connections[agent] -= 1
            self._incarnations.get(agent, {}).pop(connection, None)
            self._seen[agent] = self._clock.now_ms()

    def speaks_for(self, agent: AgentName, connection: LineConnection, incarnation: str) -> None:
        """Record the incarnation that a connection sent in `hello`."""
        self._incarnations.setdefault(agent, {})[connection] = incarnation

    def incarnations(self, agent: AgentName) -> frozenset[str]:
        """Incarnations of the connections whose peer is still connected."""
        known = self._incarnations.get(agent, {})
        return frozenset(incarnation for connection, incarnation in known.items() if not connection.hung_up())

    def started(self, agent: AgentName, incarnation: str | None) -> None:
        """A container runs; its harness has not said hello yet."""
        self._harness.pop(agent, None)
        if incarnation is not None:
            self._started[agent] = incarnation

    def harness(self, agent: AgentName) -> Process | None:
        """The process of the agent's harness, once it said hello."""
        return self._harness.get(agent)

    def is_harness(self, agent: AgentName, incarnation: str, connection: LineConnection) -> bool:
        """Whether a hello comes from the harness; from then on its process is known.

        The harness starts every other process in its container, so of those that know the incarnation it is the oldest.
        """
        process = connection.process
        if process is None or self._started.get(agent) != incarnation:
            return False
        known = self._harness.get(agent)
        if known is None or process.started < known.started or process_of(known.pid) != known:
            self._harness[agent] = process
        return self._harness[agent] == process

    def last_seen(self, agent: AgentName) -> TimeMs | None:
        """When the agent was last connected: now if it is connected, None if never since the daemon started."""
        return self._clock.now_ms() if self._connections.get(agent) else self._seen.get(agent)


class Feed:
    """A queue of batches for one follower. The hub fills it, a connection empties it."""

    def __init__(self) -> None:
        self._batches: deque[list[Any]] = deque()
        self._came = asyncio.Event()

    def put(self, batch: list[Any]) -> None:
        if len(self._batches) >= FOLLOWER_LAG_MAX:
            self._batches.clear()
        self._batches.append(batch)
        self._came.set()

    async def next(self) -> list[Any]:
        """Wait for batches; return all items since the last call."""
        await self._came.wait()
        self._came.clear()
        batches, self._batches = self._batches, deque()
        return [item for batch in batches for item in batch]


class Parked:
    """Requests that wait for something to arrive for an agent, longest-waiting first."""

    def __init__(self) -> None:
        self._waiting: dict[AgentName, dict[asyncio.Event, None]] = {}

    @contextmanager
    def parked(self, agent: AgentName) -> Iterator[asyncio.Event]:
        """Yield an event that is set when something may have arrived. Enter before looking, so that nothing is missed.

        A request that leaves with its event set may not have taken the item, so the next request is woken.
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
        """Wake the longest-waiting request. Waking all would cause thousands of reads for one message."""
        for event in self._waiting.get(agent, ()):
            if not event.is_set():
                event.set()
                return

    def wake_one_each(self) -> None:
        """Wake one request of each agent."""
        for agent in self._waiting:
            self.wake_one(agent)

    def wake_all(self, agent: AgentName) -> None:
        for event in self._waiting.get(agent, ()):
            event.set()


class _Stream:
    """The newest lines of an agent's turn stream, bounded in number and bytes."""

    def __init__(self) -> None:
        self.lines: deque[msgspec.Raw] = deque()
        self._bytes = 0

    def extend(self, lines: list[msgspec.Raw]) -> None:
        self.lines.extend(lines)
        self._bytes += sum(map(_size, lines))
        while len(self.lines) > LIVE_LINES_KEPT or (self._bytes > LIVE_BYTES_KEPT and len(self.lines) > 1):
            self._bytes -= _size(self.lines.popleft())


def _size(line: msgspec.Raw) -> int:
    return memoryview(line).nbytes


class Hub:
    """Wakes parked requests after each commit and holds what is not in the log."""

    def __init__(self, clock: Clock) -> None:
        self.presence = Presence(clock)
        self.receiving = Parked()
        """Parked recvs. One is woken per message."""
        self.controlled = Parked()
        """Parked `next_control` requests."""
        self._followers: set[Feed] = set()
        self._live: dict[AgentName, _Stream] = {}
        self._live_followers: dict[AgentName, set[Feed]] = {}
        self._controls: dict[AgentName, deque[dict[str, str]]] = {}
        self._taken: dict[str, asyncio.Future[bool]] = {}
        """By control id, for those who wait: True if the harness took it, False if its run ended before."""
        self._has_model: set[AgentName] = set()
        """Agents whose harness knows the chosen model: this daemon started it or has sent the choice."""

    def will_send(self, to: str) -> None:
        """Call before asking the journal to send. A parked recv then reads in the same batch, so one commit makes the
        message durable and delivers it. If the send is refused, the recv finds nothing and parks again."""
        if to == EVERYONE:
            self.receiving.wake_one_each()
        else:
            self.receiving.wake_one(to)

    def on_committed(self, batch: list[Recorded]) -> None:
        """Called on the event loop after each commit."""
        for recorded in batch:
            event = recorded.event
            match event:
                case MessageSent() | MessageRequeued():
                    self.receiving.wake_one(event.to)
                case Paused() | Resumed() | DiskFull() | DiskNoLongerFull():
                    if isinstance(event, DiskFull):
                        self._cancel_turn(event.agent)
                    self.receiving.wake_all(event.agent)
                    self.controlled.wake_all(event.agent)
                case Started():
                    self._has_model.add(event.agent)
                    self.presence.started(event.agent, event.incarnation)
                    self._drop_cancels(event.agent)
                case _:
                    pass  # No request waits for this event.
        for follower in self._followers:
            follower.put(batch)

    @contextmanager
    def following(self) -> Iterator[Feed]:
        """Yield a feed of all batches committed from now on."""
        feed = Feed()
        self._followers.add(feed)
        try:
            yield feed
        finally:
            self._followers.discard(feed)

    def add_live(self, agent: AgentName, lines: Iterable[msgspec.Raw]) -> None:
        """Append encoded lines to an agent's turn stream. The oldest lines are dropped."""
        added = [msgspec.Raw(bytes(line)) for line in lines]  # Copy: a slice keeps the whole request alive.
        self._live.setdefault(agent, _Stream()).extend(added)
        for feed in self._live_followers.get(agent, ()):
            feed.put(added)

    def forget_live_lines(self) -> None:
        """Drop every agent's lines: they may quote what was erased."""
        self._live.clear()

    def live(self, agent: AgentName) -> list[Any]:
        """The lines kept of an agent's turn stream, oldest first."""
        return list(self._live[agent].lines) if agent in self._live else []

    @contextmanager
    def following_live(self, agent: AgentName) -> Iterator[Feed]:
        """Yield a feed of an agent's turn stream from now on."""
        feed = Feed()
        followers = self._live_followers.setdefault(agent, set())
        followers.add(feed)
        try:
            yield feed
        finally:
            followers.discard(feed)

    def add_control(self, agent: AgentName, control: dict[str, str]) -> str:
        """Queue a control for the harness and return its id.

        Raises:
            LimitReached: too many controls wait for the harness.
        """
        waiting = self._controls.setdefault(agent, deque())
        if len(waiting) >= CONTROLS_MAX:
            raise LimitReached(f"{agent} has {CONTROLS_MAX} unprocessed controls; restart it.")
        id = secrets.token_urlsafe(CONTROL_ID_BYTES)
        waiting.append({"id": id, **control})
        self.controlled.wake_all(agent)
        return id

    async def control_taken(self, agent: AgentName, id: str, within_s: float) -> bool:
        """Wait until the harness has taken a control. False: it did not in this time, and the control is dropped."""
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._taken[id] = taken
        try:
            async with asyncio.timeout(within_s):
                await taken
            return taken.result()
        except TimeoutError:
            return False
        finally:  # Also if the operator's connection ends: a control that nobody knows of must not run later.
            del self._taken[id]
            if not taken.done() or taken.cancelled():
                self._drop(agent, lambda control: control["id"] == id)

    def found_without_model(self, agent: AgentName) -> bool:
        """Whether the harness may not know the chosen model, because an earlier daemon started it. True only once."""
        if agent in self._has_model:
            return False
        self._has_model.add(agent)
        return True

    def next_control(self, agent: AgentName, done: str | None) -> dict[str, str] | None:
        """The oldest control. It stays until reported `done`, so a control whose reply was lost is sent again.

        Older harnesses do not report `done` (None); each control is then removed when it is returned.
        """
        waiting = self._controls.get(agent)
        if not waiting:
            return None
        if done is None:
            self._settle(waiting[0], True)
            return waiting.popleft()
        if waiting[0]["id"] == done:
            self._settle(waiting.popleft(), True)
        return waiting[0] if waiting else None

    def _cancel_turn(self, agent: AgentName) -> None:
        with suppress(LimitReached):  # Nothing but this agent waits for it; it is paused anyway.
            self.add_control(agent, {"action": "cancel"})

    def _drop_cancels(self, agent: AgentName) -> None:
        """Drop cancels that were meant for a turn of the previous run."""
        self._drop(agent, lambda control: control["action"] == "cancel")

    def _drop(self, agent: AgentName, is_dropped: Callable[[dict[str, str]], bool]) -> None:
        waiting = self._controls.pop(agent, deque())
        for control in filter(is_dropped, waiting):
            self._settle(control, False)
        if left := deque(control for control in waiting if not is_dropped(control)):
            self._controls[agent] = left

    def _settle(self, control: dict[str, str], taken: bool) -> None:
        if (future := self._taken.get(control["id"])) is not None and not future.done():
            future.set_result(taken)

    def forget(self, agent: AgentName) -> None:
        """Drop everything kept for a destroyed agent."""
        self._live.pop(agent, None)
        self._drop(agent, lambda _: True)
        self._has_model.discard(agent)
