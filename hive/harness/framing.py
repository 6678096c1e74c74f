"""Frames messages in prompts and tool results, so that no body can imitate another message or the operator."""

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from hive.names import SYSTEM

# Unescaped, these could imitate a mark or a reminder, hide text or reverse it on a screen.
_ESCAPED = re.compile("[<>&\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def encode(value: Any) -> str:
    """One line of JSON; the sender's text cannot leave its quotes."""
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def message(row: dict[str, Any]) -> dict[str, Any]:
    """A message as the model sees it. Only bodies from `system` are decoded into `event`."""
    shown = dict(row)
    if row.get("from") == SYSTEM:
        try:
            event = msgspec.json.decode(str(row.get("body")))
        except msgspec.DecodeError:
            return shown
        if isinstance(event, dict):
            del shown["body"]
            shown["event"] = event
    return shown


def wake_prompt(messages: Sequence[dict[str, Any]], remaining: int, *, note: str = "") -> str:
    """The prompt of one turn: its messages, one line of JSON each, between unpredictable marks."""
    nonce = secrets.token_hex(8)
    many = "1 new message" if len(messages) == 1 else f"{len(messages)} new messages"
    waiting = f"{remaining} more wait in your inbox." if remaining else "No more wait."
    lines = [
        f"You have {many}, between the two marks {nonce}, one line of JSON each. {waiting}",
        *([note] if note else []),
        f"<messages {nonce}>",
        *(encode(message(row)) for row in messages),
        f"</messages {nonce}>",
    ]
    return "\n".join(lines)
