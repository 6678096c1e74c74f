"""Rules for agents that exceed their share: one event a minute at most, one notice an hour at most."""

from typing import Literal

from hive.clock import DurationMs, TimeMs
from hive.deciders.base import Command, Decision, DecisionBuilder
from hive.events import notices
from hive.events.agents import Throttled
from hive.names import OPERATOR, AgentName
from hive.projections.hive import Hive

EVENT_EVERY_MS: DurationMs = 60_000
NOTICE_EVERY_MS: DurationMs = 3_600_000


class RecordThrottled(Command, frozen=True, kw_only=True):
    """Requests of an agent were refused for its share."""

    agent: AgentName
    refused: int
    share: Literal["events", "bytes", "traffic", "connections"]


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
