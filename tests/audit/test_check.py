"""Comparing stored projections with a replay, and rebuilding them without a daemon."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from hive import lock
from hive.audit.check import check, positions
from hive.audit.rebuild import rebuild
from hive.errors import CorruptState, Unavailable
from hive.events.daemon import Warned
from hive.events.log import EventLog
from hive.paths import Paths
from hive.projections.fresh import FRESH_NAME
from hive.projections.hive import Hive
from hive.projections.store import Store

from . import story

ORDINARY_USER = 64_000


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    story.write(tmp_path / "state")
    return Paths(tmp_path / "state", tmp_path / "run")


def states(paths: Paths) -> dict[str, str]:
    return {row.projection: row.state for row in check(paths, lambda _: None)}


def edit(paths: Paths, statement: str) -> None:
    db = apsw.Connection(str(paths.projections))
    db.execute(statement)
    db.close()


def test_replay_equals_stored_projections(paths: Paths) -> None:
    found = states(paths)
    assert set(found.values()) == {"same"}
    assert set(found) == {projection.NAME for projection in Hive().projections()}


def test_changed_row_is_reported(paths: Paths) -> None:
    edit(paths, "UPDATE questions SET answer = 'LR' WHERE id = 1")
    found = states(paths)
    assert found.pop("questions") == "different"
    assert set(found.values()) == {"same"}


def test_unreadable_other_version_and_missing_are_distinguished(paths: Paths) -> None:
    edit(paths, "DROP TABLE reminders")
    edit(paths, "UPDATE positions SET version = 99 WHERE projection = 'agents'")
    edit(paths, "DELETE FROM positions WHERE projection = 'turns'")
    edit(paths, "UPDATE positions SET hash = x'00' WHERE projection = 'operators'")
    found = states(paths)
    assert found["reminders"] == "unreadable"
    assert found["agents"] == "other version"
    assert found["turns"] == "missing"
    assert found["operators"] == "other log"


def test_projections_are_compared_at_their_own_position(paths: Paths) -> None:
    log = EventLog(paths.state)
    story.append(log, [("agent:manager", story.Killed(agent="manager"))])
    log.close()
    assert {row.behind for row in positions(paths)} == {1}
    assert set(states(paths).values()) == {"same"}


def test_rebuild_repairs_projections(paths: Paths) -> None:
    before = {row.projection: row.digest for row in positions(paths)}
    edit(paths, "UPDATE questions SET answer = 'LR' WHERE id = 1")
    assert rebuild(paths, lambda _: None) == len(story.EVENTS)
    assert {row.projection: row.digest for row in positions(paths)} == before
    assert not paths.events.with_name("events.db-wal").exists()
    assert not paths.projections.with_name("projections.db-wal").exists()


def test_rebuilt_file_is_private(paths: Paths) -> None:
    paths.projections.unlink()
    store = Store(paths.state)
    store.write(Hive(), b"")
    modes = {path.name: path.stat().st_mode & 0o777 for path in paths.state.iterdir()}
    store.close()
    assert {name: mode for name, mode in modes.items() if mode != 0o600} == {}
    assert "projections.db-wal" in modes


def test_rebuild_replaces_missing_or_damaged_file(paths: Paths) -> None:
    paths.projections.unlink()
    with pytest.raises(Unavailable, match="hive projections rebuild"):
        positions(paths)
    rebuild(paths, lambda _: None)
    paths.projections.write_bytes(b"\xff" * 8192)
    with pytest.raises(CorruptState):
        positions(paths)
    rebuild(paths, lambda _: None)
    assert set(states(paths).values()) == {"same"}


def test_rebuild_by_root_keeps_owner(paths: Paths) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    for path in paths.state.iterdir():
        os.chown(path, ORDINARY_USER, ORDINARY_USER)
    paths.lock.unlink(missing_ok=True)
    seen: set[tuple[str, int]] = set()

    def look(_: int) -> None:
        seen.update((path.name, path.stat().st_uid) for path in paths.state.iterdir())

    rebuild(paths, look)
    look(0)
    assert {uid for _, uid in seen} == {ORDINARY_USER}
    assert {name for name, _ in seen} >= {paths.lock.name, paths.projections.name}
    assert paths.projections.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("when", ["it begins", "it writes", "it has swapped"])
def test_killed_rebuild_leaves_valid_file(paths: Paths, when: str) -> None:
    log = EventLog(paths.state)
    for _ in range(10):
        story.append(log, [("actor:test", Warned(source="test", text="x" * 100))] * 2_000)
    log.close()
    fresh, before = paths.state / FRESH_NAME, paths.projections.stat().st_ino
    moments: dict[str, Callable[[], bool]] = {
        "it begins": lambda: lock.is_held(paths.lock),
        "it writes": fresh.exists,
        "it has swapped": lambda: not paths.projections.exists() or paths.projections.stat().st_ino != before,
    }
    command = [sys.executable, "-m", "hive", "projections", "rebuild", "--state", str(paths.state)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and not moments[when]():
            pass
        child.kill()
    assert set(states(paths).values()) == {"same"}
    rebuild(paths, lambda _: None)
    assert {(row.state, row.behind) for row in check(paths, lambda _: None)} == {("same", 0)}
    assert not fresh.exists()


def test_rebuild_of_truncated_log_is_refused(paths: Paths) -> None:
    edit_log = apsw.Connection(str(paths.events))
    edit_log.execute("DROP TRIGGER events_are_never_deleted; DELETE FROM events WHERE seq > 15").fetchall()
    edit_log.close()
    with pytest.raises(CorruptState, match="events were cut off"):
        rebuild(paths, lambda _: None)
    assert {row.seq for row in positions(paths)} == {len(story.EVENTS)}


def test_rebuild_beside_running_daemon_is_refused(paths: Paths) -> None:
    with lock.held(paths.lock), pytest.raises(CorruptState, match="already runs"):
        rebuild(paths, lambda _: None)
    assert not lock.is_held(paths.lock)


def test_rebuild_without_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        rebuild(Paths(tmp_path, tmp_path), lambda _: None)
    assert list(tmp_path.iterdir()) == []
