"""The ordered events that explain an agent, a message, a question or an approval."""

from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from hive.errors import NotFound
from hive.events import agents as agent_facts
from hive.events.approvals import KINDS
from hive.events.base import Event, Seq
from hive.events.log import LogReader, Row
from hive.names import SYSTEM

Subject = Literal["agent", "message", "question", "approval"]

ID_MAX: Final = 2**63 - 1
ID_DIGITS_MAX: Final = len(str(ID_MAX))
UNKNOWN: Final = "unknown"
"""The reason of a crash without a known exit."""

_AGENT_TYPES: Final = tuple(
    name
    for name, value in vars(agent_facts).items()
    if isinstance(value, type) and issubclass(value, Event) and value is not Event
)
_MESSAGE_TYPES: Final = ("MessageSent", "MessageDelivered", "MessageAcked", "MessageRequeued", "MessageDead")
_QUESTION_TYPES: Final = ("QuestionAdded", "QuestionResolved")
_APPROVAL_TYPES: Final = ("ApprovalRequested", "ProposalPinned", "ApprovalResolved", "ApprovalFailed")
_RULE_TYPES: Final = KINDS["egress"].carried_out_by
_REMINDER_TYPES: Final = ("ReminderSet", "ReminderFired")
_NUMBERED_NOTICES: Final = {
    "operator_answered": _QUESTION_TYPES,
    "question_asked": _QUESTION_TYPES,
    "question_closed": _QUESTION_TYPES,
    "approval_resolved": _APPROVAL_TYPES,
    "reminder": _REMINDER_TYPES,
    "message_dead": _MESSAGE_TYPES,
}
"""By notice, the events with the same id."""
_AGENT_NOTICES: Final = {
    "killed": "Killed",
    "crashed": "Crashed",
    "rebuilt": "Rebuilt",
    "needs_login": "NeedsLogin",
    "logged_in": "LoggedIn",
    "needs_update": "NeedsUpdate",
    "destroyed": "Destroyed",
    "rested": "Crashed",
    "budget_reached": "BudgetReached",
    "disk_nearly_full": "DiskNearlyFull",
    "disk_full": "DiskFull",
    "act_failed": "ActFailed",
    "throttled": "Throttled",
}
_CARRYING_OUT: Final = ("AgentAdded", "ActDecided", "Spawned", "Started", "Rebuilt", "ActFailed", "Crashed", "Stopped")


class Explanation(NamedTuple):
    """The events in log order, and what they do not explain."""

    rows: list[Row]
    gaps: list[str]
    """What the log does not tell, as the rest of a sentence that starts with `Cannot tell`."""


def explain(reader: LogReader, subject: Subject, name: str) -> Explanation:
    """Find the events that led to a subject and its outcome.

    Raises:
        NotFound: the log says nothing of it.
    """
    gaps: list[str] = []
    if subject == "agent":
        rows = _agent(reader, name, gaps)
    else:
        by_id = {"message": _message, "question": _question, "approval": _approval}[subject]
        rows = by_id(reader, int(name), gaps) if _is_id(name) else []
    if not rows:
        head = reader.head().seq
        raise NotFound(f"Cannot tell: this log, up to event {head}, says nothing of {subject} {name}.")
    return Explanation(sorted({row.seq: row for row in rows}.values()), gaps)


def _is_id(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= ID_DIGITS_MAX and int(name) <= ID_MAX


def _agent(reader: LogReader, name: str, gaps: list[str]) -> list[Row]:
    """Its lifecycle, its approvals and its network rules; `hive log --agent` lists everything else."""
    rows = _typed(reader, (*_AGENT_TYPES, *_APPROVAL_TYPES, *_RULE_TYPES), "agent", name)
    crashes = (row for row in rows if row.type == "Crashed")
    unseen = (row for row in crashes if msgspec.json.decode(row.data)["reason"] == UNKNOWN)
    gaps += (f"how the run ended that event {row.seq} found gone: nobody saw it." for row in unseen)
    return rows


def _message(reader: LogReader, id: int, gaps: list[str]) -> list[Row]:
    own = _numbered(reader, _MESSAGE_TYPES, id)
    if not own:
        return []
    sent = msgspec.json.decode(own[0].data)
    rows = [*own, *_turns_with(reader, id)]
    if (answered := sent.get("in_reply_to")) is not None:
        rows += (first := _typed(reader, ("MessageSent",), "id", answered))
        if not first:
            gaps.append(f"what it answers: the log holds no message {answered}.")
    if sent["from"] == SYSTEM:
        rows += (facts := _told_of(reader, own[0], sent["body"]))
        if not facts:
            gaps.append("why the system said it: no event before it is the one that it tells of.")
    elif own[0].by == f"agent:{sent['from']}":
        rows += (turn := _turn_at(reader, sent["from"], own[0].seq))
        if not turn:
            gaps.append(f"which turn it came from: {sent['from']} sent it while none was under way.")
    return rows


def _question(reader: LogReader, id: int, _gaps: list[str]) -> list[Row]:
    own = _numbered(reader, _QUESTION_TYPES, id)
    return own and [*own, *_notices(reader, "question", id), *_notices(reader, "operator_answered", id)]


def _approval(reader: LogReader, id: int, gaps: list[str]) -> list[Row]:
    own = _numbered(reader, _APPROVAL_TYPES, id)
    return own and [*own, *_carried_out(reader, own, gaps), *_notices(reader, "approval_resolved", id)]


def _carried_out(reader: LogReader, own: list[Row], gaps: list[str]) -> list[Row]:
    """The agent's acts from the decision to the outcome."""
    request = msgspec.json.decode(own[0].data)
    decided = next((row for row in own if row.type == "ApprovalResolved"), None)
    kind = KINDS[request["kind"]]
    if kind.is_immediate:  # A denial, too.
        return _typed(reader, kind.carried_out_by, "approval_id", request["id"])
    if decided is None or msgspec.json.decode(decided.data).get("status") != "approved":
        return []
    rows, built = [], not kind.has_commit
    for row in _typed(reader, _CARRYING_OUT, "agent", request["agent"], after=decided.seq - 1):
        rows.append(row)
        built = built or row.type == "Rebuilt"
        failed_build = row.type == "Rebuilt" and msgspec.json.decode(row.data).get("ok") is False
        if failed_build or (built and row.type in kind.carried_out_by):
            break
    else:
        if all(row.type != "ApprovalFailed" for row in own):
            gaps.append(f"whether it was carried out: up to event {reader.head().seq} the log holds no outcome.")
    return rows


def _told_of(reader: LogReader, sent: Row, body: str) -> list[Row]:
    """The events that a system message reports."""
    notice = _notice(body)
    event = notice.get("event")
    if event in _NUMBERED_NOTICES:
        return [row for row in _numbered(reader, _NUMBERED_NOTICES[event], notice.get("id")) if row.seq <= sent.seq]
    if event in _AGENT_NOTICES:
        facts = _typed(reader, (_AGENT_NOTICES[event],), "agent", notice.get("agent"))
        return [row for row in facts if row.seq <= sent.seq][-1:]
    if event == "kicked":
        started = _typed(reader, ("Started",), "agent", msgspec.json.decode(sent.data)["to"])
        return [row for row in started if row.seq <= sent.seq][-1:]
    return []


def _notices(reader: LogReader, event: str, id: int) -> list[Row]:
    """System messages with this event and id, and their deliveries."""
    condition = (
        "type = 'MessageSent' AND data ->> 'from' = ? AND json_valid(data ->> 'body')"
        " AND (data ->> 'body') ->> 'id' = ? AND (data ->> 'body') ->> 'event' LIKE ?"
    )
    sent = list(reader.where(condition, (SYSTEM, id, f"{event}%")))
    return [row for one in sent for row in _numbered(reader, _MESSAGE_TYPES, msgspec.json.decode(one.data)["id"])]


def _turns_with(reader: LogReader, message: int) -> list[Row]:
    condition = "type = 'TurnStarted' AND EXISTS (SELECT 1 FROM json_each(data, '$.message_ids') WHERE value = ?)"
    rows = []
    for started in list(reader.where(condition, (message,))):
        agent = msgspec.json.decode(started.data)["agent"]
        rows += [started, *_typed(reader, ("TurnEnded",), "agent", agent, after=started.seq, limit=1)]
    return rows


def _turn_at(reader: LogReader, agent: str, seq: Seq) -> list[Row]:
    """The turn of an agent that was running at an event."""
    condition = "seq < ? AND type IN ('TurnStarted', 'TurnEnded') AND data ->> 'agent' = ?"
    rows = list(reader.where(condition, (seq, agent), newest=1))
    return rows if rows and rows[0].type == "TurnStarted" else []


def _numbered(reader: LogReader, types: Iterable[str], id: object) -> list[Row]:
    return _typed(reader, types, "id", id)


def _typed(
    reader: LogReader, types: Iterable[str], key: str, value: object, *, after: int = 0, limit: int = -1
) -> list[Row]:
    named = ",".join(f"'{name}'" for name in types)
    condition = f"seq > ? AND type IN ({named}) AND data ->> ? = ?"
    rows = reader.where(condition, (after, key, value), first=after + 1)
    return list(rows) if limit < 0 else [row for _, row in zip(range(limit), rows, strict=False)]


def _notice(body: str) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return said if isinstance(said, dict) else {}
