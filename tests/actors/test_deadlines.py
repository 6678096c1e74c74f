"""Deadlines, question watchdog, reminders and budgets, with a manual clock."""

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

from .journal_environment import DAEMON_BY, DEADLINE_S, OPERATOR_BY, JournalEnvironment, eventually
from .manual_clock import BEGIN_MS, ManualClock

TTL_MS = 2_000
WATCHDOG = (QuestionAdded, QuestionResolved)
REMINDERS = (ReminderSet, ReminderDropped)
BUDGETS = (BudgetReached,)


class Due:
    """Deadlines and the ids that were due."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.found: list[int] = []
        self.deadlines = Deadlines(self.clock, lambda: self.found.extend(self.deadlines.passed()))


def test_due_ids_are_yielded_earliest_first() -> None:
    due = Due()
    for id, after in ((1, 30), (2, 10), (3, 20), (4, 40)):
        due.deadlines.set(id, BEGIN_MS + after)
    due.clock.advance(9)
    assert due.found == []
    due.clock.advance(21)
    assert due.found == [2, 3, 1]
    due.clock.advance(10)
    assert due.found == [2, 3, 1, 4]


def test_discarded_ids_are_skipped_and_moved_ones_come_later() -> None:
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


def test_single_timer_is_armed_for_the_earliest_deadline() -> None:
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
    """Starts the actors and routes committed events to them, as the supervisor does."""

    def __init__(self, env: JournalEnvironment):
        self.env = env
        self.watchdog = QuestionWatchdog.start(env.client, env.clock)
        self.reminders = Reminders.start(env.client, env.clock)
        self.budget_watch = BudgetWatch.start(env.client, env.clock)
        for ref in (self.watchdog, self.reminders, self.budget_watch):
            eventually(lambda ref=ref: ref.actor_inbox.empty(), "it has started")  # type: ignore[misc]
        env.committed.connect(self.tell, weak=False)

    def tell(self, _journal: object, batch: list[Recorded]) -> None:
        for recorded in batch:
            if isinstance(recorded.event, WATCHDOG):
                self.watchdog.tell(recorded.event)
            if isinstance(recorded.event, REMINDERS):
                self.reminders.tell(recorded.event)
            if isinstance(recorded.event, BUDGETS):
                self.budget_watch.tell(recorded.event)


def ask(env: JournalEnvironment, ttl_seconds: float | None = TTL_MS / 1000) -> QuestionId:
    asked = env.ask(Ask(by=agent("coder"), asker="coder", question="Tabs?", ttl_seconds=ttl_seconds))
    id: QuestionId = asked.first().id
    return id


def answers(env: JournalEnvironment) -> list[str]:
    return [event.answer for event in env.events() if isinstance(event, QuestionResolved)]


def last_told(env: JournalEnvironment) -> str:
    return env.client.read(lambda hive: hive.messages.newest("coder", 1))[0].body


@pytest.fixture
def asking(env: JournalEnvironment) -> JournalEnvironment:
    env.spawn("coder")
    return env


def test_expired_question_answers_asker(asking: JournalEnvironment) -> None:
    watching = Watching(asking)
    ask(asking)
    eventually(lambda: asking.manual.waits_for() == BEGIN_MS + TTL_MS, "the watchdog waits for the deadline")
    asking.manual.advance(TTL_MS - 1)
    assert answers(asking) == []
    asking.manual.advance(1)
    eventually(lambda: answers(asking) == ["[expired]"], "the question expires")
    assert '"answerer":"watchdog"' in last_told(asking)
    assert watching.watchdog.is_alive()


def test_question_overdue_at_start_expires_at_once(asking: JournalEnvironment) -> None:
    ask(asking)
    asking.close()
    asking.manual.advance(10 * TTL_MS)
    asking.open()
    watching = Watching(asking)
    eventually(lambda: answers(asking) == ["[expired]"], "the question expires")
    assert watching.watchdog.is_alive()


def test_question_without_ttl_never_expires(asking: JournalEnvironment) -> None:
    Watching(asking)
    ask(asking, None)
    later = ask(asking)
    eventually(lambda: asking.manual.waits_for() == BEGIN_MS + TTL_MS, "the watchdog knows of the later one")
    asking.manual.advance(10**9)
    eventually(lambda: answers(asking) == ["[expired]"], "only the one with a ttl expires")
    assert asking.client.read(lambda hive: [one.id for one in hive.questions.pending()]) == [later - 1]


def test_answered_question_does_not_expire(asking: JournalEnvironment) -> None:
    Watching(asking)
    first, second = ask(asking), ask(asking)
    asking.ask(Cancel(by=OPERATOR_BY, id=first, canceller="operator"))
    asking.ask(Answer(by=OPERATOR_BY, id=second, answer="yes", answerer="operator"))
    third = ask(asking)
    asking.manual.advance(TTL_MS)
    eventually(lambda: len(answers(asking)) == 3, "the third expires")
    assert answers(asking) == ["[cancelled]", "yes", "[expired]"]
    assert third == 3


def test_answer_and_expiry_race_gives_one_resolution(asking: JournalEnvironment) -> None:
    id = ask(asking)
    asking.manual.advance(TTL_MS)
    answer: Command = Answer(by=OPERATOR_BY, id=id, answer="yes", answerer="operator")
    expire: Command = Expire(by=OPERATOR_BY, id=id)
    first, second = asking.submit(answer, expire)
    assert len(first.result(DEADLINE_S).events) == 2
    assert second.result(DEADLINE_S).events == ()
    other = ask(asking)
    asking.manual.advance(TTL_MS)
    first, second = asking.submit(
        Expire(by=OPERATOR_BY, id=other), Answer(by=OPERATOR_BY, id=other, answer="yes", answerer="operator")
    )
    assert len(first.result(DEADLINE_S).events) == 2
    assert isinstance(second.exception(DEADLINE_S), AlreadyDone)
    assert answers(asking) == ["yes", "[expired]"]


# Reminders


def remind(env: JournalEnvironment, delay_ms: int) -> None:
    env.ask(Remind(by=agent("coder"), agent="coder", message=f"in {delay_ms}", delay_ms=delay_ms))


def reminded(env: JournalEnvironment) -> list[str]:
    rows = env.client.read(lambda hive: hive.messages.newest("coder", 99))
    return [row.body.split('"message":"')[1].rstrip('"}') for row in rows if row.sender == "system"]


def test_due_reminder_is_delivered(asking: JournalEnvironment) -> None:
    Watching(asking)
    remind(asking, 2_000)
    remind(asking, 1_000)
    eventually(lambda: asking.manual.waits_for() == BEGIN_MS + 1_000, "it waits for the earlier one")
    asking.manual.advance(1_000)
    eventually(lambda: reminded(asking) == ["in 1000"], "the earlier one")
    eventually(lambda: asking.manual.waits_for() == BEGIN_MS + 2_000, "it waits for the later one")
    asking.manual.advance(1_000)
    eventually(lambda: reminded(asking) == ["in 1000", "in 2000"], "the later one")
    assert asking.types().count("ReminderFired") == 2


def test_reminder_overdue_at_start_is_delivered_at_once(asking: JournalEnvironment) -> None:
    remind(asking, 1_000)
    asking.close()
    asking.manual.advance(60_000)
    asking.open()
    Watching(asking)
    eventually(lambda: reminded(asking) == ["in 1000"], "it is delivered")


def test_reminder_without_delay_is_delivered_at_once(asking: JournalEnvironment) -> None:
    Watching(asking)
    remind(asking, 0)
    eventually(lambda: reminded(asking) == ["in 0"], "it is delivered")


# Budgets


def use_up(env: JournalEnvironment) -> int:
    """Use up the agent's budget; returns the time when it has room again."""
    started = RecordStarted(
        by=DAEMON_BY, agent="coder", incarnation="one", reason="start", budget=Budget(hours=1, turns=1)
    )
    env.ask(started)
    env.ask(EndTurn(by=agent("coder"), report=TurnEnded(agent="coder", result_kind="ok")))
    row = env.client.read(lambda hive: hive.agents.all["coder"])
    assert row.paused
    assert row.budget_until_ms is not None
    return row.budget_until_ms


def is_paused(env: JournalEnvironment) -> bool:
    return env.client.read(lambda hive: hive.agents.all["coder"].paused)


def test_agent_resumes_when_its_budget_has_room(asking: JournalEnvironment) -> None:
    Watching(asking)
    until = use_up(asking)
    eventually(lambda: asking.manual.waits_for() == until, "somebody waits for it")
    asking.manual.advance(until - BEGIN_MS - 1)
    assert is_paused(asking)
    asking.manual.advance(1)
    eventually(lambda: not is_paused(asking), "it goes on")
    asking.check_state_is_the_log()


def test_budget_room_gained_during_downtime_resumes_at_start(asking: JournalEnvironment) -> None:
    until = use_up(asking)
    asking.close()
    asking.manual.advance(until - BEGIN_MS)
    asking.open()
    assert is_paused(asking)
    Watching(asking)
    eventually(lambda: not is_paused(asking), "it goes on")
