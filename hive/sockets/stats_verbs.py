"""The verb for plots: turns and metered use of each agent in equal buckets of a window."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from hive.clock import TimeMs, parse_rfc3339, rfc3339
from hive.errors import BadRequest
from hive.events.codec import Codec
from hive.events.egress import ModelUsed
from hive.events.log import LogReader
from hive.events.turns import TurnEnded
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.projections.turns import HOUR_MS, Hour, added
from hive.projections.usage import cost
from hive.sockets.decision_verbs import WINDOWS_H
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request
from hive.turn_columns import Price, TokenCounts, token_counts

BUCKETS_MAX: Final = 60
SHORT_STEPS_MS: Final = {"1h": 120_000, "4h": 600_000}
"""Bucket length of windows shorter than a day."""


class Buckets(Request, frozen=True, kw_only=True):
    agent: str | None = None
    window: str = "24h"


async def turn_buckets(session: HostSession, request: Buckets) -> Reply:
    """Sums of each agent's turns and metered use in equal buckets of a window, for plots.

    Windows with buckets under an hour are read from the log. A row has what counts: metered tokens, or the reported
    ones in hours in which nothing was metered.
    """
    if request.window not in WINDOWS_H:
        raise BadRequest(f"A window is one of {', '.join(WINDOWS_H)}, not {request.window!r}.")
    now, hours = session.services.clock.now_ms(), WINDOWS_H[request.window]
    step = SHORT_STEPS_MS.get(request.window, HOUR_MS * max(1, hours // BUCKETS_MAX))
    count = hours * HOUR_MS // step
    first = now // step * step - (count - 1) * step
    if step < HOUR_MS:
        prices = await session.services.journal.read(lambda hive: hive.usage.prices)
        rows = await asyncio.to_thread(_used_since, session.services.paths, first, prices)
    else:
        rows = await session.services.journal.read(lambda hive: list(_used_in_hours(hive)))
    buckets = [
        {**row, "index": (at - first) // step}
        for at, row in rows
        if first <= at < first + count * step and request.agent in (None, row["agent"])
    ]
    return {"buckets": buckets, "first_ms": first, "bucket_ms": step, "count": count}


def _used_in_hours(hive: Hive) -> Iterator[tuple[TimeMs, dict[str, Any]]]:
    turns = hive.turns.hours.rows
    for name, hour in sorted({*turns, *((row.agent, row.hour) for row in hive.usage.hours)}):
        metered = {model: row.tokens for model, row in hive.usage.metered(name, hour).items()}
        row = turns.get((name, hour)) or Hour(name, hour)
        yield hour * HOUR_MS, _bucket(row, metered, metered or row.models, hive.usage.prices)


def _used_since(paths: Paths, first: TimeMs, prices: dict[str, Price]) -> list[tuple[TimeMs, dict[str, Any]]]:
    reader, decode = LogReader(paths.state, daemon_runs=True), Codec().decode
    begin = rfc3339(first)
    try:
        found = list(reader.where("type IN ('TurnEnded', 'ModelUsed') AND at >= ?", (begin,), since=begin))
    finally:
        reader.close()
    events = [(parse_rfc3339(row.at), decode(row.type, row.data)) for row in found]
    metered = {(event.agent, at // HOUR_MS) for at, event in events if isinstance(event, ModelUsed)}
    rows: list[tuple[TimeMs, dict[str, Any]]] = []
    for at, event in events:
        hour = at // HOUR_MS
        if isinstance(event, TurnEnded):
            row = added(Hour(event.agent, hour), event)
            rows.append((at, _bucket(row, {}, {} if (event.agent, hour) in metered else row.models, prices)))
        elif isinstance(event, ModelUsed):
            used = {event.model: token_counts(event)}
            rows.append((at, _bucket(Hour(event.agent, hour), used, used, prices)))
    return rows


def _bucket(
    row: Hour, metered: Mapping[str, TokenCounts], counted: Mapping[str, TokenCounts], prices: Mapping[str, Price]
) -> dict[str, Any]:
    """One row. `cost_usd` is absent if a price is unknown."""
    builtins = msgspec.to_builtins(row)
    del builtins["models"]
    dollars = cost(prices, counted)
    return {
        **builtins,
        "metered_tokens": sum(tokens.without_cache for tokens in metered.values()),
        "counted_tokens": sum(tokens.without_cache for tokens in counted.values()),
        **({} if dollars is None else {"cost_usd": dollars}),
    }


STATS_VERBS: Final[dict[str, HostVerb]] = {"turn_buckets": HostVerb(Buckets, turn_buckets)}
