"""Inboxes: what waits, what is in flight, and the newest rows of each recipient. Older history stays in the log."""

from collections import deque
from typing import Literal

import msgspec

from hive.clock import TimeMs
from hive.events.agents import Destroyed, Purged
from hive.events.base import MessageId
from hive.events.messages import MessageAcked, MessageDead, MessageDelivered, MessageRequeued, MessageSent
from hive.names import OPERATOR, AgentName
from hive.projections.table import Projection, Recorded, Table

RECENT_KEPT = 200
"""Newest messages kept for `recent`, for each agent."""
OPERATOR_RECENT_KEPT = 1_000
"""The same for the operator's inbox."""
RECENT_KEPT_BYTES = 4 * 1024 * 1024
"""Of their bodies, for each recipient; the newest is kept whatever its size."""


class Letter(msgspec.Struct, frozen=True, gc=False):
    """A message in an inbox or in flight."""

    id: MessageId
    at_ms: TimeMs
    sender: str
    to: str
    body: str
    in_reply_to: MessageId | None = None
    state: Literal["waiting", "in_flight"] = "waiting"
    incarnation: str | None = None
    """Of the delivery under way."""
    failures: int = 0
    """Deliveries that ended in a failed turn or a dead incarnation."""
    redelivered: bool = False


class Recent(msgspec.Struct, frozen=True, gc=False):
    """A message to somebody, delivered or not."""

    to: str
    id: MessageId
    at_ms: TimeMs
    sender: str
    body: str
    in_reply_to: MessageId | None = None


class Messages(Projection):
    NAME = "messages"
    VERSION = 2

    def __init__(self) -> None:
        self.open: Table[MessageId, Letter] = Table("messages", Letter)
        self.recent: Table[tuple[str, MessageId], Recent] = Table("recent_messages", Recent, key_parts=2)
        self._waiting: dict[str, deque[MessageId]] = {}
        self._in_flight: dict[str, dict[MessageId, None]] = {}
        self._recent_ids: dict[str, deque[MessageId]] = {}
        self._open_bytes: dict[str, int] = {}
        self._recent_bytes: dict[str, int] = {}

    def handlers(self) -> dict[type, object]:
        return {
            MessageSent: self._on_sent,
            MessageDelivered: self._on_delivered,
            MessageAcked: self._on_done,
            MessageDead: self._on_done,
            MessageRequeued: self._on_requeued,
            Purged: lambda event, _: self._forget(event.agent),
            Destroyed: self._on_destroyed,
        }

    def restored(self) -> None:
        self._waiting, self._in_flight, self._recent_ids = {}, {}, {}
        self._open_bytes, self._recent_bytes = {}, {}
        for id in sorted(self.open.rows):
            letter = self.open[id]
            self._open_bytes[letter.to] = self._open_bytes.get(letter.to, 0) + len(letter.body)
            if letter.state == "waiting":
                self._waiting.setdefault(letter.to, deque()).append(id)
            else:
                self._in_flight.setdefault(letter.to, {})[id] = None
        for to, id in sorted(self.recent.rows):
            self._recent_ids.setdefault(to, deque()).append(id)
            self._recent_bytes[to] = self._recent_bytes.get(to, 0) + len(self.recent[to, id].body)

    def open_bytes(self, to: str) -> int:
        """Length of the bodies that wait or are in flight, in characters."""
        return self._open_bytes.get(to, 0)

    def waiting_count(self, to: str) -> int:
        """How many messages the next recvs would return."""
        return len(self._waiting.get(to, ()))

    def waiting(self, to: str, limit: int | None = None) -> list[Letter]:
        """What waits for an agent, in the order it will be delivered."""
        ids = self._waiting.get(to, ())
        taken = list(ids)[:limit] if limit is None or limit < len(ids) else list(ids)
        return [self.open[id] for id in taken]

    def in_flight(self, to: str) -> list[Letter]:
        """Delivered and neither acked nor requeued, oldest first."""
        return [self.open[id] for id in sorted(self._in_flight.get(to, ()))]

    def newest(self, to: str, limit: int) -> list[Recent]:
        """The newest rows addressed to somebody, oldest of them first."""
        ids = self._recent_ids.get(to, ())
        return [self.recent[to, id] for id in list(ids)[max(len(ids) - limit, 0) :]]

    def _on_sent(self, event: MessageSent, recorded: Recorded) -> None:
        id, to, at_ms = event.id, event.to, recorded.at_ms
        if to != OPERATOR:
            self.open.put(id, Letter(id, at_ms, event.sender, to, event.body, event.in_reply_to))
            queue = self._waiting.get(to)
            if queue is None:
                queue = self._waiting[to] = deque()
            queue.append(id)
            self._open_bytes[to] = self._open_bytes.get(to, 0) + len(event.body)
        self.recent.put((to, id), Recent(to, id, at_ms, event.sender, event.body, event.in_reply_to))
        ids = self._recent_ids.get(to)
        if ids is None:
            ids = self._recent_ids[to] = deque()
        ids.append(id)
        size = self._recent_bytes.get(to, 0) + len(event.body)
        while len(ids) > (OPERATOR_RECENT_KEPT if to == OPERATOR else RECENT_KEPT) or (
            size > RECENT_KEPT_BYTES and len(ids) > 1
        ):
            oldest = (to, ids.popleft())
            size -= len(self.recent[oldest].body)
            self.recent.drop(oldest)
        self._recent_bytes[to] = size

    def _on_delivered(self, event: MessageDelivered, _: Recorded) -> None:
        queue = self._waiting[event.to]
        if queue[0] == event.id:
            queue.popleft()
        else:
            queue.remove(event.id)
        self._in_flight.setdefault(event.to, {})[event.id] = None
        letter = self.open[event.id]
        self.open.put(event.id, msgspec.structs.replace(letter, state="in_flight", incarnation=event.incarnation))

    def _on_requeued(self, event: MessageRequeued, _: Recorded) -> None:
        letter = self.open[event.id]
        self._in_flight[event.to].pop(event.id)
        queue = self._waiting.setdefault(event.to, deque())
        if queue and queue[0] < event.id:
            self._waiting[event.to] = deque(sorted([event.id, *queue]))
        else:
            queue.appendleft(event.id)
        failures = letter.failures + event.counts
        again = msgspec.structs.replace(letter, state="waiting", incarnation=None, failures=failures, redelivered=True)
        self.open.put(event.id, again)

    def _on_done(self, event: MessageAcked | MessageDead, _: Recorded) -> None:
        letter = self.open.get(event.id)
        if letter is None:
            return
        if letter.state == "waiting":
            self._waiting[event.to].remove(event.id)
        else:
            self._in_flight[event.to].pop(event.id)
        self._open_bytes[event.to] -= len(letter.body)
        self.open.drop(event.id)

    def _on_destroyed(self, event: Destroyed, _: Recorded) -> None:
        if event.purge:
            self._forget(event.agent)

    def _forget(self, agent: AgentName) -> None:
        """Its name may be given to another agent, which must not find what was said to this one."""
        self._recent_bytes.pop(agent, None)
        for id in self._recent_ids.pop(agent, ()):
            self.recent.drop((agent, id))
