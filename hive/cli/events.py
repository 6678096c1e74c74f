"""How an event of the log is shown, as JSON and as a line. For `hive log` and `hive audit`."""

from typing import Any

import msgspec

from hive.cli import screen
from hive.cli.screen import Styled
from hive.events.log import Row, row_json

VALUE_SHOWN = 300
"""Characters of one value of an event on a line."""


def as_data(row: Row) -> dict[str, Any]:
    """The keys of `hive log --json`, with `data` as an object."""
    return {**row_json(row), "data": msgspec.Raw(row.data.encode())}


def show(row: Row) -> None:
    """One line: position, time, type, who, and the data."""
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
    except msgspec.DecodeError:  # A damaged log is shown as far as it can be read.
        return data
    return " ".join(f"{name}={_short(value)}" for name, value in fields.items())


def _short(value: Any) -> str:
    text = screen.plain(value)
    return text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}…"
