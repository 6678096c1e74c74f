"""Messages from `system`: JSON bodies with an `event` key. Written by deciders, read by models."""

import msgspec

from hive.events.base import ApprovalId, QuestionId, ReminderId
from hive.names import AgentName

KICK_HINT = "You were just (re)started. Look at /state/ for your notes; the session continues."


def _snake(name: str | None) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name or "").lstrip("_")


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=_snake):
    """Base of all notices; the tag is the class name in snake case."""


class OperatorAnswered(Notice, frozen=True, kw_only=True):
    """To the asker: its question has an answer."""

    id: QuestionId
    question: str
    answer: str
    answerer: str


class QuestionAsked(Notice, frozen=True, kw_only=True):
    """To the peer that is asked."""

    id: QuestionId
    asker: AgentName
    question: str
    options: tuple[str, ...]
    multi: bool
    deadline_at: str | None


class QuestionClosed(Notice, frozen=True, kw_only=True):
    """To the peer that was asked: the question no longer needs an answer."""

    id: QuestionId
    answer: str
    answerer: str


class ApprovalResolved(Notice, frozen=True, kw_only=True, omit_defaults=True):
    """To the manager, or of kind `egress` to the agent that asked: the outcome of a request."""

    id: ApprovalId
    agent: AgentName
    kind: str
    status: str
    note: str | None
    host: str | None = None
    port: int | None = None
    until: str | None = None
    """Of a denied host: it is not asked for again before this time."""


class Killed(Notice, frozen=True, kw_only=True):
    agent: AgentName


class Crashed(Notice, frozen=True, kw_only=True):
    agent: AgentName
    reason: str
    restart_at: str | None
    """None: it is not restarted."""
    last_line: str | None = None
    """The last line that its container wrote."""


class Rebuilt(Notice, frozen=True, kw_only=True):
    agent: AgentName
    ok: bool
    error: str | None = None


class NeedsLogin(Notice, frozen=True, kw_only=True):
    agent: AgentName


class LoggedIn(Notice, frozen=True, kw_only=True):
    agent: AgentName


class NeedsUpdate(Notice, frozen=True, kw_only=True):
    agent: AgentName


class Destroyed(Notice, frozen=True, kw_only=True):
    """To every sender of a message that the agent did not read."""

    agent: AgentName
    unread: int


class Rested(Notice, frozen=True, kw_only=True):
    """To the operator: an agent is not restarted automatically."""

    agent: AgentName
    reason: str
    last_line: str | None = None
    """The last line that its container wrote."""


class BudgetReached(Notice, frozen=True, kw_only=True):
    """To the operator: an agent used its budget and is paused until the window has room."""

    agent: AgentName
    turns: int
    tokens: int
    dollars: float | None
    hours: int
    until: str


class Throttled(Notice, frozen=True, kw_only=True):
    """To the operator, at most once an hour: an agent sends more than its share and is refused."""

    agent: AgentName
    refused: int
    share: str


class DiskLow(Notice, frozen=True, kw_only=True):
    """To the operator: agents are refused until the disk has more room."""

    free_mb: int
    floor_mb: int


class DiskNearlyFull(Notice, frozen=True, kw_only=True):
    """To the agent, the manager and the operator: the agent's folders take 90 % of its disk limit."""

    agent: AgentName
    used_mb: int
    limit_mb: int
    hint: str = "Delete what is not needed in /state. At the limit the agent is paused."


class DiskFull(Notice, frozen=True, kw_only=True):
    """To the same: the agent is paused until it takes less or the operator resumes it."""

    agent: AgentName
    used_mb: int
    limit_mb: int


class ActFailed(Notice, frozen=True, kw_only=True):
    """To the manager: a lifecycle act failed."""

    agent: AgentName
    act: str
    error: str


class MessageDead(Notice, frozen=True, kw_only=True):
    """To the operator and the sender: a message is dead."""

    id: int
    to: AgentName
    sender: str = msgspec.field(name="from")
    reason: str


class Reminder(Notice, frozen=True, kw_only=True):
    """To the agent that set it."""

    id: ReminderId
    message: str


class Kicked(Notice, frozen=True, kw_only=True):
    """To an agent that was restarted."""

    reason: str
    hint: str = KICK_HINT


def body(notice: Notice) -> str:
    """The message body."""
    return msgspec.json.encode(notice).decode()
