"""Whatever waits for a time: deadlines, question watchdog, reminders, budgets. No test waits for a real one."""

import pytest

from hive.actors.budget_watch import BudgetWatch
from hive.actors.deadlines import Deadlines
from hive.actors.question_watchdog import QuestionWatchdog
from hive.actors.reminders import Reminders
from hive.deciders.base import Command
from hive.deciders.lifecycle import RecordStarted
from hive.deciders.questions import Answer, Ask, Cancel, Expire
from hive.deciders.record import EndTurn
from hive.deciders.reminders import Remind
from hive.errors import AlreadyDone
from hive.events.agents import Budget, BudgetReached
from hive.events.base import QuestionId, agent
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.reminders import ReminderDropped, ReminderSet
from hive.events.turns import TurnEnded
from hive.projections.table import Recorded

from .hand_clock import BEGIN_MS, HandClock
from .stage import DAEMON_BY, DEADLINE_S, OPERATOR_BY, Stage, eventually

TTL_MS = 2_000
WATCHDOG = (QuestionAdded, QuestionResolved)
REMINDERS = (ReminderSet, ReminderDropped)
BUDGETS = (BudgetReached,)


class Due:
    """Deadlines and what they found."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.found: list[int] = []
        self.deadlines = Deadlines(self.clock, lambda: self.found.extend(self.deadlines.passed()))


def test_what_is_due_is_found_earliest_first() -> None:
    due = Due()
    for id, after in ((1, 30), (2, 10), (3, 20), (4, 40)):
        due.deadlines.set(id, BEGIN_MS + after)
    due.clock.advance(9)
    assert due.found == []
    due.clock.advance(21)
    assert due.found == [2, 3, 1]
    due.clock.advance(10)
    assert due.found == [2, 3, 1, 4]


def test_what_is_discarded_or_moved_is_found_no_more_or_later() -> None:
    due = Due()
    due.deadlines.set(1, BEGIN_MS + 10)
    due.deadlines.set(2, BEGIN_MS + 10)
    due.deadlines.discard(1)
    due.deadlines.discard(99)
    due.deadlines.set(2, BEGIN_MS + 20)
    due.clock.advance(10)
    assert due.found == []
    due.clock.advance(10)
    assert due.found == [2]
    due.clock.advance(100)
    assert due.found == [2]


def test_one_timer_waits_for_the_earliest() -> None:
    due = Due()
    due.deadlines.set(1, BEGIN_MS + 50)
    due.deadlines.set(2, BEGIN_MS + 20)
    assert due.clock.waits_for() == BEGIN_MS + 20
    due.clock.advance(20)
    assert due.clock.waits_for() == BEGIN_MS + 50
    due.deadlines.close()
    assert due.clock.waits_for() is None


# Question watchdog


class Watching:
    """The watchdog and the reminders' actor, told of commits as the supervisor does it."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.watchdog = QuestionWatchdog.start(stage.client, stage.clock)
        self.reminders = Reminders.start(stage.client, stage.clock)
        self.budget_watch = BudgetWatch.start(stage.client, stage.clock)
        for ref in (self.watchdog, self.reminders, self.budget_watch):
            eventually(lambda ref=ref: ref.actor_inbox.empty(), "it has started")  # type: ignore[misc]
        stage.committed.connect(self.tell, weak=False)

    def tell(self, _journal: object, batch: list[Recorded]) -> None:
        for recorded in batch:
            if isinstance(recorded.event, WATCHDOG):
                self.watchdog.tell(recorded.event)
            if isinstance(recorded.event, REMINDERS):
                self.reminders.tell(recorded.event)
            if isinstance(recorded.event, BUDGETS):
                self.budget_watch.tell(recorded.event)


def ask(stage: Stage, ttl_seconds: float | None = TTL_MS / 1000) -> QuestionId:
    asked = stage.ask(Ask(by=agent("coder"), asker="coder", question="Tabs?", ttl_seconds=ttl_seconds))
    id: QuestionId = asked.first().id
    return id


def answers(stage: Stage) -> list[str]:
    return [event.answer for event in stage.events() if isinstance(event, QuestionResolved)]


def last_told(stage: Stage) -> str:
    return stage.client.read(lambda hive: hive.messages.newest("coder", 1))[0].body


@pytest.fixture
def asking(stage: Stage) -> Stage:
    stage.spawn("coder")
    return stage


def test_a_question_expires_at_its_deadline_and_the_asker_is_told(asking: Stage) -> None:
    watching = Watching(asking)
    ask(asking)
    eventually(lambda: asking.hand.waits_for() == BEGIN_MS + TTL_MS, "the watchdog waits for the deadline")
    asking.hand.advance(TTL_MS - 1)
    assert answers(asking) == []
    asking.hand.advance(1)
    eventually(lambda: answers(asking) == ["[expired]"], "the question expires")
    assert '"answerer":"watchdog"' in last_told(asking)
    assert watching.watchdog.is_alive()


def test_a_deadline_that_passed_while_the_daemon_was_down_expires_at_its_start(asking: Stage) -> None:
    ask(asking)
    asking.close()
    asking.hand.advance(10 * TTL_MS)
    asking.open()
    watching = Watching(asking)
    eventually(lambda: answers(asking) == ["[expired]"], "the question expires")
    assert watching.watchdog.is_alive()


def test_a_question_without_ttl_is_waited_for_by_nobody(asking: Stage) -> None:
    Watching(asking)
    ask(asking, None)
    later = ask(asking)
    eventually(lambda: asking.hand.waits_for() == BEGIN_MS + TTL_MS, "the watchdog knows of the later one")
    asking.hand.advance(10**9)
    eventually(lambda: answers(asking) == ["[expired]"], "only the one with a ttl expires")
    assert asking.client.read(lambda hive: [one.id for one in hive.questions.pending()]) == [later - 1]


def test_an_answered_question_is_waited_for_no_more(asking: Stage) -> None:
    Watching(asking)
    first, second = ask(asking), ask(asking)
    asking.ask(Cancel(by=OPERATOR_BY, id=first, canceller="operator"))
    asking.ask(Answer(by=OPERATOR_BY, id=second, answer="yes", answerer="operator"))
    third = ask(asking)
    asking.hand.advance(TTL_MS)
    eventually(lambda: len(answers(asking)) == 3, "the third expires")
    assert answers(asking) == ["[cancelled]", "yes", "[expired]"]
    assert third == 3


def test_in_a_race_one_wins_and_the_watchdog_says_nothing_when_it_loses(asking: Stage) -> None:
    id = ask(asking)
    asking.hand.advance(TTL_MS)
    answer: Command = Answer(by=OPERATOR_BY, id=id, answer="yes", answerer="operator")
    expire: Command = Expire(by=OPERATOR_BY, id=id)
    first, second = asking.submit(answer, expire)
    assert len(first.result(DEADLINE_S).events) == 2
    assert second.result(DEADLINE_S).events == ()
    other = ask(asking)
    asking.hand.advance(TTL_MS)
    first, second = asking.submit(
        Expire(by=OPERATOR_BY, id=other), Answer(by=OPERATOR_BY, id=other, answer="yes", answerer="operator")
    )
    assert len(first.result(DEADLINE_S).events) == 2
    assert isinstance(second.exception(DEADLINE_S), AlreadyDone)
    assert answers(asking) == ["yes", "[expired]"]


# Reminders


def remind(stage: Stage, delay_ms: int) -> None:
    stage.ask(Remind(by=agent("coder"), agent="coder", message=f"in {delay_ms}", delay_ms=delay_ms))


def reminded(stage: Stage) -> list[str]:
    rows = stage.client.read(lambda hive: hive.messages.newest("coder", 99))
    return [row.body.split('"message":"')[1].rstrip('"}') for row in rows if row.sender == "system"]


def test_a_reminder_is_delivered_when_it_falls_due(asking: Stage) -> None:
    Watching(asking)
    remind(asking, 2_000)
    remind(asking, 1_000)
    eventually(lambda: asking.hand.waits_for() == BEGIN_MS + 1_000, "it waits for the earlier one")
    asking.hand.advance(1_000)
    eventually(lambda: reminded(asking) == ["in 1000"], "the earlier one")
    eventually(lambda: asking.hand.waits_for() == BEGIN_MS + 2_000, "it waits for the later one")
    asking.hand.advance(1_000)
    eventually(lambda: reminded(asking) == ["in 1000", "in 2000"], "the later one")
    assert asking.types().count("ReminderFired") == 2


def test_a_reminder_that_fell_due_while_the_daemon_was_down_is_delivered_at_its_start(asking: Stage) -> None:
    remind(asking, 1_000)
    asking.close()
    asking.hand.advance(60_000)
    asking.open()
    Watching(asking)
    eventually(lambda: reminded(asking) == ["in 1000"], "it is delivered")


def test_a_reminder_set_for_now_is_delivered_at_once(asking: Stage) -> None:
    Watching(asking)
    remind(asking, 0)
    eventually(lambda: reminded(asking) == ["in 0"], "it is delivered")


# Budgets


def use_up(stage: Stage) -> int:
    """Let the agent have its only turn; when its window has room again."""
    started = RecordStarted(
        by=DAEMON_BY, agent="coder", incarnation="one", reason="start", budget=Budget(hours=1, turns=1)
    )
    stage.ask(started)
    stage.ask(EndTurn(by=agent("coder"), report=TurnEnded(agent="coder", result_kind="ok")))
    row = stage.client.read(lambda hive: hive.agents.all["coder"])
    assert row.paused
    assert row.budget_until_ms is not None
    return row.budget_until_ms


def is_paused(stage: Stage) -> bool:
    return stage.client.read(lambda hive: hive.agents.all["coder"].paused)


def test_an_agent_goes_on_when_its_budget_has_room_again(asking: Stage) -> None:
    Watching(asking)
    until = use_up(asking)
    eventually(lambda: asking.hand.waits_for() == until, "somebody waits for it")
    asking.hand.advance(until - BEGIN_MS - 1)
    assert is_paused(asking)
    asking.hand.advance(1)
    eventually(lambda: not is_paused(asking), "it goes on")
    asking.check_state_is_the_log()


def test_room_that_came_while_the_daemon_was_down_is_found_at_its_start(asking: Stage) -> None:
    until = use_up(asking)
    asking.close()
    asking.hand.advance(until - BEGIN_MS)
    asking.open()
    assert is_paused(asking)
    Watching(asking)
    eventually(lambda: not is_paused(asking), "it goes on")
