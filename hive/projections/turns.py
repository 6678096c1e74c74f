"""Turns: the current and the newest of each agent, and sums per hour of the last month."""

import functools
from collections import deque
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from typing import Any, cast

import msgspec

from hive.clock import TimeMs, parse_rfc3339
from hive.events.agents import Crashed, Destroyed, Killed, Started, Stopped
from hive.events.base import MessageId, Seq
from hive.events.erasing import Erased, covers
from hive.events.texts import erased_value
from hive.events.turns import TurnEnded, TurnStarted, calls_by_tool
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table
from hive.turn_columns import TOKEN_COLUMNS, TokenCounts

HOUR_MS = 3_600_000
HOUR_CHARS = len("2026-01-31T09")
"""Of a time in RFC 3339: the hour."""
HOURS_KEPT = 24 * 31
MODELS_KEPT = 20
"""Models counted separately for one agent and hour; further ones count as `OTHER_MODEL`."""
UNKNOWN_MODEL = "unknown"
OTHER_MODEL = "other"
TOOLS_KEPT = 200
"""Distinct tool names counted per agent and hour."""
RECENT_KEPT = 50
"""Newest turns kept per agent."""
UNCOUNTED_MAX = 1_000
"""Reports that are not summed yet; they are summed together on the next read."""


class Current(msgspec.Struct, frozen=True):
    """A running turn."""

    agent: AgentName
    since_ms: TimeMs
    model: str | None
    wake_from: str | None
    message_ids: tuple[MessageId, ...]


class Turn(msgspec.Struct, frozen=True):
    """A finished turn as the harness reported it."""

    agent: AgentName
    seq: Seq
    ended_ms: TimeMs
    report: TurnEnded


class Hour(TokenCounts, frozen=True):
    """Sums over one agent's turns that ended in one hour. Unknown figures add nothing."""

    agent: AgentName
    hour: int
    """Hours since 1970."""
    turns: int = 0
    failed: int = 0
    duration_ms: int = 0
    tool_calls: int = 0
    tools: dict[str, int] = msgspec.field(default_factory=dict)
    models: dict[str, TokenCounts] = msgspec.field(default_factory=dict)
    """Reported tokens by model."""


class Turns(Projection):
    NAME = "turns"
    VERSION = 4

    def __init__(self) -> None:
        self.running: Table[AgentName, Current] = Table("current_turns", Current)
        """Complete after `tables()`."""
        self._changed: dict[AgentName, Recorded | None] = {}
        """Started or ended turns whose rows are not built yet; most turns end before anybody reads their row."""
        self.recent: Table[tuple[AgentName, Seq], Turn] = Table("recent_turns", Turn, key_parts=2)
        """Complete after `tables()`; so is `sums`."""
        self.sums: Table[tuple[AgentName, int], Hour] = Table("turn_hours", Hour, key_parts=2)
        self._recent_seqs: dict[AgentName, deque[Seq]] = {}
        self._agents_by_hour: dict[int, set[AgentName]] = {}
        """The keys of `sums`, to drop those of old hours."""
        self._uncounted: list[Recorded] = []
        self._fresh: dict[AgentName, deque[Recorded]] = {}
        """Summed, but their rows are not built yet: most are replaced before anybody reads them."""

    def tables(self) -> list[Table[Any, Any]]:
        self._count()
        self._build_running()
        return super().tables()

    def restored(self) -> None:
        self._changed = {}
        self._recent_seqs = {}
        for agent, seq in sorted(self.recent.rows):
            self._recent_seqs.setdefault(agent, deque()).append(seq)
        self._agents_by_hour = {}
        for agent, hour in self.sums.rows:
            self._agents_by_hour.setdefault(hour, set()).add(agent)
        self._uncounted = []
        self._fresh = {}

    def handlers(self) -> dict[type, object]:
        return {
            TurnStarted: self._on_started,
            TurnEnded: self._on_ended,
            Started: self._on_none,
            Stopped: self._on_none,
            Killed: self._on_none,
            Crashed: self._on_none,
            Destroyed: self._on_none,
            Erased: self._on_erased,
        }

    @property
    def current(self) -> Table[AgentName, Current]:
        """The running turn of each agent that has one."""
        self._build_running()
        return self.running

    @property
    def hours(self) -> Table[tuple[AgentName, int], Hour]:
        """The sums by agent and hour."""
        self._sum()
        return self.sums

    def of(self, agent: AgentName) -> list[Turn]:
        """The newest turns of an agent, oldest first."""
        self._count()
        return [row for key, row in sorted(self.recent.rows.items()) if key[0] == agent]

    def _on_started(self, event: TurnStarted, recorded: Recorded) -> None:
        self._changed[event.agent] = recorded

    def _on_none(self, event: Started | Stopped | Killed | Crashed | Destroyed, _: Recorded) -> None:
        self._changed[event.agent] = None

    def _on_ended(self, event: TurnEnded, recorded: Recorded) -> None:
        self._changed[event.agent] = None
        self._uncounted.append(recorded)
        if len(self._uncounted) >= UNCOUNTED_MAX:
            self._sum()

    def _build_running(self) -> None:
        changed, self._changed = self._changed, {}
        for agent, recorded in changed.items():
            if recorded is None:
                self.running.drop(agent)
            else:
                event = cast(TurnStarted, recorded.event)
                row = Current(agent, recorded.at_ms, event.model, event.wake_from, event.message_ids)
                self.running.put(agent, row)

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        self._count()
        for (agent, seq), row in list(self.recent.rows.items()):
            if covers(event.rows, seq):
                report = msgspec.structs.replace(row.report, note=erased_value(row.report.note))
                self.recent.put((agent, seq), msgspec.structs.replace(row, report=report))

    def _count(self) -> None:
        """Build the rows of new reports."""
        self._sum()
        fresh, self._fresh = self._fresh, {}
        for agent, ended in fresh.items():
            self._keep(agent, ended)

    def _sum(self) -> None:
        """Add new reports to the sums, and keep the newest of each agent for rows that somebody may read."""
        uncounted, self._uncounted = self._uncounted, []
        by_hour: dict[tuple[AgentName, int], list[TurnEnded]] = {}
        newest = max(self._agents_by_hour, default=0)
        for recorded in uncounted:
            report = cast(TurnEnded, recorded.event)
            hour = hour_of(recorded.at[:HOUR_CHARS])
            newest = max(newest, hour)
            fresh = self._fresh.get(report.agent)
            if fresh is None:
                fresh = self._fresh[report.agent] = deque(maxlen=RECENT_KEPT)
            fresh.append(recorded)
            by_hour.setdefault((report.agent, hour), []).append(report)
        for key, reports in by_hour.items():
            if key[1] > newest - HOURS_KEPT:
                self.sums.put(key, added(self.sums.get(key) or Hour(*key), *reports))
                self._agents_by_hour.setdefault(key[1], set()).add(key[0])
        for old in [hour for hour in self._agents_by_hour if hour <= newest - HOURS_KEPT]:
            for agent in self._agents_by_hour.pop(old):
                self.sums.drop((agent, old))

    def _keep(self, agent: AgentName, ended: Iterable[Recorded]) -> None:
        """Build the rows of an agent's newest turns and drop the oldest."""
        seqs = self._recent_seqs.setdefault(agent, deque())
        for recorded in ended:
            seqs.append(recorded.seq)
            turn = Turn(agent, recorded.seq, recorded.at_ms, cast(TurnEnded, recorded.event))
            self.recent.put((agent, recorded.seq), turn)
        while len(seqs) > RECENT_KEPT:
            self.recent.drop((agent, seqs.popleft()))


@functools.lru_cache(maxsize=4)
def hour_of(at: str) -> int:
    """Hours since 1970 of the first `HOUR_CHARS` of a time."""
    return parse_rfc3339(f"{at}:00:00Z") // HOUR_MS


def added(hour: Hour, *reports: TurnEnded) -> Hour:
    """The sums with these turns. A replay spends much of its time here."""
    tools, models, of_model = dict(hour.tools), dict(hour.models), dict[str, list[_Counts]]()
    names = set(models)
    for report in reports:
        counts = _COUNTS_OF(report)
        if any(counts):
            names.add(model := counted_model(report.model, names))
            of_model.setdefault(model, []).append(tuple(count or 0 for count in counts) if None in counts else counts)
        for name, count in calls_by_tool(report).items():
            if name in tools or len(tools) < TOOLS_KEPT:
                tools[name] = tools.get(name, 0) + count
    for model, rows in of_model.items():
        known = models.get(model)
        models[model] = TokenCounts(**_summed(rows if known is None else [_COUNTS_OF(known), *rows]))
    return Hour(
        hour.agent,
        hour.hour,
        hour.turns + len(reports),
        hour.failed + sum([report.result_kind != "ok" for report in reports]),
        hour.duration_ms + sum([report.duration_ms or 0 for report in reports]),
        hour.tool_calls + sum([report.tool_call_count or 0 for report in reports]),
        tools,
        models,
        **_summed([_COUNTS_OF(hour), *(row for rows in of_model.values() for row in rows)]),
    )


_Counts = tuple[int, ...]
"""Of the token columns, in their order."""
_COUNTS_OF: Callable[[Any], _Counts] = attrgetter(*TOKEN_COLUMNS)


def _summed(rows: list[_Counts]) -> dict[str, int]:
    return dict(zip(TOKEN_COLUMNS, map(sum, zip(*rows, strict=True)), strict=True))


def counted_model(model: str | None, known: Collection[str]) -> str:
    """The name under which a model is counted: agents choose these names, so their number is limited."""
    name = model or UNKNOWN_MODEL
    is_kept = name in known or len(known) < MODELS_KEPT
    return name if is_kept else OTHER_MODEL
