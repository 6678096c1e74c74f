"""The supervisor starts children, routes events, restarts crashed children and gives up on crash loops."""

import threading
from collections.abc import Callable
from typing import Any

import blinker
import pykka
import pytest

from hive.actors.supervisor import RESTART_WINDOW_MS, RESTARTS_MAX, Child, Supervisor
from hive.deciders.questions import Ask
from hive.deciders.record import Warn
from hive.events.base import agent
from hive.events.daemon import Warned
from hive.events.questions import QuestionAdded

from .containers import Containers
from .journal_environment import DAEMON_BY, JournalEnvironment, Recorder, eventually


class SupervisedRecorders:
    """A supervisor whose children are recorders."""

    def __init__(self, env: JournalEnvironment, containers: Containers, *names: str):
        self.env = env
        self.containers = containers
        self.started: list[tuple[str, pykka.ActorRef[Any]]] = []
        self.gave_up: list[str] = []
        self.children = [Child(name, self._starter(name), listens=(Warned,)) for name in names]
        self.ref = self.start(env, containers)

    def start(self, env: JournalEnvironment, containers: Containers) -> "pykka.ActorRef[Any]":
        return Supervisor.start(
            env.journal,
            self.children,
            env.client,
            containers.actor,
            env.clock,
            self.gave_up.append,
            env.committed,
        )

    def newest(self, name: str) -> "pykka.ActorRef[Any]":
        return [ref for known, ref in self.started if known == name][-1]

    def count(self, name: str) -> int:
        return sum(known == name for known, _ in self.started)

    def crash(self, name: str) -> None:
        """Crash a child and let the supervisor check."""
        ref, count = self.newest(name), self.count(name)
        ref.tell("crash")
        eventually(lambda: not ref.is_alive(), "it crashes")
        eventually(lambda: self._looked(count, name), "it is started again or given up")

    def _looked(self, count: int, name: str) -> bool:
        self.let_it_look()
        return self.count(name) > count or bool(self.gave_up)

    def let_it_look(self) -> None:
        """Advance to its next check, if it waits for one. No time passes while it is busy."""
        if (at := self.env.manual.waits_for()) is not None:
            self.env.manual.advance(at - self.env.manual.now_ms())

    def _starter(self, name: str) -> Callable[[], "pykka.ActorRef[Any]"]:
        def start() -> "pykka.ActorRef[Any]":
            ref = Recorder.start()
            self.started.append((name, ref))
            return ref

        return start


@pytest.fixture
def supervised(env: JournalEnvironment, containers: Containers) -> SupervisedRecorders:
    one = SupervisedRecorders(env, containers, "first", "second")
    eventually(lambda: len(one.started) == 2, "its children are there")
    return one


def warn(env: JournalEnvironment, text: str) -> None:
    env.ask(Warn(by=DAEMON_BY, source="test", text=text))


def heard(ref: "pykka.ActorRef[Any]") -> list[str]:
    return [event.text for event in ref.ask("told")]


def test_children_start_in_order_and_stop_with_the_supervisor(supervised: SupervisedRecorders) -> None:
    assert [name for name, _ in supervised.started] == ["first", "second"]
    supervised.ref.stop()
    assert not any(ref.is_alive() for _, ref in supervised.started)


def test_committed_events_reach_listening_children(supervised: SupervisedRecorders, env: JournalEnvironment) -> None:
    env.spawn("coder")
    warn(env, "one")
    for _, ref in supervised.started:
        assert heard(ref) == ["one"]


def test_crashed_child_is_restarted_and_gets_events(supervised: SupervisedRecorders, env: JournalEnvironment) -> None:
    supervised.crash("first")
    assert (supervised.count("first"), supervised.count("second")) == (2, 1)
    warn(env, "after")
    assert heard(supervised.newest("first")) == ["after"]
    assert supervised.gave_up == []


def test_repeated_child_crashes_end_the_daemon(supervised: SupervisedRecorders) -> None:
    for _ in range(RESTARTS_MAX):
        supervised.crash("first")
    assert supervised.gave_up == []
    supervised.crash("first")
    assert supervised.gave_up[0].startswith(f"first crashed {RESTARTS_MAX} times")
    assert supervised.count("first") == RESTARTS_MAX + 1


def test_rare_crashes_do_not_end_the_daemon(supervised: SupervisedRecorders, env: JournalEnvironment) -> None:
    for _ in range(2 * RESTARTS_MAX):
        supervised.crash("first")
        env.manual.advance(RESTART_WINDOW_MS // 2)
    assert supervised.gave_up == []


def test_ended_journal_ends_the_daemon(supervised: SupervisedRecorders, env: JournalEnvironment) -> None:
    env.close()

    def gave_up() -> list[str]:
        supervised.let_it_look()
        return supervised.gave_up

    assert "journal ended" in eventually(gave_up, "it gives up")[0]


def test_failed_supervisor_start_ends_the_daemon(supervised: SupervisedRecorders, env: JournalEnvironment) -> None:
    def cannot_start() -> "pykka.ActorRef[Any]":
        raise RuntimeError("a bug that a test asked for")

    env.committed = blinker.Signal()
    supervised.children = [Child("broken", cannot_start)]
    supervised.start(env, supervised.containers)
    assert "could not start" in eventually(lambda: supervised.gave_up, "it gives up")[0]


def test_starting_child_misses_no_event(env: JournalEnvironment, containers: Containers) -> None:
    """A child reads the state as it starts. It must receive every event committed after that read."""
    env.spawn("coder")
    committed = threading.Event()
    env.committed.connect(lambda _journal, batch: committed.set(), weak=False)
    started: list[pykka.ActorRef[Any]] = []

    def start() -> "pykka.ActorRef[Any]":
        ref = Recorder.start()
        started.append(ref)
        committed.clear()
        env.client.tell(Ask(by=agent("coder"), asker="coder", question="?"))
        committed.wait(0.2)  # Long enough to route the event if nothing blocks it.
        return ref

    children = [Child("late", start, listens=(QuestionAdded,))]
    Supervisor.start(env.journal, children, env.client, containers.actor, env.clock, print, env.committed)
    eventually(lambda: started and len(started[0].ask("told")) == 1, "it hears of the question")
