"""The journal on a disk that refuses: what is answered, what comes from the reserve, and how it goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disk import fill, grow, small_disk

from hive.actors.journal import Decided
from hive.errors import Unavailable
from hive.projections.store import Store
from hive.reserve import Reserve

from .journal_environment import RESTED_MS, JournalEnvironment, no_room
from .test_journal import done, send, texts


def test_failed_write_is_answered_and_recovers_when_there_is_room(env: JournalEnvironment) -> None:
    env.spawn("coder")
    acknowledged = [done(env.submit((send(f"before {number}"), f"k{number}")))[0] for number in range(20)]
    assert all(isinstance(outcome, Decided) for outcome in acknowledged)
    with no_room(env.folder):
        outcomes = done(env.submit((send("x" * 90_000), "k"), (send("y"), "k"), send(to="nobody")))
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
        assert env.client.read(lambda hive: hive.messages.waiting_count("coder")) == 20
        env.check_state_is_the_log()
    (resting,) = done(env.submit((send("z"), "k")))
    assert isinstance(resting, Unavailable), "a moment ago the disk refused"
    env.manual.advance(RESTED_MS)
    (again,) = done(env.submit((send("z"), "k")))
    assert isinstance(again, Decided)
    assert texts(env.events()) == [*(f"before {number}" for number in range(20)), "z"]
    env.check_state_is_the_log()
    env.reopen()
    env.check_state_is_the_log()


def test_repeated_failed_writes_do_not_end_the_journal(env: JournalEnvironment) -> None:
    env.spawn("coder")
    with no_room(env.folder):
        for _ in range(5):
            with pytest.raises(Unavailable, match="Free disk space"):
                env.ask(send("x" * 90_000))
            env.manual.advance(RESTED_MS)
    assert env.journal.is_alive()
    env.ask(send("after"))
    env.check_state_is_the_log()


def test_stop_on_a_full_disk_loses_nothing(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.ask(send("kept"))
    with no_room(env.folder):
        env.close()
    env.open()
    assert texts(env.events()) == ["kept"]
    env.check_state_is_the_log()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with one MiB."""
    with small_disk(tmp_path / "disk", 1):
        yield tmp_path / "disk"


def fill_with_messages(env: JournalEnvironment) -> list[str]:
    """Send until the disk is full and the reserve used up; return what was acknowledged."""
    sent = list[str]()
    with pytest.raises(Unavailable, match="Free disk space"):
        while True:
            text = f"{len(sent)} {'x' * 5_000}"
            env.ask(send(text))
            sent.append(text)
    return sent


def test_full_disk_keeps_acknowledged_messages_and_recovers(disk: Path) -> None:
    env = JournalEnvironment(disk)
    try:
        env.spawn("coder")
        sent = fill_with_messages(env)
        assert texts(env.events()) == sent
        env.check_state_is_the_log()
        grow(disk, 8)
        env.manual.advance(RESTED_MS)
        env.ask(send("room again"))
        env.check_state_is_the_log()
        env.reopen()
        assert texts(env.events()) == [*sent, "room again"]
        env.check_state_is_the_log()
    finally:
        env.close()


def test_full_disk_takes_events_from_the_reserve_until_it_is_used_up(disk: Path) -> None:
    env = JournalEnvironment(disk)
    try:
        env.spawn("coder")
        assert Reserve(disk).is_whole()
        fill(disk / "filler")
        env.ask(send("a decision"))
        assert not Reserve(disk).is_whole()
        sent = fill_with_messages(env)
        assert texts(env.events()) == ["a decision", *sent]
        assert not Reserve(disk).fill(), "there is no room for it"
        (disk / "filler").unlink()
        assert Reserve(disk).fill()
        env.manual.advance(RESTED_MS)
        env.ask(send("room again"))
        env.reopen()
        env.check_state_is_the_log()
    finally:
        env.close()


def test_journal_that_opens_on_a_full_disk_uses_the_reserve(disk: Path) -> None:
    env = JournalEnvironment(disk)
    try:
        env.spawn("coder")
        env.close()
        fill(disk / "filler")
        env.open()
        env.ask(send("a decision"))
        env.check_state_is_the_log()
    finally:
        env.close()


def test_first_start_on_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1):
        fill(tmp_path / "disk" / "filler")
        with pytest.raises(Unavailable, match=r"The log in .* cannot be opened: .*\. Free disk space"):
            JournalEnvironment(tmp_path / "disk")
        (tmp_path / "disk" / "filler").unlink()
        env = JournalEnvironment(tmp_path / "disk")
        env.spawn("coder")
        env.close()


def test_after_a_failed_commit_the_state_is_not_loaded_again_for_each_command(
    env: JournalEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.spawn("coder")
    loads, load = 0, Store.load

    def counted(*args: Any) -> list[str]:
        nonlocal loads
        loads += 1
        return load(*args)

    monkeypatch.setattr(Store, "load", counted)
    with no_room(env.folder):
        for _ in range(20):
            with pytest.raises(Unavailable, match="Free disk space"):
                env.ask(send("x" * 90_000))
        assert loads == 1
        env.manual.advance(RESTED_MS)
        with pytest.raises(Unavailable):
            env.ask(send("x" * 90_000))
        assert loads == 2
    env.manual.advance(RESTED_MS)
    env.ask(send("after"))
    env.check_state_is_the_log()
