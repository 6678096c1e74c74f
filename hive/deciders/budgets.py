"""The rules of budgets: use that exhausts a budget pauses the agent; room in the window ends that pause."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hive.clock import TimeMs, rfc3339
from hive.deciders.base import Command, Decision, DecisionBuilder
from hive.events import notices
from hive.events.agents import Budget, BudgetFreed, BudgetReached
from hive.events.egress import ModelUsed
from hive.events.turns import TurnEnded
from hive.names import BUDGET_USED_UP, OPERATOR, AgentName
from hive.projections.agents import Agent
from hive.projections.hive import Hive
from hive.projections.turns import HOUR_MS, HOURS_KEPT, Hour, added
from hive.projections.usage import ModelHour, cost_at_most
from hive.turn_columns import Price, TokenCounts


class CheckBudget(Command, frozen=True, kw_only=True):
    """Check whether the window has room again."""

    agent: AgentName


class Used(NamedTuple):
    """What an agent used in one hour, as its budget counts it."""

    hour: int
    turns: int
    tokens: int
    dollars: float


def check_budget(command: CheckBudget, hive: Hive, now: TimeMs) -> Decision:
    """A no-op unless the agent is paused by its budget."""
    row = hive.agents.living_one(command.agent)
    decision = DecisionBuilder(hive, now)
    if row is not None and row.budget_until_ms is not None:
        enforce_budget(decision, row, row.budget)
    return decision.events


def enforce_budget(
    decision: DecisionBuilder,
    row: Agent,
    budget: Budget | None,
    *,
    ended: TurnEnded | None = None,
    used: Sequence[ModelUsed] = (),
    prices: Mapping[str, Price] | None = None,
) -> None:
    """Pause an agent whose budget is used up, or end that pause.

    `ended`, `used` and `prices` are of this decision and not in the state yet. A pause by the operator and a budget
    that the operator waived stay as they are.
    """
    hours = [] if budget is None else _window(decision.hive, row.name, budget, decision.now, ended, used, prices)
    until = None if budget is None else _until(hours, budget)
    if budget is None or until is None:
        if row.budget_until_ms is not None:
            decision.add(BudgetFreed(agent=row.name))
        return
    was = row.budget_until_ms
    if (row.paused and was is None) or until == was or decision.now < (row.budget_waived_ms or 0):
        return
    turns, tokens = sum(hour.turns for hour in hours), sum(hour.tokens for hour in hours)
    dollars = None if budget.usd is None else round(sum(hour.dollars for hour in hours), 6)
    reached = BudgetReached(agent=row.name, budget=budget, turns=turns, tokens=tokens, dollars=dollars, until_ms=until)
    decision.add(reached)
    if was is None:
        notice = notices.BudgetReached(
            agent=row.name, turns=turns, tokens=tokens, dollars=dollars, hours=budget.hours, until=rfc3339(until)
        )
        decision.tell(OPERATOR, notice)


def budget_refusal(hive: Hive, agent: AgentName, now: TimeMs, pending: Sequence[ModelUsed] = ()) -> str | None:
    """Why the broker must refuse model requests of an agent now; None: it may go on.

    `pending` is metered use that is not recorded yet. The text begins with `BUDGET_USED_UP`, which the harness
    recognises in the provider's error.
    """
    row = hive.agents.living_one(agent)
    if row is None or row.budget is None or now < (row.budget_waived_ms or 0):
        return None
    until = row.budget_until_ms
    if until is None:
        until = _until(_window(hive, agent, row.budget, now, None, pending, None), row.budget)
    return None if until is None else f"{BUDGET_USED_UP} until {rfc3339(until)}. Its messages wait."


def _window(
    hive: Hive,
    name: AgentName,
    budget: Budget,
    now: TimeMs,
    ended: TurnEnded | None,
    used: Sequence[ModelUsed],
    prices: Mapping[str, Price] | None,
) -> list[Used]:
    """The hours in which something was used, oldest first."""
    running = now // HOUR_MS
    prices = hive.usage.prices if prices is None else prices
    return [
        Used(hour, turns, sum(tokens.total for tokens in by_model.values()), cost_at_most(prices, by_model))
        for hour in range(running - min(budget.hours, HOURS_KEPT), running + 1)
        for turns, by_model in _used_in(
            hive, name, hour, ended if hour == running else None, used if hour == running else ()
        )
    ]


def _used_in(
    hive: Hive, name: AgentName, hour: int, ended: TurnEnded | None, used: Sequence[ModelUsed]
) -> Iterator[tuple[int, Mapping[str, TokenCounts]]]:
    """Turns, and tokens by model: metered ones if anything was metered in that hour, otherwise the reported ones."""
    reported = hive.turns.hours.get((name, hour))
    if ended is not None:
        reported = added(reported or Hour(name, hour), ended)
    metered = dict(hive.usage.metered(name, hour))
    for one in used:
        metered[one.model] = (metered.get(one.model) or ModelHour(name, hour, one.model)).plus(one)
    if reported is not None or metered:
        turns = 0 if reported is None else reported.turns
        told = {} if reported is None else reported.models
        yield turns, {model: row.tokens for model, row in metered.items()} if metered else told


def _until(hours: Sequence[Used], budget: Budget) -> TimeMs | None:
    """When enough of the oldest hours have left the window that there is room; None: there is room now."""
    turns, tokens = sum(hour.turns for hour in hours), sum(hour.tokens for hour in hours)
    dollars = sum(hour.dollars for hour in hours)
    until = None
    for hour in hours:
        if not _is_used_up(budget, turns, tokens, dollars):
            break
        turns, tokens, dollars = turns - hour.turns, tokens - hour.tokens, dollars - hour.dollars
        until = (hour.hour + budget.hours + 1) * HOUR_MS
    return until


def _is_used_up(budget: Budget, turns: int, tokens: int, dollars: float) -> bool:
    over_turns = budget.turns is not None and turns >= budget.turns
    over_tokens = budget.tokens is not None and tokens >= budget.tokens
    return over_turns or over_tokens or (budget.usd is not None and dollars >= budget.usd)
