"""Archived segments: every reader reads over them as if nothing had happened, and a kill leaves one whole log."""

import asyncio
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from hive.actors.erasing import erase_offline
from hive.audit import anchors, archiving
from hive.audit.anchor_check import refuse_truncated
from hive.audit.archiving import archive
from hive.audit.chain import verify_log
from hive.audit.check import check
from hive.audit.figures import turn_figures
from hive.audit.reading import log_reader
from hive.audit.rebuild import rebuild
from hive.audit.replay import as_data, position, state_at
from hive.audit.transfer import export, import_log
from hive.audit.why import explain
from hive.backup.restoring import restore_backup
from hive.backup.writing import write_backup
from hive.clock import SystemClock
from hive.errors import CorruptState, HiveError
from hive.events.base import MessageId
from hive.events.codec import Codec
from hive.events.daemon import Warned
from hive.events.log import EventLog, LogReader
from hive.events.messages import MessageSent
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.projections.store import Store

from . import story

END = "2030-01-01T00:00:00.000Z"
SECRET = "sk-archived-1234"
MORE = [
    ("actor:x", Warned(source="x", text=f"warning {number} {'and more ' * (number % 40)}")) for number in range(100)
]
LEAK = ("operator:mara", MessageSent(id=MessageId(90), sender="operator", to="coder", body=f"the key: {SECRET}"))
EVENTS = [*story.EVENTS, LEAK, *MORE]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("written") / "state"
    story.write(state, EVENTS)
    log = EventLog(state)
    anchors.add(state / "anchors.jsonl", log.head, story.BEGIN_MS)
    log.close()
    return state


@pytest.fixture
def paths(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(archiving, "SEGMENT_EVENTS", 25)
    shutil.copytree(written, tmp_path / "state")
    return Paths(tmp_path / "state", tmp_path / "run")


def archived(paths: Paths, before: str = END) -> archiving.Archived:
    return archive(paths, before, lambda _: None, shrink=True)


def story_time(seconds: int) -> str:
    return f"2026-01-31T09:30:{seconds:02d}Z"


def everything_read(paths: Paths) -> dict[str, Any]:
    """What each reader of the log says."""
    out = io.BytesIO()
    with log_reader(paths) as reader:
        head = reader.head().seq
        said: dict[str, Any] = {
            "rows": list(reader.rows(1)),
            "some": list(reader.rows(24, 26)),
            "newest": reader.newest(30),
            "newest of a type": reader.newest(3, types=("MessageSent",)),
            "oldest of an agent": reader.matching(1, 5, agent="coder"),
            "from": reader.matching(20, 9),
            "where": list(reader.where("type = 'Warned' AND seq > 40", first=41)),
            "until": [
                position(reader, until) for until in (None, "30", "2026-01-31T09:30:30Z", "2020-01-01T00:00:00Z")
            ],
            "hashes": [reader.hash_at(seq) for seq in range(head + 2)],
            "states": [as_data(state_at(reader, seq, lambda _: None)) for seq in (10, 25, 26, head)],
            "why": [
                explain(reader, "message", "1"),
                explain(reader, "question", "1"),
                explain(reader, "agent", "coder"),
            ],
            "figures": turn_figures(reader, 0),
            "export": (export(reader, out, lambda _: None), out.getvalue()),
        }
    verified = verify_log(paths, lambda _: None)
    said["verified"] = (verified.ok, verified.events, verified.head, [one.state for one in verified.anchors])
    said["check"] = check(paths, lambda _: None)
    said["cut"] = refuse_truncated(paths)
    return said


def test_every_reader_reads_over_segments(paths: Paths) -> None:
    before = everything_read(paths)
    done = archived(paths)
    assert (done.events, done.archived_until) == (len(EVENTS) - 1, len(EVENTS) - 1)
    assert done.segments >= 4
    assert everything_read(paths) == before
    db = apsw.Connection(str(paths.events))
    assert db.execute("SELECT count(*) FROM events").fetchall() == [(1,)]
    db.close()


def test_segment_names_have_positions_and_hash(paths: Paths) -> None:
    archived(paths)
    names = sorted(path.name for path in paths.archive.iterdir())
    with log_reader(paths) as reader:
        for name in names:
            _, first, last, hash_ = name.removesuffix(".zst").split("-")
            assert int(first) <= int(last)
            assert reader.hash_at(int(last)) == bytes.fromhex(hash_)
    assert {path.stat().st_mode & 0o777 for path in paths.archive.iterdir()} == {0o600}


def test_only_old_events_are_archived_and_later_ones_follow(paths: Paths) -> None:
    before = everything_read(paths)
    assert archived(paths, "2020-01-01T00:00:00.000Z").segments == 0
    assert archived(paths, "2026-01-31T09:30:29.000Z").archived_until == 30
    assert everything_read(paths) == before
    log = EventLog(paths.state)
    story.append(log, MORE)
    log.close()
    assert archived(paths).archived_until == len(EVENTS) + len(MORE) - 1
    with log_reader(paths) as reader:
        assert [row.seq for row in reader.rows(1)] == list(range(1, len(EVENTS) + len(MORE) + 1))


def test_events_of_one_time_stay_in_one_segment(paths: Paths) -> None:
    log = EventLog(paths.state)
    at = "2026-02-01T00:00:00.000Z"
    log.append([(at, "Warned", Codec().encode(event), by) for by, event in MORE[:60]])  # type: ignore[list-item]
    story.append(log, MORE[:1])
    log.close()
    archived(paths)
    db = apsw.Connection(str(paths.events))
    spans = db.execute("SELECT first, last FROM segments").fetchall()
    db.close()
    first = len(EVENTS) + 1
    assert any(begin <= first and last >= first + 59 for begin, last in spans)  # type: ignore[operator]


def test_daemon_starts_and_rebuilds_over_segments(paths: Paths) -> None:
    archived(paths)
    paths.projections.unlink()
    log, hive, store = EventLog(paths.state), Hive(), Store(paths.state)
    assert len(store.load(hive, log, Codec())) == len(hive.projections())
    store.close()
    log.close()
    assert rebuild(paths, lambda _: None) == len(EVENTS)
    assert all(row.is_sound for row in check(paths, lambda _: None))


def test_imported_log_equals_archived_log(paths: Paths, tmp_path: Path) -> None:
    archived(paths)
    out, other = io.BytesIO(), Paths(tmp_path / "other", tmp_path)
    with log_reader(paths) as reader:
        export(reader, out, lambda _: None)
        rows = list(reader.rows(1))
    import_log(other, io.BytesIO(out.getvalue()), story.BEGIN_MS, lambda _: None)
    with log_reader(other) as reader:
        assert list(reader.rows(1)) == rows


def test_erase_reaches_into_segments(paths: Paths) -> None:
    archived(paths)
    done = asyncio.run(erase_offline(paths, "message", "90", "a key", backups=False))
    assert done["rows"] == 1
    with log_reader(paths) as reader:
        assert SECRET not in "".join(row.data for row in reader.rows(1))
    for path in paths.archive.iterdir():
        db = archiving.opened(path)
        assert SECRET.encode() not in db.serialize("main")
    result = verify_log(paths, lambda _: None)
    assert result.ok
    assert [one.rows for one in result.erasures] == [1]
    assert all(row.is_sound for row in check(paths, lambda _: None))
    archived(paths)
    assert [one.rows for one in verify_log(paths, lambda _: None).erasures] == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_segments_made_by_root_belong_to_the_logs_owner(paths: Paths) -> None:
    for path in (paths.state, *paths.state.iterdir()):
        os.chown(path, 12_345, 12_345)
    archived(paths)
    asyncio.run(erase_offline(paths, "message", "90", "a key", backups=False))
    assert {path.stat().st_uid for path in (paths.archive, *paths.archive.iterdir(), paths.events)} == {12_345}
    assert {path.name: path.stat().st_uid for path in paths.state.iterdir() if path.stat().st_uid != 12_345} == {}


def test_missing_or_changed_segment_is_reported(paths: Paths) -> None:
    archived(paths)
    first = min(paths.archive.iterdir())
    content = first.read_bytes()
    first.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(HiveError, match=r"is damaged"), log_reader(paths) as reader:
        list(reader.rows(1))
    assert not verify_log(paths, lambda _: None).ok
    first.unlink()
    with pytest.raises(CorruptState, match=r"is missing: it holds a part of the log"), log_reader(paths) as reader:
        list(reader.rows(1))
    assert not verify_log(paths, lambda _: None).ok


def test_changed_event_is_not_archived(paths: Paths) -> None:
    db = apsw.Connection(str(paths.events))
    db.execute("DROP TRIGGER events_are_never_changed; UPDATE events SET by = 'x' WHERE seq = 30").fetchall()
    db.close()
    with pytest.raises(CorruptState, match="Event 30 does not match"):
        archived(paths)
    with log_reader(paths) as reader:
        assert next(reader.rows(30)).by == "x"


def test_database_refuses_deleting_what_is_not_archived(paths: Paths) -> None:
    archived(paths, "2026-01-31T09:30:29.000Z")
    db = apsw.Connection(str(paths.events))
    for statement in ("DELETE FROM events WHERE seq = 50", "DELETE FROM segments", "UPDATE segments SET last = 60"):
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            db.execute(statement)
    db.close()


def test_reader_that_is_open_while_events_are_archived_reads_on(paths: Paths) -> None:
    reader = LogReader(paths.state, daemon_runs=True)
    rows = reader.rows(1)
    seen = [next(rows).seq for _ in range(3)]
    pages = reader.pages(1)
    archive(paths, END, lambda _: None, shrink=False)
    assert seen + [row.seq for row in rows] == list(range(1, len(EVENTS) + 1))
    assert sum(page.text.count('"2026-') >= 1 for page in pages) >= 1
    assert [row.seq for row in reader.newest(40)] == list(range(len(EVENTS) - 39, len(EVENTS) + 1))
    reader.close()


def test_backup_of_archived_log_is_restored(paths: Paths, tmp_path: Path) -> None:
    archived(paths)
    write_backup(paths, tmp_path / "backups", SystemClock(), lambda _: None, keep=1)
    restored = Paths(tmp_path / "restored", tmp_path)
    restore_backup(tmp_path / "backups", restored.state, lambda _: None)
    with log_reader(paths) as reader, log_reader(restored) as other:
        assert list(other.rows(1)) == list(reader.rows(1))
    assert verify_log(restored, lambda _: None).ok


def test_killed_archiving_leaves_one_whole_log(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked process ends before its first, second, … step, until one completes."""
    monkeypatch.setattr(archiving, "SEGMENT_EVENTS", 60)
    number = 0
    expected = None
    while True:
        paths = Paths(tmp_path / str(number) / "state", tmp_path / "run")
        shutil.copytree(written, paths.state)
        expected = expected or everything_read(paths)
        child = os.fork()
        if child == 0:
            _exit_before_step(number)
            archived(paths)
            os._exit(0)
        completed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with log_reader(paths) as reader:
            assert list(reader.rows(1)) == expected["rows"]
        archived(paths)
        assert everything_read(paths) == expected
        db = apsw.Connection(str(paths.events))
        listed = db.execute("SELECT count(*) FROM segments").fetchall()[0][0]
        db.close()
        assert len(list(paths.archive.iterdir())) == listed, "no file is left over"
        if completed:
            break
        number += 1
    assert number >= 8


def _exit_before_step(number: int) -> None:
    left = iter(range(number))

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def taking(*args: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os._exit(9)
            return step(*args, **options)

        return taking

    for owner, name in ((archiving, "write"), (archiving, "sync_folder"), (archiving, "_verify"), (Path, "rename")):
        setattr(owner, name, counted(getattr(owner, name)))
    real = archiving.connect

    def connecting(*args: Any, **options: Any) -> Any:
        db = real(*args, **options)

        def trace(_cursor: Any, statement: str, _bindings: Any) -> bool:
            if statement.startswith(("INSERT INTO segments", "DELETE", "PRAGMA wal_checkpoint", "VACUUM")) and (
                next(left, None) is None
            ):
                os._exit(9)
            return True

        db.exec_trace = trace
        return db

    archiving.connect = connecting
