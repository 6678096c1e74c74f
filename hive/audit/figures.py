"""Turn statistics over a time window, summed from the log. The harnesses report the figures."""

from collections.abc import Iterable
from statistics import median
from typing import Final

import msgspec

from hive.clock import DurationMs, TimeMs, rfc3339
from hive.events.codec import Codec
from hive.events.log import LogReader
from hive.events.turns import TurnEnded, calls_by_tool
from hive.names import AgentName

WINDOWS_MS: Final[dict[str, DurationMs]] = {
    "1h": 3_600_000,
    "4h": 14_400_000,
    "24h": 86_400_000,
    "3d": 259_200_000,
    "7d": 604_800_000,
    "30d": 2_592_000_000,
}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's turns in the window. None if no turn reported the figure."""

    agent: AgentName
    turns: int
    ok: int
    failed: int
    """Every other result."""
    duration_ms: DurationMs | None
    """Sum over all turns."""
    median_duration_ms: DurationMs | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_creation_tokens: int | None
    tool_calls: int | None
    tools: dict[str, int]
    models: dict[str, int]
    """Turns by model."""


def turn_figures(reader: LogReader, since: TimeMs, agent: AgentName | None = None) -> list[Figures]:
    """The figures of every agent (or one) that ended a turn since then, by name."""
    decode = Codec().decode
    turns: dict[AgentName, list[TurnEnded]] = {}
    for row in reader.where("type = 'TurnEnded' AND at >= ?", (rfc3339(since),), since=rfc3339(since)):
        event = decode(row.type, row.data)
        if isinstance(event, TurnEnded) and agent in (None, event.agent):
            turns.setdefault(event.agent, []).append(event)
    return [_summed(name, turns[name]) for name in sorted(turns)]


def _summed(agent: AgentName, turns: list[TurnEnded]) -> Figures:
    durations = [turn.duration_ms for turn in turns if turn.duration_ms is not None]
    ok = sum(turn.result_kind == "ok" for turn in turns)
    models: dict[str, int] = {}
    tools: dict[str, int] = {}
    for turn in turns:
        if turn.model is not None:
            models[turn.model] = models.get(turn.model, 0) + 1
        for name, count in calls_by_tool(turn).items():
            tools[name] = tools.get(name, 0) + count
    return Figures(
        agent=agent,
        turns=len(turns),
        ok=ok,
        failed=len(turns) - ok,
        duration_ms=sum(durations) if durations else None,
        median_duration_ms=round(median(durations)) if durations else None,
        input_tokens=_total(turn.input_tokens for turn in turns),
        output_tokens=_total(turn.output_tokens for turn in turns),
        cache_read_tokens=_total(turn.cache_read_tokens for turn in turns),
        cache_creation_tokens=_total(turn.cache_creation_tokens for turn in turns),
        tool_calls=_total(turn.tool_call_count for turn in turns),
        tools=tools,
        models=models,
    )


def _total(figures: Iterable[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known else None
