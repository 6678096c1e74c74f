"""Facts about turns as the harness reports them (self-reported). Read by the turns projection."""

from typing import Annotated, Final

import msgspec

from hive.events.base import Event, MessageId
from hive.names import AgentName

TOOL_CALLS_MAX: Final = 10**12
"""Of one tool in one turn. A larger number is invalid: sums of such numbers would overflow SQLite's integers."""


class TurnStarted(Event, frozen=True, kw_only=True):
    """A turn started with these messages."""

    agent: AgentName
    model: str | None = None
    wake_from: str | None = None
    """Sender of the first message in the batch."""
    message_ids: tuple[MessageId, ...] = ()


class TurnEnded(Event, frozen=True, kw_only=True, omit_defaults=False):
    """The figures of one turn. Unknown is null, never 0; every key is present."""

    agent: AgentName
    model: str | None = None
    wake_from: str | None = None
    result_kind: str | None = None
    """`ok`, `failed`, `prompt_too_long`, `budget`."""
    started_at: str | None = None
    """RFC 3339."""
    ended_at: str | None = None
    duration_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    tool_call_count: int | None = None
    tool_calls_json: str | None = None
    """`{"Read": 2, "Bash": 1}` as JSON text."""
    open_threads_count: int | None = None
    open_reminders_count: int | None = None
    note: str | None = None
    """The error of a failed turn."""


def calls_by_tool(turn: TurnEnded) -> dict[str, int]:
    """`tool_calls_json`, decoded. Invalid JSON from the harness counts as no tools."""
    try:
        return _CALLS.decode(turn.tool_calls_json or "{}")
    except msgspec.DecodeError:
        return {}


_CALLS: Final = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, le=TOOL_CALLS_MAX)]])
