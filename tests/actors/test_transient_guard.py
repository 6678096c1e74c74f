"""A transient shows from the first line of the block to its end, whatever ends it."""

from collections.abc import Callable
from typing import Any

import pykka
import pytest

from hive.actors.transient_guard import HOLDER_LOOK_MS, TransientGuard
from hive.deciders.record import Boot
from hive.errors import Unavailable

from .stage import DAEMON_BY, Recorder, Stage, eventually


class Holder(pykka.ThreadingActor):
    """Holds a guard as the agents' actors do, for as long as it is told to."""

    use_daemon_thread = True

    def __init__(self, hold: Callable[["pykka.ActorRef[Any]"], Any]):
        super().__init__()
        self._hold = hold
        self._held: Any = None

    def on_receive(self, message: str) -> None:
        if message == "hold and raise":
            with self._hold(self.actor_ref):
                raise RuntimeError("a bug that a test asked for")
        self._held = self._hold(self.actor_ref)
        self._held.__enter__()


def held(stage: Stage) -> str | None:
    row = stage.client.read(lambda hive: hive.transient.held.get("coder"))
    return None if row is None else row.kind


def hold(stage: Stage, holder: "pykka.ActorRef[Any]") -> Any:
    return TransientGuard.hold(stage.client, stage.clock, "coder", "rebuilding", holder, DAEMON_BY)


@pytest.fixture
def holder(stage: Stage) -> "pykka.ActorRef[Any]":
    return Holder.start(lambda ref: hold(stage, ref))


def test_it_shows_within_the_block_and_not_after(stage: Stage, holder: "pykka.ActorRef[Any]") -> None:
    with hold(stage, holder):
        assert held(stage) == "rebuilding"
        row = stage.client.read(lambda hive: hive.transient.held["coder"])
        assert row.since_ms == stage.clock.now_ms()
    assert held(stage) is None
    assert stage.types() == ["TransientSet", "TransientCleared"]


def test_an_exception_clears_it(stage: Stage, holder: "pykka.ActorRef[Any]") -> None:
    with pytest.raises(ZeroDivisionError), hold(stage, holder):
        raise ZeroDivisionError
    assert held(stage) is None


def test_an_actor_that_crashes_within_the_block_leaves_nothing(stage: Stage, holder: "pykka.ActorRef[Any]") -> None:
    holder.tell("hold and raise")
    eventually(lambda: not holder.is_alive(), "the holder crashes")
    eventually(lambda: stage.types() == ["TransientSet", "TransientCleared"], "it is cleared")


def test_a_holder_that_dies_without_leaving_the_block_is_noticed(stage: Stage, holder: "pykka.ActorRef[Any]") -> None:
    holder.tell("hold")
    eventually(lambda: held(stage) == "rebuilding", "it is held")
    stage.hand.advance(10 * HOLDER_LOOK_MS)
    assert held(stage) == "rebuilding", "the holder lives"
    holder.stop()

    def is_cleared_after_a_while() -> bool:
        stage.hand.advance(HOLDER_LOOK_MS)
        return held(stage) is None

    eventually(is_cleared_after_a_while, "it is cleared")


def test_a_guard_leaves_no_timer_behind(stage: Stage, holder: "pykka.ActorRef[Any]") -> None:
    with hold(stage, holder):
        eventually(lambda: stage.hand.waits_for() is not None, "the guard watches")
    assert stage.hand.waits_for() is None
    assert [ref.actor_class for ref in pykka.ActorRegistry.get_by_class(TransientGuard)] == []


def test_a_guard_whose_kind_was_replaced_clears_nothing_of_the_other(
    stage: Stage, holder: "pykka.ActorRef[Any]"
) -> None:
    with hold(stage, holder):
        other = TransientGuard.hold(stage.client, stage.clock, "coder", "stopping", holder, DAEMON_BY)
        with other:
            pass
    assert stage.types() == ["TransientSet", "TransientSet", "TransientCleared"]
    assert held(stage) is None


def test_without_a_journal_the_block_is_not_entered(stage: Stage) -> None:
    holder = Recorder.start()
    stage.close()
    with pytest.raises(Unavailable), hold(stage, holder):
        raise AssertionError("the block was entered")


def test_the_next_boot_clears_what_a_killed_daemon_held(stage: Stage, holder: "pykka.ActorRef[Any]") -> None:
    holder.tell("hold")
    eventually(lambda: held(stage) == "rebuilding", "it is held")
    stage.ask(Boot(by=DAEMON_BY, hive_version="1", runtime="process"))
    assert held(stage) is None
