"""Turn statistics over a time window, summed from the log: as the harnesses report them, and as the broker metered."""

import functools
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Final

from hive.clock import DurationMs, TimeMs, rfc3339
from hive.events.codec import Codec
from hive.events.egress import ModelUsed
from hive.events.log import LogReader
from hive.events.turns import TurnEnded, calls_by_tool
from hive.names import AgentName
from hive.projections.hive import dispatch, recorded
from hive.projections.turns import Turns
from hive.projections.usage import Usage, Use, cost, use_since
from hive.turn_columns import TOKEN_COLUMNS, MeteredUse, Price, ReportedTokens

TYPES: Final = "('TurnEnded', 'ModelUsed')"

WINDOWS_MS: Final[dict[str, DurationMs]] = {
    "1h": 3_600_000,
    "4h": 14_400_000,
    "24h": 86_400_000,
    "3d": 259_200_000,
    "7d": 604_800_000,
    "30d": 2_592_000_000,
}


class Figures(ReportedTokens, frozen=True, kw_only=True):
    """One agent's turns in the window. None if no turn reported the figure."""

    agent: AgentName
    turns: int
    ok: int
    failed: int
    """Every other result."""
    duration_ms: DurationMs | None
    """Sum over all turns."""
    median_duration_ms: DurationMs | None
    metered: MeteredUse | None
    """None: nothing was metered, and the reported token counts are all that is known."""
    cost_usd: float | None
    """By the prices in the log; of metered tokens where there are any. None: a price is unknown."""
    tool_calls: int | None
    tools: dict[str, int]
    models: dict[str, int]
    """Turns by model."""


def turn_figures(reader: LogReader, since: TimeMs, agent: AgentName | None = None) -> list[Figures]:
    """The figures of every agent (or one) that ended a turn or used a model since then, by name."""
    codec, turns, use = Codec(), Turns(), Usage()
    handlers = dispatch([turns, use])
    ended: dict[AgentName, list[TurnEnded]] = {}
    used: dict[AgentName, list[ModelUsed]] = {}
    at = rfc3339(since)
    window = reader.where(f"type IN {TYPES} AND at >= ?", (at,), since=at)
    for row in (*reader.newest(1, ("PricesSet",)), *window):
        one = recorded(row, codec)
        for handler in handlers.get(type(one.event), ()):
            handler(one.event, one)
        match one.event:
            case TurnEnded(agent=name) as event if agent in (None, name):
                ended.setdefault(name, []).append(event)
            case ModelUsed(agent=name) as event if agent in (None, name):
                used.setdefault(name, []).append(event)
    return [
        _summed(name, ended.get(name, []), used.get(name, []), use_since(turns.hours.rows, use, name, 0), use.prices)
        for name in sorted({*ended, *used})
    ]


def _summed(
    agent: AgentName, turns: list[TurnEnded], used: list[ModelUsed], use: Use, prices: Mapping[str, Price]
) -> Figures:
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
        **{name: _total(getattr(turn, name) for turn in turns) for name in TOKEN_COLUMNS},
        metered=functools.reduce(MeteredUse.plus, used, MeteredUse()) if used else None,
        cost_usd=cost(prices, use.counted),
        tool_calls=_total(turn.tool_call_count for turn in turns),
        tools=tools,
        models=models,
    )


def _total(figures: Iterable[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known else None
