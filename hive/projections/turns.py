"""Turns: the one under way of each agent, its newest turns, and sums for each hour of the last month."""

from collections import deque

import msgspec

from hive.clock import TimeMs
from hive.events.agents import Crashed, Destroyed, Killed, Started, Stopped
from hive.events.base import MessageId, Seq
from hive.events.turns import TurnEnded, TurnStarted, calls_by_tool
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table

HOUR_MS = 3_600_000
HOURS_KEPT = 24 * 31
TOOLS_KEPT = 200
"""Tool names counted for one agent and hour; a name beyond is not."""
RECENT_KEPT = 50
"""Newest turns kept for each agent."""


class Current(msgspec.Struct, frozen=True):
    """A turn that began and has not ended."""

    agent: AgentName
    since_ms: TimeMs
    model: str | None
    wake_from: str | None
    message_ids: tuple[MessageId, ...]


class Turn(msgspec.Struct, frozen=True):
    """A turn that ended, as the harness reported it."""

    agent: AgentName
    seq: Seq
    ended_ms: TimeMs
    report: TurnEnded


class Hour(msgspec.Struct, frozen=True):
    """Sums over the turns of one agent that ended in one hour; an unknown figure adds nothing."""

    agent: AgentName
    hour: int
    """Hours since 1970."""
    turns: int = 0
    failed: int = 0
    duration_ms: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    tool_calls: int = 0
    tools: dict[str, int] = {}


class Turns(Projection):
    NAME = "turns"
    VERSION = 2

    def __init__(self) -> None:
        self.current: Table[AgentName, Current] = Table("current_turns", Current)
        self.recent: Table[tuple[AgentName, Seq], Turn] = Table("recent_turns", Turn, key_parts=2)
        self.hours: Table[tuple[AgentName, int], Hour] = Table("turn_hours", Hour, key_parts=2)
        self._recent_seqs: dict[AgentName, deque[Seq]] = {}
        self._newest_hour = 0
        """What is older than a month is dropped once an hour."""

    def restored(self) -> None:
        self._recent_seqs = {}
        for agent, seq in sorted(self.recent.rows):
            self._recent_seqs.setdefault(agent, deque()).append(seq)
        self._newest_hour = max((hour for _, hour in self.hours.rows), default=0)

    def handlers(self) -> dict[type, object]:
        return {
            TurnStarted: self._on_started,
            TurnEnded: self._on_ended,
            Started: lambda event, _: self.current.drop(event.agent),
            Stopped: lambda event, _: self.current.drop(event.agent),
            Killed: lambda event, _: self.current.drop(event.agent),
            Crashed: lambda event, _: self.current.drop(event.agent),
            Destroyed: lambda event, _: self.current.drop(event.agent),
        }

    def of(self, agent: AgentName) -> list[Turn]:
        """An agent's newest turns, oldest of them first."""
        return [row for key, row in sorted(self.recent.rows.items()) if key[0] == agent]

    def _on_started(self, event: TurnStarted, recorded: Recorded) -> None:
        row = Current(event.agent, recorded.at_ms, event.model, event.wake_from, event.message_ids)
        self.current.put(event.agent, row)

    def _on_ended(self, event: TurnEnded, recorded: Recorded) -> None:
        self.current.drop(event.agent)
        self.recent.put((event.agent, recorded.seq), Turn(event.agent, recorded.seq, recorded.at_ms, event))
        seqs = self._recent_seqs.setdefault(event.agent, deque())
        seqs.append(recorded.seq)
        if len(seqs) > RECENT_KEPT:
            self.recent.drop((event.agent, seqs.popleft()))
        hour = recorded.at_ms // HOUR_MS
        if hour > self._newest_hour:
            self._newest_hour = hour
            for key in [key for key in self.hours.rows if key[1] <= hour - HOURS_KEPT]:
                self.hours.drop(key)
        self.hours.put(
            (event.agent, hour), added(self.hours.get((event.agent, hour)) or Hour(event.agent, hour), event)
        )


def added(hour: Hour, turn: TurnEnded) -> Hour:
    """The sum with one more turn."""
    tools = dict(hour.tools)
    for name, count in calls_by_tool(turn).items():
        if name in tools or len(tools) < TOOLS_KEPT:
            tools[name] = tools.get(name, 0) + count
    return msgspec.structs.replace(
        hour,
        turns=hour.turns + 1,
        failed=hour.failed + (turn.result_kind != "ok"),
        duration_ms=hour.duration_ms + (turn.duration_ms or 0),
        input_tokens=hour.input_tokens + (turn.input_tokens or 0),
        output_tokens=hour.output_tokens + (turn.output_tokens or 0),
        cache_read_tokens=hour.cache_read_tokens + (turn.cache_read_tokens or 0),
        cache_creation_tokens=hour.cache_creation_tokens + (turn.cache_creation_tokens or 0),
        tool_calls=hour.tool_calls + (turn.tool_call_count or 0),
        tools=tools,
    )
