"""Rules for budgets: pause when used up, resume when there is room; the operator has precedence."""

from typing import Any

from hive.clock import TimeMs, rfc3339
from hive.deciders.budgets import CheckBudget, budget_refusal
from hive.deciders.controls import SetPaused
from hive.deciders.egress import RecordModelUse, SetPrices
from hive.deciders.lifecycle import RecordStarted
from hive.deciders.record import EndTurn
from hive.events import AnyEvent, notices
from hive.events.agents import Budget, BudgetFreed, BudgetReached, BudgetSet, Paused, Resumed, Started
from hive.events.egress import ModelUsed, PricesSet
from hive.events.turns import TurnEnded
from hive.names import BUDGET_USED_UP
from hive.projections.turns import HOUR_MS
from hive.turn_columns import Price

from .check import DAEMON_BY, MANAGED, NOW, OPERATOR_BY, by, check, folded, told

THREE_TURNS = Budget(hours=2, turns=3)
A_TURN = TurnEnded(agent="coder", input_tokens=100, output_tokens=20, cache_read_tokens=3, cache_creation_tokens=4)
END_TURN = EndTurn(by=by("coder"), report=A_TURN)
LOOK = CheckBudget(by=DAEMON_BY, agent="coder")
UNTIL: TimeMs = (NOW // HOUR_MS + 3) * HOUR_MS
"""When the hour of the usage has left the window of the current and the two previous hours."""


def given(budget: Budget | None, *more: AnyEvent) -> list[AnyEvent]:
    return [*MANAGED, BudgetSet(agent="coder", budget=budget), *more]


def reached(budget: Budget = THREE_TURNS, turns: int = 3, until: TimeMs = UNTIL) -> BudgetReached:
    return BudgetReached(agent="coder", budget=budget, turns=turns, tokens=turns * 127, until_ms=until)


def notice(turns: int = 3, hours: int = 2) -> notices.BudgetReached:
    return notices.BudgetReached(
        agent="coder",
        turns=turns,
        tokens=turns * 127,
        dollars=None,
        hours=hours,
        until=rfc3339(UNTIL - (2 - hours) * HOUR_MS),
    )


def test_turn_that_exceeds_budget_pauses_agent_and_tells_operator() -> None:
    then = [A_TURN, reached(), told(1, "operator", notice())]
    hive = check(given=given(THREE_TURNS, A_TURN, A_TURN), when=END_TURN, then=then)
    row = hive.agents.all["coder"]
    assert row.paused
    assert row.running, "paused, never killed"
    assert row.budget_until_ms == UNTIL


def test_turn_within_budget_is_only_recorded() -> None:
    check(given=given(THREE_TURNS, A_TURN), when=END_TURN, then=[A_TURN])
    check(given=given(None, A_TURN, A_TURN), when=END_TURN, then=[A_TURN])
    check(given=given(Budget(hours=2, tokens=255), A_TURN), when=END_TURN, then=[A_TURN])


def test_all_token_kinds_count_towards_budget() -> None:
    budget = Budget(hours=2, tokens=254)
    then = [A_TURN, reached(budget, 2), told(1, "operator", notice(2))]
    check(given=given(budget, A_TURN), when=END_TURN, then=then)


def test_turns_before_window_do_not_count() -> None:
    before = given(THREE_TURNS, A_TURN, A_TURN)
    check(given=before, when=END_TURN, then=[A_TURN], at=UNTIL)
    late = [A_TURN, reached(), told(1, "operator", notice())]
    check(given=before, when=END_TURN, then=late, at=UNTIL - 1)


def test_second_turn_during_pause_tells_nobody() -> None:
    check(given=given(THREE_TURNS, A_TURN, A_TURN, A_TURN, reached()), when=END_TURN, then=[A_TURN])


def test_agent_resumes_when_window_has_room() -> None:
    before = given(THREE_TURNS, A_TURN, A_TURN, A_TURN, reached())
    check(given=before, when=LOOK, then=[], at=UNTIL - 1)
    hive = check(given=before, when=LOOK, then=[BudgetFreed(agent="coder")], at=UNTIL)
    assert not hive.agents.all["coder"].paused


def test_operator_pause_is_not_ended_by_budget() -> None:
    used_up = given(THREE_TURNS, A_TURN, A_TURN, A_TURN, reached())
    pause = SetPaused(by=OPERATOR_BY, agent="coder", paused=True)
    hive = check(given=used_up, when=pause, then=[Paused(agent="coder")])
    assert hive.agents.all["coder"].budget_until_ms is None
    check(given=[*used_up, Paused(agent="coder")], when=LOOK, then=[], at=UNTIL)
    check(given=[*used_up, Paused(agent="coder")], when=pause, then=[])
    check(given=given(THREE_TURNS, A_TURN, A_TURN, Paused(agent="coder")), when=END_TURN, then=[A_TURN])


def test_operator_resume_waives_budget_until_window_has_room() -> None:
    used_up = given(THREE_TURNS, A_TURN, A_TURN, A_TURN, reached())
    resume = SetPaused(by=OPERATOR_BY, agent="coder", paused=False)
    hive = check(given=used_up, when=resume, then=[Resumed(agent="coder")])
    assert not hive.agents.all["coder"].paused
    check(given=[*used_up, Resumed(agent="coder")], when=END_TURN, then=[A_TURN])
    check(given=[*used_up, Resumed(agent="coder")], when=LOOK, then=[], at=UNTIL)


def test_changed_budget_frees_or_pauses_at_start() -> None:
    used_up = given(THREE_TURNS, A_TURN, A_TURN, A_TURN, reached())

    def start(budget: Budget | None) -> dict[str, Any]:
        started = Started(agent="coder", incarnation="new", reason="deploy")
        when = RecordStarted(by=DAEMON_BY, agent="coder", incarnation="new", reason="deploy", budget=budget)
        return {"when": when, "then": [started, *([BudgetSet(agent="coder", budget=budget)])]}

    for larger in (None, Budget(hours=2, turns=4)):
        case = start(larger)
        check(given=used_up, when=case["when"], then=[*case["then"], BudgetFreed(agent="coder")])
    smaller = start(Budget(hours=1, turns=3))
    sooner = reached(Budget(hours=1, turns=3), until=UNTIL - HOUR_MS)
    check(given=used_up, when=smaller["when"], then=[*smaller["then"], sooner])
    now_used_up = [*smaller["then"], sooner, told(1, "operator", notice(hours=1))]
    check(given=given(None, A_TURN, A_TURN, A_TURN), when=smaller["when"], then=now_used_up)


def test_destroyed_agent_has_no_budget_pause() -> None:
    hive = folded(given(THREE_TURNS, reached()))
    assert hive.agents.all["coder"].paused
    check(given=MANAGED, when=CheckBudget(by=DAEMON_BY, agent="nobody"), then=[])


def used(model: str = "claude-x", tokens: int = 127) -> ModelUsed:
    return ModelUsed(agent="coder", model=model, requests=1, input_tokens=tokens)


USE = RecordModelUse(by=DAEMON_BY, used=ModelUsed(agent="coder", model="claude-x", requests=1, input_tokens=127))
TOKENS = Budget(hours=2, tokens=381)
PRICES = PricesSet(prices={"claude-x": Price(input=1_000.0, output=5_000.0), "claude-cheap": Price(input=1.0)})


def metered(budget: Budget, tokens: int, dollars: float | None = None, until: TimeMs = UNTIL) -> list[AnyEvent]:
    """Budget used up by metered tokens, without a turn that has ended."""
    reached = BudgetReached(agent="coder", budget=budget, turns=0, tokens=tokens, dollars=dollars, until_ms=until)
    notice = notices.BudgetReached(
        agent="coder", turns=0, tokens=tokens, dollars=dollars, hours=2, until=rfc3339(until)
    )
    return [reached, told(1, "operator", notice)]


def test_metered_use_that_exhausts_the_budget_pauses() -> None:
    check(given=given(TOKENS, used()), when=USE, then=[used()])
    check(given=given(TOKENS, used(), used()), when=USE, then=[used(), *metered(TOKENS, 381)])


def test_metered_tokens_count_instead_of_reported_ones() -> None:
    nothing = TurnEnded(agent="coder", input_tokens=0, output_tokens=0)
    check(given=given(TOKENS, nothing, used(), used()), when=USE, then=[used(), *metered_turns(TOKENS, 1, 381)])
    boast = TurnEnded(agent="coder", input_tokens=10_000)
    check(given=given(TOKENS, used()), when=EndTurn(by=by("coder"), report=boast), then=[boast])


def metered_turns(budget: Budget, turns: int, tokens: int) -> list[AnyEvent]:
    until = rfc3339(UNTIL)
    notice = notices.BudgetReached(agent="coder", turns=turns, tokens=tokens, dollars=None, hours=2, until=until)
    reached = BudgetReached(agent="coder", budget=budget, turns=turns, tokens=tokens, until_ms=UNTIL)
    return [reached, told(1, "operator", notice)]


def test_budget_in_dollars_counts_by_the_prices() -> None:
    budget = Budget(hours=2, usd=0.25)
    check(given=given(budget, PRICES), when=USE, then=[used()])
    check(given=given(budget, PRICES, used()), when=USE, then=[used(), *metered(budget, 254, 0.254)])


def test_model_without_a_price_counts_at_the_highest_price() -> None:
    budget = Budget(hours=2, usd=0.25)
    free = used("claude-unpriced")
    check(given=given(budget, PRICES, free), when=USE, then=[used(), *metered(budget, 254, 0.254)])
    dated = used("claude-cheap-20260131", 1_000)
    check(given=given(budget, PRICES, dated), when=USE, then=[used()])


def test_new_prices_are_applied_to_the_budget() -> None:
    budget = Budget(hours=2, usd=0.1)
    prices = {"claude-x": Price(input=1_000.0)}
    set_prices = SetPrices(by=DAEMON_BY, prices=prices)
    check(
        given=given(budget, used()),
        when=set_prices,
        then=[PricesSet(prices=prices), *metered(budget, 127, 0.127)],
    )


def test_budget_refusal_counts_use_that_is_not_recorded_yet() -> None:
    hive = folded(given(TOKENS, used()))
    assert budget_refusal(hive, "coder", NOW, [used()]) is None
    refusal = budget_refusal(hive, "coder", NOW, [used(tokens=254)])
    assert refusal == f"{BUDGET_USED_UP} until {rfc3339(UNTIL)}. Its messages wait."


def test_budget_refusal_ends_with_the_pause_and_when_the_operator_resumes() -> None:
    exhausted = given(TOKENS, used(tokens=381), *metered(TOKENS, 381))
    assert budget_refusal(folded(exhausted), "coder", NOW) is not None
    resumed = folded([*exhausted, Resumed(agent="coder")])
    assert budget_refusal(resumed, "coder", NOW) is None
    assert budget_refusal(resumed, "coder", UNTIL) is None
    assert budget_refusal(resumed, "nobody", NOW) is None
