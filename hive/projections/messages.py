"""Inboxes: waiting messages, messages in flight, and the newest of each recipient. Older ones are only in the log."""

from collections import defaultdict, deque
from itertools import islice
from typing import Any, Literal

import msgspec

from hive.events.agents import Destroyed, Purged
from hive.events.base import MessageId
from hive.events.erasing import Erased, covers
from hive.events.messages import MessageAcked, MessageDead, MessageDelivered, MessageRequeued, MessageSent
from hive.events.texts import erased_body
from hive.names import OPERATOR, AgentName
from hive.projections.ids import LastId
from hive.projections.table import Projection, Recorded, Table

RECENT_KEPT = 200
"""Newest messages kept for `recent`, per agent."""
OPERATOR_RECENT_KEPT = 1_000
"""Newest messages kept for the operator."""
RECENT_KEPT_BYTES = 4 * 1024 * 1024
"""Size of their bodies, per recipient; the newest message is always kept."""
LONG_BODY = RECENT_KEPT_BYTES // OPERATOR_RECENT_KEPT
"""Shorter bodies cannot reach that bound, so they are not counted while they are fresh."""


MESSAGE_BYTES = 1_024
"""What a message takes in memory besides its body, at most."""
CHARACTER_BYTES = 4
"""Of each character in memory, if one of the text is not ASCII."""


def held_bytes(body: str) -> int:
    """What a message takes in memory, at most."""
    return MESSAGE_BYTES + len(body) * (1 if body.isascii() else CHARACTER_BYTES)


class InboxMessage(msgspec.Struct, frozen=True, gc=False):
    """A message in an inbox or in flight."""

    id: MessageId
    at: str
    """When it was sent, RFC 3339 UTC."""
    sender: str
    to: str
    body: str
    in_reply_to: MessageId | None = None
    state: Literal["waiting", "in_flight"] = "waiting"
    incarnation: str | None = None
    """Of the current delivery."""
    failures: int = 0
    """Deliveries that ended in a failed turn or a dead incarnation."""
    redelivered: bool = False


class Recent(msgspec.Struct, frozen=True, gc=False):
    """A message to somebody, delivered or not."""

    to: str
    id: MessageId
    at: str
    sender: str
    body: str
    in_reply_to: MessageId | None = None


class _Inbox(msgspec.Struct):
    """Everything derived for one recipient, in one place: the fold does one lookup per event."""

    fresh: deque[Recorded]
    """The newest messages whose `recent` rows are not built yet; most are replaced before anybody reads them."""
    fresh_bulk: int = 0
    """Size of the long bodies among them, including those already dropped."""
    recent: deque[MessageId] = msgspec.field(default_factory=deque)
    """Ids in the table, oldest first; all older than the fresh ones."""
    recent_bytes: int = 0
    waiting: deque[MessageId] = msgspec.field(default_factory=deque)
    in_flight: dict[MessageId, None] = {}
    open_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.waiting or self.in_flight or self.recent or self.fresh)


class _Inboxes(dict[str, _Inbox]):
    """By recipient; created on first use."""

    def __missing__(self, to: str) -> _Inbox:
        inbox = self[to] = _Inbox(deque(maxlen=OPERATOR_RECENT_KEPT if to == OPERATOR else RECENT_KEPT))
        return inbox


_NOBODY = _Inbox(deque())


class Messages(Projection):
    NAME = "messages"
    VERSION = 3

    def __init__(self) -> None:
        self.open: Table[MessageId, InboxMessage] = Table("messages", InboxMessage)
        self.recent: Table[tuple[str, MessageId], Recent] = Table("recent_messages", Recent, key_parts=2)
        """Complete after `tables()`."""
        self.last: Table[str, LastId] = Table("last_message_id", LastId)
        """Complete after `tables()`."""
        self._newest_id = MessageId(0)
        self._inboxes = _Inboxes()
        self._held: defaultdict[str, int] = defaultdict(int)

    def tables(self) -> list[Table[Any, Any]]:
        for to in self._inboxes:
            self._make_rows(to)
        if self._newest_id and self._newest_id != self._last_id():
            self.last.put("message", LastId("message", self._newest_id))
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
            Erased: self._on_erased,
        }

    def restored(self) -> None:
        self._newest_id = self._last_id()
        self._inboxes = _Inboxes()
        self._held.clear()
        for id in sorted(self.open.rows):
            message = self.open[id]
            inbox = self._inboxes[message.to]
            self._held[message.sender] += held_bytes(message.body)
            inbox.open_bytes += len(message.body)
            if message.state == "waiting":
                inbox.waiting.append(id)
            else:
                inbox.in_flight[id] = None
        for to, id in sorted(self.recent.rows):
            inbox = self._inboxes[to]
            inbox.recent.append(id)
            inbox.recent_bytes += len(self.recent[to, id].body)

    def next_id(self) -> MessageId:
        """The id of the next message."""
        return self._newest_id + 1  # type: ignore[return-value]  # A call of a NewType costs more than the rest.

    def given(self, id: int) -> bool:
        """Whether a message with this id was ever sent."""
        return 0 < id <= self._newest_id

    def backlog(self, to: str) -> tuple[int, int]:
        """Number of waiting messages, and total length of waiting and in-flight bodies in characters."""
        inbox = self._inboxes.get(to, _NOBODY)
        return len(inbox.waiting), inbox.open_bytes

    def sent_bytes(self, sender: str) -> int:
        """What this sender's waiting and in-flight messages take in memory, in all inboxes together, at most."""
        return self._held.get(sender, 0)

    def waiting_count(self, to: str) -> int:
        """Number of waiting messages."""
        return len(self._inboxes.get(to, _NOBODY).waiting)

    def waiting(self, to: str, limit: int | None = None) -> list[InboxMessage]:
        """Waiting messages in delivery order."""
        return [self.open[id] for id in islice(self._inboxes.get(to, _NOBODY).waiting, limit)]

    def in_flight(self, to: str) -> list[InboxMessage]:
        """Delivered and neither acked nor requeued, oldest first."""
        return [self.open[id] for id in sorted(self._inboxes.get(to, _NOBODY).in_flight)]

    def newest(self, to: str, limit: int) -> list[Recent]:
        """The newest messages to a recipient, oldest first."""
        if to not in self._inboxes:
            return []
        self._make_rows(to)
        ids = self._inboxes[to].recent
        return [self.recent[to, id] for id in islice(ids, max(len(ids) - limit, 0), None)]

    def _on_sent(self, event: MessageSent, recorded: Recorded) -> None:
        id, to, body = event.id, event.to, event.body
        inbox = self._inboxes[to]
        self._newest_id = id
        inbox.fresh.append(recorded)
        if len(body) > LONG_BODY:
            inbox.fresh_bulk += len(body)
            if inbox.fresh_bulk > RECENT_KEPT_BYTES:
                self._make_rows(to)
        if to != OPERATOR:
            self.open.rows[id] = InboxMessage(id, recorded.at, event.sender, to, body, event.in_reply_to)
            self.open.changed.add(id)
            inbox.waiting.append(id)
            inbox.open_bytes += len(body)
            self._held[event.sender] += held_bytes(body)

    def _make_rows(self, to: str) -> None:
        """Build the rows of fresh messages and drop the oldest beyond the bound."""
        inbox = self._inboxes[to]
        ids = inbox.recent
        for one in inbox.fresh:
            sent: Any = one.event
            self.recent.put((to, sent.id), Recent(to, sent.id, one.at, sent.sender, sent.body, sent.in_reply_to))
            ids.append(sent.id)
            inbox.recent_bytes += len(sent.body)
        inbox.fresh.clear()
        inbox.fresh_bulk = 0
        while len(ids) > (inbox.fresh.maxlen or 0) or (inbox.recent_bytes > RECENT_KEPT_BYTES and len(ids) > 1):
            oldest = (to, ids.popleft())
            inbox.recent_bytes -= len(self.recent[oldest].body)
            self.recent.drop(oldest)

    def _last_id(self) -> MessageId:
        row = self.last.get("message")
        return MessageId(0 if row is None else row.last)

    def _on_delivered(self, event: MessageDelivered, _: Recorded) -> None:
        message, inbox = self.open.rows[event.id], self._inboxes[event.to]
        if inbox.waiting[0] == event.id:
            inbox.waiting.popleft()
        else:
            inbox.waiting.remove(event.id)
        inbox.in_flight[event.id] = None
        moved = _moved(message, "in_flight", event.incarnation, message.failures, message.redelivered)
        self.open.rows[event.id] = moved
        self.open.changed.add(event.id)

    def _on_requeued(self, event: MessageRequeued, _: Recorded) -> None:
        message, inbox = self.open.rows[event.id], self._inboxes[event.to]
        inbox.in_flight.pop(event.id)
        if inbox.waiting and inbox.waiting[0] < event.id:
            inbox.waiting = deque(sorted([event.id, *inbox.waiting]))
        else:
            inbox.waiting.appendleft(event.id)
        self.open.put(event.id, _moved(message, "waiting", None, message.failures + event.counts, redelivered=True))

    def _on_done(self, event: MessageAcked | MessageDead, _: Recorded) -> None:
        message = self.open.rows.pop(event.id, None)
        if message is None:
            return
        self.open.changed.add(event.id)
        inbox = self._inboxes[event.to]
        if message.state == "waiting":
            inbox.waiting.remove(event.id)
        else:
            inbox.in_flight.pop(event.id)
        inbox.open_bytes -= len(message.body)
        self._held[message.sender] -= held_bytes(message.body)

    def _on_destroyed(self, event: Destroyed, _: Recorded) -> None:
        if event.purge:
            self._forget(event.agent)

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        for to, inbox in self._inboxes.items():
            self._make_rows(to)
            for id in inbox.recent:
                if covers(event.messages, id):
                    row = self.recent[to, id]
                    body = erased_body(row.sender, row.body)
                    inbox.recent_bytes += len(body) - len(row.body)
                    self.recent.put((to, id), msgspec.structs.replace(row, body=body))
        for id, message in list(self.open.rows.items()):
            if covers(event.messages, id):
                body = erased_body(message.sender, message.body)
                self._inboxes[message.to].open_bytes += len(body) - len(message.body)
                self._held[message.sender] += held_bytes(body) - held_bytes(message.body)
                self.open.put(id, msgspec.structs.replace(message, body=body))

    def _forget(self, agent: AgentName) -> None:
        """Another agent may get the same name and must not see these messages."""
        inbox = self._inboxes.get(agent)
        if inbox is None:
            return
        for id in inbox.recent:
            self.recent.drop((agent, id))
        inbox.recent.clear()
        inbox.fresh.clear()
        inbox.recent_bytes = inbox.fresh_bulk = 0


def _moved(
    message: InboxMessage,
    state: Literal["waiting", "in_flight"],
    incarnation: str | None,
    failures: int,
    redelivered: bool,
) -> InboxMessage:
    """The same message in another state. Written out, since `replace` is slower."""
    return InboxMessage(
        message.id,
        message.at,
        message.sender,
        message.to,
        message.body,
        message.in_reply_to,
        state,
        incarnation,
        failures,
        redelivered,
    )
