"""Which fields of an event are text that somebody wrote, and what is left of an event when they are erased."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from hive.names import SYSTEM

ERASED: Final = "[erased]"
TEXT_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "MessageSent": ("body",),
    "QuestionAdded": ("question", "options"),
    "QuestionResolved": ("answer",),
    "ApprovalRequested": ("description", "host"),
    "ApprovalResolved": ("note",),
    "ApprovalFailed": ("error",),
    "EgressAllowed": ("host",),
    "EgressDenied": ("host",),
    "EgressRevoked": ("host",),
    "ReminderSet": ("message",),
    "StatusSet": ("text",),
    "TurnEnded": ("note",),
    "ActFailed": ("error",),
    "Rebuilt": ("error",),
    "Warned": ("text",),
    "NotificationFailed": ("error",),
    "DecisionSent": ("text",),
    "DecisionDone": ("error",),
    "DecisionAnswered": ("error",),
    "MoveSent": ("reminders",),
    "MoveArrived": ("reminders",),
    "MoveFailed": ("error",),
    "MoveRefused": ("error",),
    "AdoptionEnded": ("error",),
    "AdoptionRefused": ("error",),
    "CommandKeyed": ("key",),
}
"""By event type, the keys of its `data`. Names, ids, times and figures are not text and stay.

A host may be any text that an agent chose.
"""
RULES: Final = ("EgressAllowed", "EgressDenied", "EgressRevoked")
"""Without its host a rule has no effect, so these are erased only with the approval that made them."""
NOTICE_FIELDS: Final = ("question", "options", "answer", "note", "message", "error", "host")
"""The same for the JSON body of a message from `system`."""
NOT_TEXT: Final = frozenset({ERASED, "[expired]", "[cancelled]"})


def erased_data(type_: str, data: str) -> str:
    """The data without its texts; the same text if it has none."""
    fields = msgspec.json.decode(data)
    left = {**fields, **{name: _left(type_, fields, name) for name in TEXT_FIELDS.get(type_, ()) if name in fields}}
    return data if left == fields else msgspec.json.encode(left).decode()


def erased_body(sender: str, body: str) -> str:
    """A message's body without its text. A notice from `system` stays a notice."""
    notice = _notice(sender, body)
    if notice is None:
        return ERASED
    return msgspec.json.encode(
        {name: erased_value(value) if name in NOTICE_FIELDS else value for name, value in notice.items()}
    ).decode()


def erased_value(value: Any) -> Any:
    """What is left of one text or a list of texts."""
    if isinstance(value, (list, tuple)):
        return type(value)(erased_value(one) for one in value)
    return ERASED if isinstance(value, str) and value not in NOT_TEXT else value


def texts_of(type_: str, data: str) -> Iterator[str]:
    """Every text in an event."""
    fields = msgspec.json.decode(data)
    for name in TEXT_FIELDS.get(type_, ()):
        value = fields.get(name)
        notice = _notice(fields["from"], value) if (type_, name) == ("MessageSent", "body") else None
        values = [value] if notice is None else [notice.get(one) for one in NOTICE_FIELDS]
        for one in values:
            yield from _strings(one)


def erased_key(first_seq: int) -> str:
    """In place of an idempotency key; unique, since keys are."""
    return f"{ERASED} {first_seq}"


def _left(type_: str, fields: dict[str, Any], name: str) -> Any:
    if type_ == "MessageSent":
        return erased_body(fields["from"], fields[name])
    if type_ == "CommandKeyed":
        return erased_key(fields["first_seq"])
    return erased_value(fields[name])


def _notice(sender: str, body: str) -> dict[str, Any] | None:
    if sender != SYSTEM:
        return None
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value not in NOT_TEXT:
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
