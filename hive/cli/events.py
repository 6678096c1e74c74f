"""Formats an event as JSON and as a line. For `hive log` and `hive audit`."""

from typing import Any

import msgspec

from hive.cli import screen
from hive.cli.screen import Styled
from hive.clock import readable_field
from hive.events.log import Row, row_json

VALUE_SHOWN = 300
"""Maximum number of characters of one value on a line."""


def as_data(row: Row) -> dict[str, Any]:
    """The keys of `hive log --json`; `data` is an object."""
    return {**row_json(row), "data": msgspec.Raw(row.data.encode())}


def show(row: Row) -> None:
    """Print one line: position, time, type, `by`, and the data."""
    screen.line(
        Styled(f"{row.seq:>6} ", "bold"),
        Styled(f"{screen.when(row.at)} ", "dim"),
        Styled(f"{row.type} ", "cyan"),
        Styled(f"[{row.by}] ", "dim"),
        _fields(row.data),
    )


def _fields(data: str) -> str:
    try:
        fields = msgspec.json.decode(data)
    except msgspec.DecodeError:  # Show the raw data of a damaged event.
        return data
    readable = (readable_field(name, value) for name, value in fields.items())
    return " ".join(f"{name}={_short(value)}" for name, value in readable)


def _short(value: Any) -> str:
    text = screen.plain(value)
    return text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}…"
