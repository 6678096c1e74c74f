"""`hive stats`: turns, tokens, durations, tools. Reads the log; needs no daemon."""

from typing import Annotated, Literal

import typer

from hive.audit.figures import WINDOWS_MS, Figures, turn_figures
from hive.audit.reading import log_reader
from hive.cli import screen
from hive.cli.screen import Cell, Column
from hive.cli.session import Noun, Session, agent_names
from hive.clock import MS_PER_S, SystemClock, dollars_text, duration_text, rfc3339
from hive.turn_columns import TOKEN_COLUMNS, TOKEN_KINDS, token_counts

noun = Noun("Audit")

TOOLS_SHOWN = 5


@noun.command("stats", example="hive stats --agent coder --window 7d")
def stats(
    hive: Session,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="A", help="Only this agent.", autocompletion=agent_names)
    ] = None,
    window: Annotated[
        Literal["1h", "4h", "24h", "3d", "7d", "30d"], typer.Option("--window", help="Time window.")
    ] = "24h",
) -> None:
    """Show each agent's turns, tokens, durations and tools."""
    since = SystemClock().now_ms() - WINDOWS_MS[window]
    with log_reader(hive.paths) as reader:
        rows = turn_figures(reader, since, agent)
    if hive.as_json:
        screen.print_json({"window": window, "since": rfc3339(since), "agents": rows})
    elif not rows:
        screen.say(f"No turns ended in the last {window}.")
    else:
        kinds = (kind.title for kind in TOKEN_KINDS.values())
        figures = ("Turns", "Not ok", *kinds, "Cost", "Time", "Median")
        screen.table(
            (Column("Agent", whole=True), *(Column(title, right=True) for title in figures)), map(_cells, rows)
        )
        for row in rows:
            if row.tools:
                used = sorted(row.tools.items(), key=lambda item: -item[1])[:TOOLS_SHOWN]
                calls = f"{_count(row.tool_calls)} tool calls: "
                screen.line(f"{row.agent}: ", calls, ", ".join(f"{name} ×{count}" for name, count in used))
            if (reported := _reported(row)) is not None:
                screen.line(f"{row.agent}: the figures are metered; the harness reported {reported}")
            if row.metered is not None and row.metered.errors:
                screen.line(f"{row.agent}: {row.metered.errors} of {row.metered.requests} model requests failed")


def _cells(row: Figures) -> list[Cell]:
    return [
        row.agent,
        str(row.turns),
        str(row.failed),
        *(_tokens(row, column) for column in TOKEN_COLUMNS),
        dollars_text(row.cost_usd),
        _time(row.duration_ms),
        _time(row.median_duration_ms),
    ]


def _tokens(row: Figures, column: str) -> str:
    """The metered count; without metering, the reported one."""
    return _count(getattr(row if row.metered is None else row.metered, column))


def _reported(row: Figures) -> str | None:
    """What the harness reported, if the broker metered other counts."""
    if row.metered is None or token_counts(row) == token_counts(row.metered):
        return None
    return ", ".join(f"{_count(getattr(row, column))} {kind.title.lower()}" for column, kind in TOKEN_KINDS.items())


def _count(figure: int | None) -> str:
    if figure is None:
        return "?"
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if figure >= 10 * size:
            return f"{figure / size:.0f}{unit}"
    return str(figure)


def _time(ms: int | None) -> str:
    if ms is None:
        return "?"
    return f"{ms / MS_PER_S:.1f}s" if ms < 10 * MS_PER_S else duration_text(ms)
