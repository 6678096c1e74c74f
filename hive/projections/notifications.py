"""Notifications that the webhook has not received yet. Read by the webhook actor."""

import msgspec

from hive.clock import DurationMs, TimeMs, rfc3339
from hive.events import AnyEvent
from hive.events.agents import (
    BudgetFreed,
    BudgetReached,
    Crashed,
    Destroyed,
    DiskFull,
    DiskNearlyFull,
    DiskNoLongerFull,
    LoggedIn,
    NeedsLogin,
    Resumed,
)
from hive.events.approvals import KINDS, ApprovalRequested, ApprovalResolved
from hive.events.base import Seq
from hive.events.erasing import Erased, covers
from hive.events.notifications import NotificationDelivered, NotificationFailed, Topic
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.texts import erased_value
from hive.projections.table import Projection, Recorded, Table

TEXT_MAX_CHARS = 1_000
PENDING_MAX = 1_000
"""Beyond it the oldest is dropped. A hive without a webhook collects them too."""
PENDING_MAX_MS: DurationMs = 24 * 3_600_000
"""Older notifications are not sent; the dashboard shows them."""


class Notification(msgspec.Struct, frozen=True):
    """The text of a notification."""

    topic: Topic
    subject: str
    """The question's or approval's number, or the agent."""
    title: str
    text: str
    path: str
    """Dashboard page for the decision."""
    urgent: bool = False


class Pending(msgspec.Struct, frozen=True):
    """A notification that waits for its delivery."""

    seq: Seq
    """The event of the notification."""
    at_ms: TimeMs
    told: Notification


def notification_for(event: AnyEvent) -> Notification | None:
    """The notification for an event, if it has one."""
    match event:
        case QuestionAdded(target=None, id=id, asker=asker, question=text):
            return Notification("question", str(id), f"{asker} asks", text, "/your-call")
        case ApprovalRequested(id=id, agent=agent, kind=kind, description=about):
            title = f"Approve {KINDS[kind].label} {agent}?"
            return Notification("approval", str(id), title, about or title, "/your-call")
        case NeedsLogin(agent=agent):
            return Notification(
                "needs_login", agent, f"{agent} needs a login", "It rests until then.", f"/agent/{agent}/"
            )
        case Crashed(agent=agent, reason=reason, restart_ms=restart, last_line=line):
            after = "It rests." if restart is None else "It is started again."
            text = f"{reason}. {after}" if line is None else f"{reason}. {after} Its last line: {line}"
            return Notification("crash", agent, f"{agent} crashed", text, f"/agent/{agent}/", restart is None)
        case BudgetReached(agent=agent, turns=turns, tokens=tokens, budget=budget, until_ms=until):
            text = f"{turns} turns and {tokens} tokens in {budget.hours} h. It is paused until {rfc3339(until)}."
            return Notification("budget", agent, f"{agent} has used its budget up", text, f"/agent/{agent}/")
        case DiskNearlyFull(agent=agent, used_mb=used, limit_mb=limit):
            text = f"It uses {used} of {limit} MiB. At the limit it is paused."
            return Notification("disk", agent, f"The disk of {agent} is nearly full", text, f"/agent/{agent}/")
        case DiskFull(agent=agent, used_mb=used, limit_mb=limit):
            text = f"It uses {used} of {limit} MiB. It is paused until it takes less or you resume it."
            return Notification("disk", agent, f"The disk of {agent} is full", text, f"/agent/{agent}/", urgent=True)
        case _:
            return None


class Notifications(Projection):
    """A notification is pending until its delivery or failure is logged, or until its subject is settled."""

    NAME = "notifications"
    VERSION = 2

    def __init__(self) -> None:
        self.pending: Table[Seq, Pending] = Table("notifications", Pending)

    def handlers(self) -> dict[type, object]:
        return {
            QuestionAdded: self._on_news,
            ApprovalRequested: self._on_news,
            NeedsLogin: self._on_news,
            Crashed: self._on_news,
            BudgetReached: self._on_news,
            DiskNearlyFull: self._on_news,
            DiskFull: self._on_disk_full,
            NotificationDelivered: self._on_told,
            NotificationFailed: self._on_told,
            QuestionResolved: lambda event, _: self._drop("question", str(event.id)),
            ApprovalResolved: lambda event, _: self._drop("approval", str(event.id)),
            LoggedIn: lambda event, _: self._drop("needs_login", event.agent),
            BudgetFreed: lambda event, _: self._drop("budget", event.agent),
            DiskNoLongerFull: lambda event, _: self._drop("disk", event.agent),
            Resumed: self._on_resumed,
            Destroyed: self._on_destroyed,
            Erased: self._on_erased,
        }

    def waiting(self, now: TimeMs) -> list[Pending]:
        """Oldest first, without those that are too old."""
        return [row for _, row in sorted(self.pending.rows.items()) if now - row.at_ms < PENDING_MAX_MS]

    def _on_news(self, event: AnyEvent, recorded: Recorded) -> None:
        told = notification_for(event)
        if told is None:
            return
        if len(self.pending) >= PENDING_MAX:
            self.pending.drop(min(self.pending.rows))
        short = msgspec.structs.replace(told, text=told.text[:TEXT_MAX_CHARS])
        self.pending.put(recorded.seq, Pending(recorded.seq, recorded.at_ms, short))

    def _on_told(self, event: NotificationDelivered | NotificationFailed, _: Recorded) -> None:
        if event.of is not None:
            self.pending.drop(event.of)
            return
        first = min(self._about(event.topic, event.subject), default=None)  # Events of older logs have no `of`.
        if first is not None:
            self.pending.drop(first)

    def _on_disk_full(self, event: DiskFull, recorded: Recorded) -> None:
        self._drop("disk", event.agent)  # It is more than nearly full.
        self._on_news(event, recorded)

    def _on_resumed(self, event: Resumed, _: Recorded) -> None:
        for topic in ("budget", "disk"):
            self._drop(topic, event.agent)

    def _on_destroyed(self, event: Destroyed, _: Recorded) -> None:
        for topic in ("needs_login", "crash", "budget", "disk"):
            self._drop(topic, event.agent)

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        for seq, row in list(self.pending.rows.items()):
            has_text = row.told.topic == "question" or (
                row.told.topic == "approval" and row.told.text != row.told.title
            )
            if has_text and covers(event.rows, seq):
                told = msgspec.structs.replace(row.told, text=erased_value(row.told.text))
                self.pending.put(seq, msgspec.structs.replace(row, told=told))

    def _drop(self, topic: str, subject: str) -> None:
        for seq in self._about(topic, subject):
            self.pending.drop(seq)

    def _about(self, topic: str, subject: str) -> list[Seq]:
        return [seq for seq, row in self.pending.rows.items() if (row.told.topic, row.told.subject) == (topic, subject)]
