"""The rules of disk limits: a notice at 90 %, a pause at 100 %, and its end when there is room again."""

from hive.clock import TimeMs
from hive.deciders.base import Command, Decision, DecisionBuilder
from hive.events import notices
from hive.events.agents import DiskFull, DiskNearlyFull, DiskNoLongerFull
from hive.names import MANAGER, OPERATOR, AgentName
from hive.projections.agents import Agent, is_nearly_full
from hive.projections.hive import Hive


class RecordDiskUse(Command, frozen=True, kw_only=True):
    """What an agent's folders take, as measured."""

    agent: AgentName
    used_mb: int
    limit_mb: int


def record_disk_use(command: RecordDiskUse, hive: Hive, now: TimeMs) -> Decision:
    """Record crossings of the limits only. A pause by the operator stays, and so does what the operator waived."""
    row = hive.agents.living_one(command.agent)
    decision = DecisionBuilder(hive, now)
    if row is None or command.limit_mb <= 0:
        return decision.events
    name, used, limit = row.name, command.used_mb, command.limit_mb
    if used >= limit:
        if not row.disk_full and _may_pause(row, used):
            decision.add(DiskFull(agent=name, used_mb=used, limit_mb=limit))
            _tell(decision, row, notices.DiskFull(agent=name, used_mb=used, limit_mb=limit))
    elif row.disk_full or (row.disk_warned and not is_nearly_full(used, limit)):
        decision.add(DiskNoLongerFull(agent=name, used_mb=used, limit_mb=limit))
    elif not row.disk_warned and is_nearly_full(used, limit):
        decision.add(DiskNearlyFull(agent=name, used_mb=used, limit_mb=limit))
        _tell(decision, row, notices.DiskNearlyFull(agent=name, used_mb=used, limit_mb=limit))
    return decision.events


def _may_pause(row: Agent, used_mb: int) -> bool:
    by_operator = row.paused and row.budget_until_ms is None
    return not by_operator and used_mb >= (row.disk_waived_mb or 0)


def _tell(decision: DecisionBuilder, row: Agent, notice: notices.Notice) -> None:
    for to in dict.fromkeys((row.name, MANAGER, OPERATOR)):
        decision.tell(to, notice)
