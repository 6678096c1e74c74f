"""Anchors in a real system journal."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hive.audit.anchor_check import AnchorComparison
from hive.audit.chain import verify_log
from hive.audit.system_journal import JournalAnchor, SystemJournal
from hive.errors import Unavailable
from hive.events.log import GENESIS, EventLog, Head
from hive.paths import Paths

from . import journald, story
from .test_chain import edit

HEAD = len(story.EVENTS)
STRANGER = 65534
DEADLINE_S = 30.0
STEP_S = 0.05
_logs = itertools.count(1)
"""All tests share one journal, so every log starts with a different event."""


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with journald.namespace() as name:
        yield name


@pytest.fixture
def journal(namespace: str) -> SystemJournal:
    return SystemJournal(namespace)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    story.write(tmp_path / "state", begin_ms=story.BEGIN_MS + next(_logs))
    return Paths(tmp_path / "state", tmp_path / "run")


def ends(paths: Paths, seq: int = HEAD) -> tuple[bytes, Head]:
    log = EventLog(paths.state)
    first, hash_ = log.hash_at(1), log.hash_at(seq)
    log.close()
    assert first is not None
    assert hash_ is not None
    return first, Head(seq, hash_)


def eventually(look: Callable[[], list[JournalAnchor]], count: int) -> list[JournalAnchor]:
    deadline = time.monotonic() + DEADLINE_S
    while len(found := look()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(STEP_S)
    return found


def note_as(user: int, journal: SystemJournal, state: Path, first: bytes, head: Head) -> None:
    """Send from a forked process of that user, which may not be allowed to run an interpreter."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os._exit(0 if journal.note(state, first, head) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def comparison(paths: Paths, journal: SystemJournal) -> tuple[bool, AnchorComparison]:
    result = verify_log(paths, lambda _: None, journal)
    return result.ok, result.anchors[-1]


def test_journal_anchor_round_trips(paths: Paths, journal: SystemJournal) -> None:
    first, head = ends(paths)
    assert journal.is_there()
    assert comparison(paths, journal)[1].state == "nothing to compare"
    assert journal.note(paths.state, first, head)
    (found,) = eventually(lambda: journal.noted(paths.state, first, {0}), 1)
    assert (found.seq, found.hash, found.log) == (HEAD, head.hash.hex(), first.hex())
    ok, seen = comparison(paths, journal)
    assert (ok, seen.where, seen.state, seen.seq) == (True, "system journal", "agrees", HEAD)


def test_truncation_is_detected_by_system_journal(paths: Paths, journal: SystemJournal) -> None:
    first, head = ends(paths)
    journal.note(paths.state, first, head)
    eventually(lambda: journal.noted(paths.state, first, {0}), 1)
    edit(paths.events, "DELETE FROM events WHERE seq > 15")
    paths.projections.unlink()
    assert verify_log(paths, lambda _: None).ok
    result = verify_log(paths, lambda _: None, journal)
    assert (result.ok, result.bad_seq) == (False, 16)


def test_copied_log_is_recognised_by_first_event(paths: Paths, journal: SystemJournal, tmp_path: Path) -> None:
    first, head = ends(paths)
    journal.note(tmp_path / "another\nfolder", first, head)
    eventually(lambda: journal.noted(paths.state, first, {0}), 1)
    assert comparison(paths, journal)[1].state == "agrees"


def test_log_with_new_first_event_is_another_log(paths: Paths, journal: SystemJournal) -> None:
    journal.note(paths.state, GENESIS, Head(1234, GENESIS))
    eventually(lambda: journal.noted(paths.state, GENESIS, {0}), 1)
    ok, seen = comparison(paths, journal)
    assert (ok, seen.state) == (True, "nothing to compare")
    assert seen.note is not None
    assert "another log lay in this folder: it had event 1234" in seen.note


def test_anchor_of_another_user_is_ignored(paths: Paths, journal: SystemJournal) -> None:
    first, head = ends(paths)
    note_as(STRANGER, journal, paths.state, first, Head(999, GENESIS))
    eventually(lambda: journal.noted(paths.state, first, {STRANGER}), 1)
    journal.note(paths.state, first, head)
    assert [one.seq for one in eventually(lambda: journal.noted(paths.state, first, {0}), 1)] == [HEAD]
    assert comparison(paths, journal)[0]


def test_missing_system_journal_is_not_an_error(paths: Paths) -> None:
    nowhere = SystemJournal("hive-has-no-such-namespace")
    assert not nowhere.is_there()
    assert not nowhere.note(paths.state, *ends(paths))
    ok, seen = comparison(paths, nowhere)
    assert ok
    assert seen.state in ("nothing to compare", "unreadable")


def test_missing_journalctl_is_reported(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="journalctl: No such file"):
        SystemJournal().noted(paths.state, GENESIS, {0})
    ok, seen = comparison(paths, SystemJournal())
    assert (ok, seen.state) == (True, "unreadable")
