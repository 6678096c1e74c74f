"""A transient is set from the start of the block to its end, however the block ends."""

from collections.abc import Callable
from typing import Any

import pykka
import pytest

from hive.actors.transient_guard import HOLDER_LOOK_MS, TransientGuard
from hive.deciders.record import Boot
from hive.errors import Unavailable

from .journal_environment import DAEMON_BY, JournalEnvironment, Recorder, eventually


class Holder(pykka.ThreadingActor):
    """Holds a guard as agent actors do, until told to leave the block."""

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


def held(env: JournalEnvironment) -> str | None:
    row = env.client.read(lambda hive: hive.transient.held.get("coder"))
    return None if row is None else row.kind


def hold(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> Any:
    return TransientGuard.hold(env.client, env.clock, "coder", "rebuilding", holder, DAEMON_BY)


@pytest.fixture
def holder(env: JournalEnvironment) -> "pykka.ActorRef[Any]":
    return Holder.start(lambda ref: hold(env, ref))


def test_transient_is_set_inside_the_block_only(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> None:
    with hold(env, holder):
        assert held(env) == "rebuilding"
        row = env.client.read(lambda hive: hive.transient.held["coder"])
        assert row.since_ms == env.clock.now_ms()
    assert held(env) is None
    assert env.types() == ["TransientSet", "TransientCleared"]


def test_exception_clears_the_transient(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> None:
    with pytest.raises(ZeroDivisionError), hold(env, holder):
        raise ZeroDivisionError
    assert held(env) is None


def test_crash_inside_the_block_clears_the_transient(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> None:
    holder.tell("hold and raise")
    eventually(lambda: not holder.is_alive(), "the holder crashes")
    eventually(lambda: env.types() == ["TransientSet", "TransientCleared"], "it is cleared")


def test_death_of_the_holder_clears_the_transient(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> None:
    holder.tell("hold")
    eventually(lambda: held(env) == "rebuilding", "it is held")
    env.manual.advance(10 * HOLDER_LOOK_MS)
    assert held(env) == "rebuilding", "the holder lives"
    holder.stop()

    def is_cleared_after_a_while() -> bool:
        env.manual.advance(HOLDER_LOOK_MS)
        return held(env) is None

    eventually(is_cleared_after_a_while, "it is cleared")


def test_guard_cancels_its_timer(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> None:
    with hold(env, holder):
        eventually(lambda: env.manual.waits_for() is not None, "the guard watches")
    assert env.manual.waits_for() is None
    assert [ref.actor_class for ref in pykka.ActorRegistry.get_by_class(TransientGuard)] == []


def test_guard_does_not_clear_another_kind(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> None:
    with hold(env, holder):
        other = TransientGuard.hold(env.client, env.clock, "coder", "stopping", holder, DAEMON_BY)
        with other:
            pass
    assert env.types() == ["TransientSet", "TransientSet", "TransientCleared"]
    assert held(env) is None


def test_block_is_not_entered_without_a_journal(env: JournalEnvironment) -> None:
    holder = Recorder.start()
    env.close()
    with pytest.raises(Unavailable), hold(env, holder):
        raise AssertionError("the block was entered")


def test_boot_clears_transients_of_a_killed_daemon(env: JournalEnvironment, holder: "pykka.ActorRef[Any]") -> None:
    holder.tell("hold")
    eventually(lambda: held(env) == "rebuilding", "it is held")
    env.ask(Boot(by=DAEMON_BY, hive_version="1", runtime="process"))
    assert held(env) is None
