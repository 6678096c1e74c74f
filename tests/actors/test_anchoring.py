"""The log's head is anchored while the log grows and when the daemon ends."""

from pathlib import Path

import pytest
from audit import journald

from hive.actors.anchoring import FILE_EVERY_MS, JOURNAL_EVERY_MS, Anchoring, Anchors
from hive.audit import anchors
from hive.audit.system_journal import SystemJournal
from hive.deciders.record import Warn
from hive.events.log import GENESIS
from hive.paths import Paths

from .journal_environment import DAEMON_BY, JournalEnvironment, eventually

NO_JOURNAL = SystemJournal("hive-has-no-such-namespace")


@pytest.fixture
def paths(env: JournalEnvironment, tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run")


def warn(env: JournalEnvironment) -> None:
    env.ask(Warn(by=DAEMON_BY, source="x", text="y"))


def noted(paths: Paths) -> list[int]:
    return [one.seq for one in anchors.read(paths.anchors).anchors] if paths.anchors.is_file() else []


def look_again(env: JournalEnvironment) -> None:
    """Wait until the actor waits, then let its interval pass."""
    eventually(lambda: env.manual.waits_for() is not None, "the actor waits")
    env.manual.advance(FILE_EVERY_MS)
    eventually(lambda: env.manual.waits_for() is not None, "it has looked")


def test_new_events_are_anchored_at_intervals(env: JournalEnvironment, paths: Paths) -> None:
    warn(env)
    Anchoring.start(Anchors(paths, env.manual, NO_JOURNAL), env.manual)
    eventually(lambda: noted(paths) == [1], "noted at the start")
    for _ in range(3):
        warn(env)
    assert noted(paths) == [1]
    look_again(env)
    assert noted(paths) == [1, 4]
    look_again(env)
    assert noted(paths) == [1, 4], "nothing is new"
    newest, row = anchors.read(paths.anchors).anchors[-1], env.rows()[-1]
    assert (newest.seq, newest.hash) == (row.seq, row.hash.hex())


def test_empty_log_gets_no_anchor(env: JournalEnvironment, paths: Paths) -> None:
    Anchoring.start(Anchors(paths, env.manual, NO_JOURNAL), env.manual)
    look_again(env)
    assert not paths.anchors.exists()


def test_final_head_is_anchored_at_close(env: JournalEnvironment, paths: Paths) -> None:
    kept = Anchors(paths, env.manual, NO_JOURNAL)
    ref = Anchoring.start(kept, env.manual)
    eventually(lambda: env.manual.waits_for() is not None, "it has looked")
    ref.stop()
    warn(env)
    env.close()
    before = {path.name for path in paths.state.iterdir()}
    kept.note(last=True)
    assert noted(paths) == [1]
    assert {path.name for path in paths.state.iterdir()} == {*before, "anchors.jsonl"}


def test_failed_write_is_retried(env: JournalEnvironment, paths: Paths) -> None:
    warn(env)
    paths.anchors.mkdir()
    ref = Anchoring.start(Anchors(paths, env.manual, NO_JOURNAL), env.manual)
    look_again(env)
    assert ref.is_alive()
    paths.anchors.rmdir()
    look_again(env)
    assert noted(paths) == [1]


def test_system_journal_is_written_less_often_and_at_close(env: JournalEnvironment, paths: Paths) -> None:
    with journald.namespace() as name:
        journal = SystemJournal(name)
        kept = Anchors(paths, env.manual, journal)
        for _ in range(3):
            warn(env)
            kept.note()
        env.manual.advance(JOURNAL_EVERY_MS)
        warn(env)
        kept.note()
        warn(env)
        env.close()
        kept.note(last=True)
        first = anchors.read(paths.anchors).anchors[0].hash
        found = eventually(lambda: _found(journal, paths, first, 3), "all are there")
    assert found == [1, 4, 5]
    assert noted(paths) == [1, 2, 3, 4, 5]
    assert first != GENESIS.hex()


def _found(journal: SystemJournal, paths: Paths, first: str, count: int) -> list[int] | None:
    seqs = [one.seq for one in journal.noted(paths.state, bytes.fromhex(first), {0})]
    return seqs if len(seqs) >= count else None
