"""Facts about turns as the harness reports them (self-reported). Read by the turns projection."""

from typing import Annotated, Final

import msgspec

from hive.events.base import Event, MessageId
from hive.names import AgentName
from hive.turn_columns import TurnColumns

TOOL_CALLS_MAX: Final = 10**12
"""Of one tool in one turn. A larger number is invalid: sums of such numbers would overflow SQLite's integers."""


class TurnStarted(Event, frozen=True, kw_only=True):
    """A turn started with these messages."""

    agent: AgentName
    model: str | None = None
    wake_from: str | None = None
    """Sender of the first message in the batch."""
    message_ids: tuple[MessageId, ...] = ()


class TurnEnded(TurnColumns, Event, frozen=True, omit_defaults=False):  # type: ignore[misc]  # Frozen, unlike its base.
    """The figures of one turn. Unknown is null, never 0; every key is present."""

    agent: AgentName


def calls_by_tool(turn: TurnEnded) -> dict[str, int]:
    """`tool_calls_json`, decoded. Invalid JSON from the harness counts as no tools."""
    try:
        return _CALLS.decode(turn.tool_calls_json or "{}")
    except msgspec.DecodeError:
        return {}


_CALLS: Final = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, le=TOOL_CALLS_MAX)]])
