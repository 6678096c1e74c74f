"""The log's end is noted while it grows and when the daemon ends; the journal has no part in it."""

from pathlib import Path

import pytest
from audit import journald

from hive.actors.anchoring import FILE_EVERY_MS, JOURNAL_EVERY_MS, Anchoring, Anchors
from hive.audit import anchors
from hive.audit.system_journal import SystemJournal
from hive.deciders.record import Warn
from hive.events.log import GENESIS
from hive.paths import Paths

from .stage import DAEMON_BY, Stage, eventually

NO_JOURNAL = SystemJournal("hive-has-no-such-namespace")


@pytest.fixture
def paths(stage: Stage, tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run")


def warn(stage: Stage) -> None:
    stage.ask(Warn(by=DAEMON_BY, source="x", text="y"))


def noted(paths: Paths) -> list[int]:
    return [one.seq for one in anchors.read(paths.anchors).anchors] if paths.anchors.is_file() else []


def look_again(stage: Stage) -> None:
    """Let the interval pass, once it is waited for."""
    eventually(lambda: stage.hand.waits_for() is not None, "the actor waits")
    stage.hand.advance(FILE_EVERY_MS)
    eventually(lambda: stage.hand.waits_for() is not None, "it has looked")


def test_what_is_new_is_noted_at_intervals(stage: Stage, paths: Paths) -> None:
    warn(stage)
    Anchoring.start(Anchors(paths, stage.hand, NO_JOURNAL), stage.hand)
    eventually(lambda: noted(paths) == [1], "noted at the start")
    for _ in range(3):
        warn(stage)
    assert noted(paths) == [1]
    look_again(stage)
    assert noted(paths) == [1, 4]
    look_again(stage)
    assert noted(paths) == [1, 4], "nothing is new"
    newest, row = anchors.read(paths.anchors).anchors[-1], stage.rows()[-1]
    assert (newest.seq, newest.hash) == (row.seq, row.hash.hex())


def test_an_empty_log_has_no_end_to_note(stage: Stage, paths: Paths) -> None:
    Anchoring.start(Anchors(paths, stage.hand, NO_JOURNAL), stage.hand)
    look_again(stage)
    assert not paths.anchors.exists()


def test_the_very_end_is_noted_when_the_log_is_closed(stage: Stage, paths: Paths) -> None:
    kept = Anchors(paths, stage.hand, NO_JOURNAL)
    ref = Anchoring.start(kept, stage.hand)
    eventually(lambda: stage.hand.waits_for() is not None, "it has looked")
    ref.stop()
    warn(stage)
    stage.close()
    before = {path.name for path in paths.state.iterdir()}
    kept.note(last=True)
    assert noted(paths) == [1]
    assert {path.name for path in paths.state.iterdir()} == {*before, "anchors.jsonl"}


def test_what_cannot_be_written_is_tried_again(stage: Stage, paths: Paths) -> None:
    warn(stage)
    paths.anchors.mkdir()
    ref = Anchoring.start(Anchors(paths, stage.hand, NO_JOURNAL), stage.hand)
    look_again(stage)
    assert ref.is_alive()
    paths.anchors.rmdir()
    look_again(stage)
    assert noted(paths) == [1]


def test_the_system_journal_is_told_less_often_and_of_the_end(stage: Stage, paths: Paths) -> None:
    with journald.namespace() as name:
        journal = SystemJournal(name)
        kept = Anchors(paths, stage.hand, journal)
        for _ in range(3):
            warn(stage)
            kept.note()
        stage.hand.advance(JOURNAL_EVERY_MS)
        warn(stage)
        kept.note()
        warn(stage)
        stage.close()
        kept.note(last=True)
        first = anchors.read(paths.anchors).anchors[0].hash
        found = eventually(lambda: _found(journal, paths, first, 3), "all are there")
    assert found == [1, 4, 5]
    assert noted(paths) == [1, 2, 3, 4, 5]
    assert first != GENESIS.hex()


def _found(journal: SystemJournal, paths: Paths, first: str, count: int) -> list[int] | None:
    seqs = [one.seq for one in journal.noted(paths.state, bytes.fromhex(first), {0})]
    return seqs if len(seqs) >= count else None
