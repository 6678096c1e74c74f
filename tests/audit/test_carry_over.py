"""A log of schema 1 is carried over to schema 2 once; the old file and its anchors stay beside it.

`schema_1/` is the state folder of `story.py`, written by the last hive of schema 1.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from hive.audit import anchors, carry_over
from hive.audit.anchor_check import refuse_truncated
from hive.audit.chain import verify_log
from hive.audit.reading import log_reader
from hive.audit.transfer import import_log
from hive.errors import BadRequest, CorruptState
from hive.events.codec import Codec
from hive.events.daemon import LogCarriedOver
from hive.events.log import EventLog
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.projections.store import Store

from . import story

OLD = Path(__file__).parent / "schema_1"
NOW = story.BEGIN_MS + 1_000_000
OLD_EVENTS = len(story.EVENTS)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    shutil.copytree(OLD, tmp_path / "state")
    return Paths(tmp_path / "state", tmp_path / "run")


def old_rows() -> list[tuple[object, ...]]:
    db = apsw.Connection(
        f"file:{OLD / 'events.db'}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    return list(db.execute("SELECT seq, at, type, data, by, hash FROM events"))


def carried(paths: Paths) -> None:
    carry_over.carry_over(paths, NOW, lambda _: None)


def test_old_log_is_carried_over_once(paths: Paths) -> None:
    assert carry_over.is_due(paths)
    carried(paths)
    assert not carry_over.is_due(paths)
    assert refuse_truncated(paths) is None
    with log_reader(paths) as reader:
        rows = list(reader.rows(1))
    assert [row[:5] for row in rows[:-1]] == [row[:5] for row in old_rows()]
    assert Codec().decode(rows[-1].type, rows[-1].data) == LogCarriedOver(
        schema=1,
        events=OLD_EVENTS,
        head=bytes(old_rows()[-1][5]).hex(),  # type: ignore[arg-type, call-overload]
    )
    result = verify_log(paths, lambda _: None)
    assert (result.ok, result.events) == (True, OLD_EVENTS + 1)
    assert [one.state for one in result.anchors if one.where == "anchors.jsonl"] == ["agrees"]


def test_old_files_stay_beside_the_log(paths: Paths) -> None:
    carried(paths)
    assert paths.old_events.read_bytes() == (OLD / "events.db").read_bytes()
    assert paths.old_anchors.read_bytes() == (OLD / "anchors.jsonl").read_bytes()
    assert [one.seq for one in anchors.read(paths.anchors).anchors] == [OLD_EVENTS + 1]
    assert not paths.projections.exists()
    assert not (paths.state / carry_over.UNDER_WAY_NAME).exists()


def test_projections_are_refolded_after_carrying_over(paths: Paths) -> None:
    carried(paths)
    log, hive, store = EventLog(paths.state), Hive(), Store(paths.state)
    refolded = store.load(hive, log, Codec())
    assert len(refolded) == len(hive.projections())
    assert [row.name for row in hive.agents.living()] == ["coder", "manager"]
    store.close()
    log.close()


def test_changed_old_log_is_not_carried_over(paths: Paths) -> None:
    db = apsw.Connection(str(paths.events))
    db.execute("DROP TRIGGER events_are_never_changed; UPDATE events SET data = '{}' WHERE seq = 7").fetchall()
    db.close()
    before = paths.events.read_bytes()
    with pytest.raises(CorruptState, match=r"Event 7 .* was changed"):
        carried(paths)
    assert paths.events.read_bytes() == before
    assert paths.anchors.exists()
    assert carry_over.is_due(paths)


def test_truncated_old_log_is_not_carried_over(paths: Paths) -> None:
    db = apsw.Connection(str(paths.events))
    db.execute("DROP TRIGGER events_are_never_deleted; DELETE FROM events WHERE seq > 15").fetchall()
    db.close()
    with pytest.raises(CorruptState, match="ends at event 15, not 20"):
        carried(paths)


def test_killed_carrying_over_is_done_again_or_complete(tmp_path: Path) -> None:
    """A forked process ends without cleanup before its first, second, … change of the folder, until one completes."""
    steps = 0
    while True:
        paths = Paths(tmp_path / str(steps), tmp_path)
        shutil.copytree(OLD, paths.state)
        child = os.fork()
        if child == 0:
            _exit_before_change(steps)
            carried(paths)
            os._exit(0)
        completed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if carry_over.is_due(paths):
            carried(paths)
        assert refuse_truncated(paths) is None
        result = verify_log(paths, lambda _: None)
        assert (result.ok, result.events) == (True, OLD_EVENTS + 1)
        assert paths.old_events.read_bytes() == (OLD / "events.db").read_bytes()
        if completed:
            break
        steps += 1
    assert steps > 8


def _exit_before_change(number: int) -> None:
    left = iter(range(number))

    def counted(change: Callable[..., object]) -> Callable[..., object]:
        def changing(*args: object, **options: object) -> object:
            if next(left, None) is None:
                os._exit(9)
            return change(*args, **options)

        return changing

    for owner, name in (
        (os, "link"),
        (shutil, "rmtree"),
        (anchors, "add"),
        *((Path, method) for method in ("replace", "rename", "unlink", "mkdir", "touch")),
    ):
        setattr(owner, name, counted(getattr(owner, name)))


def lines_of_schema_1() -> list[bytes]:
    keys = ("seq", "at", "type", "data", "by", "hash")
    rows = [dict(zip(keys, row, strict=True)) for row in old_rows()]
    return [
        json.dumps({**row, "data": json.loads(row["data"]), "hash": row["hash"].hex()}).encode() + b"\n"  # type: ignore[arg-type, attr-defined]
        for row in rows
    ]


def test_export_of_schema_1_is_imported_and_carried_over(tmp_path: Path) -> None:
    paths, lines = Paths(tmp_path / "new", tmp_path), lines_of_schema_1()
    head = json.loads(lines[-1])["hash"]
    end = import_log(paths, io.BytesIO(b"".join(lines)), NOW, lambda _: None, head)
    assert end.seq == OLD_EVENTS + 1
    assert verify_log(paths, lambda _: None).ok
    with log_reader(paths) as reader:
        assert next(reader.rows(end.seq)).type == "LogCarriedOver"


def test_changed_line_of_schema_1_is_refused(tmp_path: Path) -> None:
    lines = lines_of_schema_1()
    lines[4] = lines[4].replace(b"agent", b"agemt")
    with pytest.raises(BadRequest, match="Line 5: event 5 does not match"):
        import_log(Paths(tmp_path / "new", tmp_path), io.BytesIO(b"".join(lines)), NOW, lambda _: None)
