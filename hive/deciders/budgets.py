"""Rules for budgets: pause an agent that used its budget, and resume it when the window has room."""

from collections.abc import Iterator

from hive.clock import TimeMs, rfc3339
from hive.deciders.base import Command, Decision, DecisionBuilder
from hive.events import notices
from hive.events.agents import Budget, BudgetFreed, BudgetReached
from hive.events.turns import TurnEnded
from hive.names import OPERATOR, AgentName
from hive.projections.agents import Agent
from hive.projections.hive import Hive
from hive.projections.turns import HOUR_MS, HOURS_KEPT, Hour, added


class CheckBudget(Command, frozen=True, kw_only=True):
    """Check whether the window has room again."""

    agent: AgentName


def check_budget(command: CheckBudget, hive: Hive, now: TimeMs) -> Decision:
    """A no-op unless the budget pauses the agent."""
    row = hive.agents.living_one(command.agent)
    decision = DecisionBuilder(hive, now)
    if row is not None and row.budget_until_ms is not None:
        enforce_budget(decision, row, row.budget)
    return decision.events


def enforce_budget(
    decision: DecisionBuilder, row: Agent, budget: Budget | None, ended: TurnEnded | None = None
) -> None:
    """Pause an agent that used its budget, or end that pause. `ended`: a turn that is not in the sums yet.

    The operator's own pause and waiver are not changed.
    """
    hours = [] if budget is None else list(_window(decision.hive, row.name, budget, decision.now, ended))
    until = None if budget is None else _until(hours, budget)
    if budget is None or until is None:
        if row.budget_until_ms is not None:
            decision.add(BudgetFreed(agent=row.name))
        return
    was = row.budget_until_ms
    if (row.paused and was is None) or until == was or decision.now < (row.budget_waived_ms or 0):
        return
    turns, tokens = sum(hour.turns for hour in hours), sum(map(_tokens, hours))
    decision.add(BudgetReached(agent=row.name, budget=budget, turns=turns, tokens=tokens, until_ms=until))
    if was is None:
        notice = notices.BudgetReached(
            agent=row.name, turns=turns, tokens=tokens, hours=budget.hours, until=rfc3339(until)
        )
        decision.tell(OPERATOR, notice)


def _window(hive: Hive, name: AgentName, budget: Budget, now: TimeMs, ended: TurnEnded | None) -> Iterator[Hour]:
    """The sums of hours with usage, oldest first."""
    running = now // HOUR_MS
    for hour in range(running - min(budget.hours, HOURS_KEPT), running + 1):
        row = hive.turns.hours.get((name, hour))
        if ended is not None and hour == running:
            row = added(row or Hour(name, hour), ended)
        if row is not None:
            yield row


def _until(hours: list[Hour], budget: Budget) -> TimeMs | None:
    """When enough of the oldest hours have left the window; None: there is room now."""
    turns, tokens = sum(hour.turns for hour in hours), sum(map(_tokens, hours))
    until = None
    for hour in hours:
        if not _is_used_up(budget, turns, tokens):
            break
        turns, tokens = turns - hour.turns, tokens - _tokens(hour)
        until = (hour.hour + budget.hours + 1) * HOUR_MS
    return until


def _is_used_up(budget: Budget, turns: int, tokens: int) -> bool:
    over_turns = budget.turns is not None and turns >= budget.turns
    return over_turns or (budget.tokens is not None and tokens >= budget.tokens)


def _tokens(hour: Hour) -> int:
    return hour.input_tokens + hour.output_tokens + hour.cache_read_tokens + hour.cache_creation_tokens
