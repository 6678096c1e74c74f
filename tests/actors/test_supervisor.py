"""The supervisor: starts what is on its list, routes events, restarts what crashed, gives up in the end."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
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
from .stage import DAEMON_BY, Recorder, Stage, eventually


class Troupe:
    """A supervisor over recorders."""

    def __init__(self, stage: Stage, containers: Containers, *names: str):
        self.stage = stage
        self.containers = containers
        self.started: list[tuple[str, pykka.ActorRef[Any]]] = []
        self.gave_up: list[str] = []
        self.children = [Child(name, self._starter(name), listens=(Warned,)) for name in names]
        self.ref = self.start(stage, containers)

    def start(self, stage: Stage, containers: Containers) -> "pykka.ActorRef[Any]":
        return Supervisor.start(
            stage.journal,
            self.children,
            stage.client,
            containers.provisioner,
            stage.clock,
            self.gave_up.append,
            stage.committed,
        )

    def newest(self, name: str) -> "pykka.ActorRef[Any]":
        return [ref for known, ref in self.started if known == name][-1]

    def count(self, name: str) -> int:
        return sum(known == name for known, _ in self.started)

    def crash(self, name: str) -> None:
        """Crash a child and have the supervisor look."""
        ref, count = self.newest(name), self.count(name)
        ref.tell("crash")
        eventually(lambda: not ref.is_alive(), "it crashes")
        eventually(lambda: self._looked(count, name), "it is started again or given up")

    def _looked(self, count: int, name: str) -> bool:
        self.let_it_look()
        return self.count(name) > count or bool(self.gave_up)

    def let_it_look(self) -> None:
        """Move on to its next look, once it waits for one: no time passes while it is busy."""
        if (at := self.stage.hand.waits_for()) is not None:
            self.stage.hand.advance(at - self.stage.hand.now_ms())

    def _starter(self, name: str) -> Callable[[], "pykka.ActorRef[Any]"]:
        def start() -> "pykka.ActorRef[Any]":
            ref = Recorder.start()
            self.started.append((name, ref))
            return ref

        return start


@pytest.fixture
def containers(tmp_path: Path, stage: Stage) -> Iterator[Containers]:
    one = Containers(tmp_path, stage)
    yield one
    one.close()


@pytest.fixture
def troupe(stage: Stage, containers: Containers) -> Troupe:
    one = Troupe(stage, containers, "first", "second")
    eventually(lambda: len(one.started) == 2, "its children are there")
    return one


def warn(stage: Stage, text: str) -> None:
    stage.ask(Warn(by=DAEMON_BY, source="test", text=text))


def heard(ref: "pykka.ActorRef[Any]") -> list[str]:
    return [event.text for event in ref.ask("told")]


def test_children_start_in_the_order_of_the_list_and_stop_with_it(troupe: Troupe) -> None:
    assert [name for name, _ in troupe.started] == ["first", "second"]
    troupe.ref.stop()
    assert not any(ref.is_alive() for _, ref in troupe.started)


def test_committed_events_reach_those_who_listen(troupe: Troupe, stage: Stage) -> None:
    stage.spawn("coder")
    warn(stage, "one")
    for _, ref in troupe.started:
        assert heard(ref) == ["one"]


def test_a_child_that_crashed_is_started_again_and_listens(troupe: Troupe, stage: Stage) -> None:
    troupe.crash("first")
    assert (troupe.count("first"), troupe.count("second")) == (2, 1)
    warn(stage, "after")
    assert heard(troupe.newest("first")) == ["after"]
    assert troupe.gave_up == []


def test_a_child_that_crashes_again_and_again_ends_the_daemon(troupe: Troupe) -> None:
    for _ in range(RESTARTS_MAX):
        troupe.crash("first")
    assert troupe.gave_up == []
    troupe.crash("first")
    assert troupe.gave_up[0].startswith(f"first crashed {RESTARTS_MAX} times")
    assert troupe.count("first") == RESTARTS_MAX + 1


def test_crashes_far_apart_are_no_loop(troupe: Troupe, stage: Stage) -> None:
    for _ in range(2 * RESTARTS_MAX):
        troupe.crash("first")
        stage.hand.advance(RESTART_WINDOW_MS // 2)
    assert troupe.gave_up == []


def test_a_journal_that_ended_ends_the_daemon(troupe: Troupe, stage: Stage) -> None:
    stage.close()

    def gave_up() -> list[str]:
        troupe.let_it_look()
        return troupe.gave_up

    assert "journal ended" in eventually(gave_up, "it gives up")[0]


def test_a_supervisor_that_cannot_start_ends_the_daemon(troupe: Troupe, stage: Stage) -> None:
    def cannot_start() -> "pykka.ActorRef[Any]":
        raise RuntimeError("a bug that a test asked for")

    stage.committed = blinker.Signal()
    troupe.children = [Child("broken", cannot_start)]
    troupe.start(stage, troupe.containers)
    assert "could not start" in eventually(lambda: troupe.gave_up, "it gives up")[0]


def test_a_child_misses_nothing_that_is_committed_while_it_starts(stage: Stage, containers: Containers) -> None:
    """It reads the state as it starts; what is committed after that read must be told to it."""
    stage.spawn("coder")
    committed = threading.Event()
    stage.committed.connect(lambda _journal, batch: committed.set(), weak=False)
    started: list[pykka.ActorRef[Any]] = []

    def start() -> "pykka.ActorRef[Any]":
        ref = Recorder.start()
        started.append(ref)
        committed.clear()
        stage.client.tell(Ask(by=agent("coder"), asker="coder", question="?"))
        committed.wait(0.2)  # Long enough for the event to be routed, had nothing held it back.
        return ref

    children = [Child("late", start, listens=(QuestionAdded,))]
    Supervisor.start(stage.journal, children, stage.client, containers.provisioner, stage.clock, print, stage.committed)
    eventually(lambda: started and len(started[0].ask("told")) == 1, "it hears of the question")
