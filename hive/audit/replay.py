"""The state as of any event or time, folded from the log alone."""

from typing import Any, Final

import msgspec

from hive.audit.reading import Tell
from hive.clock import parse_rfc3339, rfc3339
from hive.errors import BadRequest
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.log import LogReader
from hive.events.pages import read_ahead
from hive.names import AgentName
from hive.projections.agents import Agent
from hive.projections.hive import Hive
from hive.projections.replay import replay

_NAMING_FIELDS: Final = ("agent", "asker", "target", "requester", "sender", "to")
"""Of the projections' rows: whom a row is about."""


def position(reader: LogReader, until: str | None) -> Seq:
    """The event that a position or an RFC 3339 time names; beyond the head is the head, None too.

    Raises:
        BadRequest: neither a position nor a time.
    """
    head = reader.head().seq
    if until is None:
        return head
    if until.isascii() and until.isdigit():
        return min(int(until), head)
    try:
        return reader.last_until(rfc3339(parse_rfc3339(until)))
    except BadRequest as error:
        raise BadRequest(f"{error} Or give the position of an event.") from None


def state_at(reader: LogReader, seq: Seq, tell: Tell) -> Hive:
    """Every projection after that event."""
    hive = Hive()
    with read_ahead(reader.pages(1, seq)) as pages:
        replay(hive, pages, Codec(), tell)
    return hive


def as_data(hive: Hive, agent: AgentName | None = None) -> dict[str, dict[str, list[Any]]]:
    """The rows of every table by projection, in the order of their keys, ready for JSON; all, or of one agent."""
    return {
        projection.NAME: {
            table.name: [
                msgspec.to_builtins(table.rows[key])
                for key in sorted(table.rows)
                if agent is None or _is_about(table.rows[key], agent)
            ]
            for table in projection.tables()
        }
        for projection in hive.projections()
    }


def _is_about(row: msgspec.Struct, agent: AgentName) -> bool:
    if isinstance(row, Agent):
        return row.name == agent
    return any(getattr(row, field, None) == agent for field in _NAMING_FIELDS)
