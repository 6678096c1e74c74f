"""Inboxes: what waits, what is in flight, and the newest rows of each recipient. Older history stays in the log."""

from collections import deque
from itertools import islice
from typing import Any, Literal

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


class _Inbox(msgspec.Struct):
    """What is derived of one recipient's rows, in one place: the fold looks up one recipient for each event."""

    to: str
    recent_max: int
    waiting: deque[MessageId] = msgspec.field(default_factory=deque)
    in_flight: dict[MessageId, None] = {}
    open_bytes: int = 0
    recent: deque[Recent] = msgspec.field(default_factory=deque)
    recent_bytes: int = 0
    fresh: int = 0
    """How many of `recent`, the newest, are not in the table yet: most are pushed out before anybody looks."""

    def __bool__(self) -> bool:
        return bool(self.waiting or self.in_flight or self.recent)


_NOBODY = _Inbox("", 0)


class Messages(Projection):
    NAME = "messages"
    VERSION = 2

    def __init__(self) -> None:
        self.open: Table[MessageId, Letter] = Table("messages", Letter)
        self.recent: Table[tuple[str, MessageId], Recent] = Table("recent_messages", Recent, key_parts=2)
        """Complete after `tables()`."""
        self._inboxes: dict[str, _Inbox] = {}
        self._with_fresh: set[str] = set()

    def tables(self) -> list[Table[Any, Any]]:
        for to in self._with_fresh:
            inbox = self._inboxes[to]
            for row in islice(reversed(inbox.recent), inbox.fresh):
                self.recent.put((to, row.id), row)
            inbox.fresh = 0
        self._with_fresh.clear()
        return super().tables()

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
        self._inboxes, self._with_fresh = {}, set()
        for id in sorted(self.open.rows):
            letter = self.open[id]
            inbox = self._inbox(letter.to)
            inbox.open_bytes += len(letter.body)
            if letter.state == "waiting":
                inbox.waiting.append(id)
            else:
                inbox.in_flight[id] = None
        for key in sorted(self.recent.rows):
            row = self.recent[key]
            inbox = self._inbox(row.to)
            inbox.recent.append(row)
            inbox.recent_bytes += len(row.body)

    def open_bytes(self, to: str) -> int:
        """Length of the bodies that wait or are in flight, in characters."""
        return self._inboxes.get(to, _NOBODY).open_bytes

    def waiting_count(self, to: str) -> int:
        """How many messages the next recvs would return."""
        return len(self._inboxes.get(to, _NOBODY).waiting)

    def waiting(self, to: str, limit: int | None = None) -> list[Letter]:
        """What waits for an agent, in the order it will be delivered."""
        return [self.open[id] for id in islice(self._inboxes.get(to, _NOBODY).waiting, limit)]

    def in_flight(self, to: str) -> list[Letter]:
        """Delivered and neither acked nor requeued, oldest first."""
        return [self.open[id] for id in sorted(self._inboxes.get(to, _NOBODY).in_flight)]

    def newest(self, to: str, limit: int) -> list[Recent]:
        """The newest rows addressed to somebody, oldest of them first."""
        recent = self._inboxes.get(to, _NOBODY).recent
        return list(islice(recent, max(len(recent) - limit, 0), None))

    def _inbox(self, to: str) -> _Inbox:
        inbox = self._inboxes.get(to)
        if inbox is None:
            inbox = self._inboxes[to] = _Inbox(to, OPERATOR_RECENT_KEPT if to == OPERATOR else RECENT_KEPT)
        return inbox

    def _on_sent(self, event: MessageSent, recorded: Recorded) -> None:
        id, to, body, at_ms = event.id, event.to, event.body, recorded.at_ms
        inbox = self._inbox(to)
        size = len(body)
        if to != OPERATOR:
            self.open.put(id, Letter(id, at_ms, event.sender, to, body, event.in_reply_to))
            inbox.waiting.append(id)
            inbox.open_bytes += size
        recent = inbox.recent
        recent.append(Recent(to, id, at_ms, event.sender, body, event.in_reply_to))
        inbox.recent_bytes += size
        if inbox.fresh == 0:
            self._with_fresh.add(to)
        inbox.fresh += 1
        while len(recent) > inbox.recent_max or (inbox.recent_bytes > RECENT_KEPT_BYTES and len(recent) > 1):
            oldest = recent.popleft()
            inbox.recent_bytes -= len(oldest.body)
            if inbox.fresh > len(recent):
                inbox.fresh = len(recent)
            else:
                self.recent.drop((to, oldest.id))

    def _on_delivered(self, event: MessageDelivered, _: Recorded) -> None:
        inbox = self._inboxes[event.to]
        if inbox.waiting[0] == event.id:
            inbox.waiting.popleft()
        else:
            inbox.waiting.remove(event.id)
        inbox.in_flight[event.id] = None
        letter = self.open.rows[event.id]
        self.open.put(event.id, _moved(letter, "in_flight", event.incarnation, letter.failures, letter.redelivered))

    def _on_requeued(self, event: MessageRequeued, _: Recorded) -> None:
        inbox = self._inboxes[event.to]
        inbox.in_flight.pop(event.id)
        if inbox.waiting and inbox.waiting[0] < event.id:
            inbox.waiting = deque(sorted([event.id, *inbox.waiting]))
        else:
            inbox.waiting.appendleft(event.id)
        letter = self.open.rows[event.id]
        self.open.put(event.id, _moved(letter, "waiting", None, letter.failures + event.counts, redelivered=True))

    def _on_done(self, event: MessageAcked | MessageDead, _: Recorded) -> None:
        letter = self.open.get(event.id)
        if letter is None:
            return
        inbox = self._inboxes[event.to]
        if letter.state == "waiting":
            inbox.waiting.remove(event.id)
        else:
            inbox.in_flight.pop(event.id)
        inbox.open_bytes -= len(letter.body)
        self.open.drop(event.id)

    def _on_destroyed(self, event: Destroyed, _: Recorded) -> None:
        if event.purge:
            self._forget(event.agent)

    def _forget(self, agent: AgentName) -> None:
        """Its name may be given to another agent, which must not find what was said to this one."""
        inbox = self._inboxes.get(agent)
        if inbox is None:
            return
        for row in inbox.recent:
            self.recent.drop((agent, row.id))
        inbox.recent.clear()
        inbox.recent_bytes = inbox.fresh = 0
        self._with_fresh.discard(agent)


def _moved(
    letter: Letter, state: Literal["waiting", "in_flight"], incarnation: str | None, failures: int, redelivered: bool
) -> Letter:
    """The same message in another state. Spelled out: `replace` looks every name up."""
    return Letter(
        letter.id,
        letter.at_ms,
        letter.sender,
        letter.to,
        letter.body,
        letter.in_reply_to,
        state,
        incarnation,
        failures,
        redelivered,
    )
