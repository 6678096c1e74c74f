"""`audit verify` names the first wrong event after any change to the file."""

import shutil
from pathlib import Path

import apsw
import pytest

from hive.audit.chain import Verification, verify_log
from hive.errors import CorruptState, Unavailable
from hive.events.daemon import Warned
from hive.events.log import EventLog
from hive.events.schema import PAGE_BYTES
from hive.paths import Paths

from . import story


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    story.write(tmp_path / "state")
    return Paths(tmp_path / "state", tmp_path / "run")


def verified(paths: Paths) -> Verification:
    return verify_log(paths, lambda _: None)


def edit(path: Path, statement: str, *values: object) -> None:
    """Changes that anyone with the file and SQLite can make after dropping the triggers."""
    db = apsw.Connection(str(path))
    for name in ("events_are_never_changed", "events_are_never_deleted"):
        db.execute(f"DROP TRIGGER IF EXISTS {name}")
    db.execute(statement, values)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def test_intact_log_verifies(paths: Paths) -> None:
    result = verified(paths)
    assert (result.ok, result.events, result.bad_seq) == (True, len(story.EVENTS), None)


CHANGES = [
    ("data", "{}"),
    ("by", "agent:x"),
    ("at", "x"),
    ("type", "Killed"),
    ("salt", b"\0" * 8),
    ("salt", b"\0"),
    ("salt", None),
]


@pytest.mark.parametrize(("column", "value"), CHANGES)
def test_change_in_any_column_is_reported(paths: Paths, column: str, value: object) -> None:
    edit(paths.events, f"UPDATE events SET {column} = ? WHERE seq = 7", value)
    result = verified(paths)
    assert (result.ok, result.events, result.bad_seq) == (False, 6, 7)


@pytest.mark.parametrize("value", [None, 7, b"bytes"])
def test_value_of_wrong_type_is_reported(paths: Paths, value: object) -> None:
    edit(paths.events, "PRAGMA ignore_check_constraints=1")
    edit(paths.events, "UPDATE OR IGNORE events SET data = coalesce(?, x'00') WHERE seq = 5", value)
    assert verified(paths).bad_seq == 5


def test_flipped_byte_in_file_is_reported(paths: Paths) -> None:
    raw = bytearray(paths.events.read_bytes())
    place = raw.index(b"write a parser")
    raw[place] ^= 1
    paths.events.write_bytes(raw)
    assert verified(paths).bad_seq == 11


def test_removed_event_is_reported(paths: Paths) -> None:
    edit(paths.events, "DELETE FROM events WHERE seq = 4")
    assert verified(paths).bad_seq == 4


def test_truncation_is_detected_by_stored_projections(paths: Paths) -> None:
    edit(paths.events, "DELETE FROM events WHERE seq > 15")
    result = verified(paths)
    assert (result.ok, result.bad_seq) == (False, 16)
    paths.projections.unlink()
    assert verified(paths).ok  # Nothing else knows of the tail.


def test_rewritten_chain_is_detected_by_stored_projections(paths: Paths, tmp_path: Path) -> None:
    story.write(tmp_path / "forged", [*story.EVENTS[:-1], ("agent:manager", Warned(source="x", text="y"))])
    shutil.copy(tmp_path / "forged" / "events.db", paths.events)
    result = verified(paths)
    assert (result.ok, result.bad_seq) == (False, len(story.EVENTS))


def test_any_flipped_byte_is_detected_or_harmless(paths: Paths) -> None:
    """Any damage gives a result or a clear refusal, never a traceback or a wrong seq."""
    sound = paths.events.read_bytes()
    for place in range(0, len(sound), 97):
        raw = bytearray(sound)
        raw[place] ^= 0xFF
        paths.events.write_bytes(raw)
        try:
            result = verified(paths)
        except (CorruptState, Unavailable):
            continue
        assert result.ok == (result.why is None)
        assert not result.ok or result.events == len(story.EVENTS)


def test_damage_in_long_log_is_reported(tmp_path: Path) -> None:
    state = tmp_path / "state"
    story.write(state, [("actor:x", Warned(source="x", text="y" * 400)) for _ in range(200)])
    path = state / "events.db"
    raw = bytearray(path.read_bytes())
    place = raw.index(b"y" * 400, 8 * PAGE_BYTES)
    page = place // PAGE_BYTES * PAGE_BYTES
    raw[page : page + 8] = b"\xff" * 8  # The header of a leaf page.
    path.write_bytes(raw)
    result = verified(Paths(state, tmp_path))
    assert not result.ok
    assert result.bad_seq == result.events + 1
    assert 1 < result.events < 200


def test_file_that_is_not_a_log_is_refused(paths: Paths) -> None:
    paths.events.write_text("not a database, but long enough to be looked at " * 100)
    with pytest.raises(CorruptState, match="not an SQLite database"):
        verified(paths)


def test_missing_log_error_names_folder(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"There is no events\.db"):
        verified(Paths(tmp_path, tmp_path))


def test_read_only_copy_is_read_without_changes(paths: Paths, tmp_path: Path) -> None:
    log = EventLog(paths.state)
    story.append(log, [("actor:x", Warned(source="x", text="in the WAL"))])
    copy = tmp_path / "copy"
    shutil.copytree(paths.state, copy, ignore=shutil.ignore_patterns("*-shm", "projections*"))
    log.close()
    assert (copy / "events.db-wal").stat().st_size > 0
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    for path in copy.iterdir():
        path.chmod(0o400)
    copy.chmod(0o500)
    assert verified(Paths(copy, tmp_path)).events == len(story.EVENTS) + 1
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
