"""Rules for agents that are refused: for their share, one event a minute and one notice an hour; for a full disk."""

from typing import Literal

from hive.clock import DurationMs, TimeMs
from hive.deciders.base import Command, Decision, DecisionBuilder
from hive.events import notices
from hive.events.agents import Throttled
from hive.events.daemon import DiskFreed, DiskLow
from hive.names import OPERATOR, AgentName
from hive.projections.hive import Hive

EVENT_EVERY_MS: DurationMs = 60_000
NOTICE_EVERY_MS: DurationMs = 3_600_000


class RecordThrottled(Command, frozen=True, kw_only=True):
    """Requests of an agent were refused for its share."""

    agent: AgentName
    refused: int
    share: Literal["events", "bytes", "traffic", "connections"]


class RecordDisk(Command, frozen=True, kw_only=True):
    """The disk has less room than agents must leave, or more again."""

    is_low: bool
    free_mb: int
    floor_mb: int


def record_disk(command: RecordDisk, hive: Hive, now: TimeMs) -> Decision:
    """One event at each change, and a notice when agents are refused from now on. A repeated report changes nothing."""
    decision = DecisionBuilder(hive, now)
    if command.is_low is (hive.disk.is_low is not None):
        return decision.events
    if not command.is_low:
        return [DiskFreed(free_mb=command.free_mb)]
    decision.add(DiskLow(free_mb=command.free_mb, floor_mb=command.floor_mb))
    decision.tell(OPERATOR, notices.DiskLow(free_mb=command.free_mb, floor_mb=command.floor_mb))
    return decision.events


def record_throttled(command: RecordThrottled, hive: Hive, now: TimeMs) -> Decision:
    """Record it, unless that was done less than a minute ago."""
    row = hive.agents.living_one(command.agent)
    decision = DecisionBuilder(hive, now)
    if row is None or (row.throttled_ms is not None and now - row.throttled_ms < EVENT_EVERY_MS):
        return decision.events
    tells = row.throttle_told_ms is None or now - row.throttle_told_ms >= NOTICE_EVERY_MS
    decision.add(Throttled(agent=row.name, refused=command.refused, share=command.share, told=tells))
    if tells:
        decision.tell(OPERATOR, notices.Throttled(agent=row.name, refused=command.refused, share=command.share))
    return decision.events
