"""The log is append-only, its hash chain shows every change, and foreign files stay unchanged."""

import shutil
from pathlib import Path

import apsw
import pytest

from hive.errors import CorruptState, Unavailable
from hive.events import log as logs
from hive.events.base import By, actor, agent
from hive.events.chain import GENESIS, SALT_BYTES, Row, chained, content_hash, verify
from hive.events.log import EventLog, LogReader
from hive.events.sqlite import refuse_unsafe

AT = "2026-01-31T09:30:00.000Z"
ROWS = [(AT, f"Type{number}", f'{{"number":{number}}}', "actor:test") for number in range(1, 6)]


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    one = EventLog(tmp_path)
    one.append(ROWS)
    return one


def database(log: EventLog) -> apsw.Connection:
    """A plain connection, as any SQLite tool opens it."""
    return apsw.Connection(str(log.path))


def forged(log: EventLog, statement: str, values: tuple[object, ...] = ()) -> list[Row]:
    """The rows after an attacker dropped the triggers and changed them."""
    with database(log) as db:
        db.execute("DROP TRIGGER events_are_never_changed; DROP TRIGGER events_are_never_deleted")
        db.execute(statement, values)  # type: ignore[arg-type]
    return list(log.rows(1, 99))


def test_row_hash_covers_previous_row(log: EventLog) -> None:
    rows = list(log.rows(1))
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    before = GENESIS
    for row in rows:
        assert row.salt is not None
        before = chained(before, row.seq, row.at, row.type, row.by, content_hash(row.salt, row.data))
        assert row.hash == before
    assert {len(row.salt or b"") for row in rows} == {SALT_BYTES}
    assert len({row.salt for row in rows}) == len(rows), "each row has a salt of its own"
    assert log.head == (5, before)
    assert verify(rows) == (5, None)


@pytest.mark.parametrize(
    "statement", ["UPDATE events SET data = '{}' WHERE seq = 2", "UPDATE events SET seq = 9 WHERE seq = 5"]
)
def test_database_refuses_update(log: EventLog, statement: str) -> None:
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        database(log).execute(statement)
    assert verify(log.rows(1)) == (5, None)


@pytest.mark.parametrize("verb", ["INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE", "INSERT"])
def test_database_refuses_insert_or_replace(log: EventLog, verb: str) -> None:
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        database(log).execute(
            f"{verb} INTO events SELECT seq, at, type, '{{}}', by, hash, salt FROM events WHERE seq = 2"
        )
    assert verify(log.rows(1)) == (5, None)


def test_opening_adds_missing_trigger(log: EventLog) -> None:
    with database(log) as db:
        db.execute("DROP TRIGGER events_are_never_replaced")
    EventLog(log.path.parent)
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        database(log).execute("REPLACE INTO events SELECT * FROM events WHERE seq = 2")


def test_writer_with_an_old_head_replaces_no_row(log: EventLog) -> None:
    other = EventLog(log.path.parent)
    log.append(ROWS[:1])
    before = list(log.rows(1))
    with pytest.raises(Unavailable, match="UNIQUE"):
        other.append(ROWS[:3])
    assert list(log.rows(1)) == before


@pytest.mark.parametrize("statement", ["DELETE FROM events WHERE seq = 5", "DELETE FROM events"])
def test_database_refuses_delete(log: EventLog, statement: str) -> None:
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        database(log).execute(statement)
    assert verify(log.rows(1)) == (5, None)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "2026-01-31T09:30:00.001Z"),
        ("type", "Type4"),
        ("data", '{"number":2 }'),
        ("by", "actor:tesu"),
        ("salt", b"\0" * 8),
        ("salt", b"\0" * 9),
        ("salt", None),
        ("hash", b"\1" * 32),
        ("at", AT + "\n"),
    ],
)
def test_change_in_any_column_is_reported(log: EventLog, column: str, value: object) -> None:
    good, broken = verify(forged(log, f"UPDATE events SET {column} = ? WHERE seq = 3", (value,)))
    assert good == 2
    assert broken is not None
    assert broken.seq == 3


def test_flipped_bit_in_any_byte_of_an_event_is_found(log: EventLog) -> None:
    rows = list(log.rows(1))
    for index in range(1, 5):
        text = str(rows[2][index])
        for position, char in enumerate(text):
            flipped = text[:position] + chr(ord(char) ^ 1) + text[position + 1 :]
            forged_row = Row(*(flipped if at == index else value for at, value in enumerate(rows[2])))  # type: ignore[arg-type]
            good, broken = verify([*rows[:2], forged_row, *rows[3:]])
            assert (good, broken is not None and broken.seq) == (2, 3)


def test_text_moved_between_columns_is_found(log: EventLog) -> None:
    good, broken = verify(
        forged(log, "UPDATE events SET type = 'Type3' || char(10) || 'actor:test', by = '' WHERE seq = 3")
    )
    assert (good, broken is not None and broken.seq) == (2, 3)


@pytest.mark.parametrize("seq", [1, 3])
def test_missing_event_is_reported(log: EventLog, seq: int) -> None:
    good, broken = verify(forged(log, "DELETE FROM events WHERE seq = ?", (seq,)))
    assert good == seq - 1
    assert broken is not None
    assert broken.seq == seq
    assert "missing" in broken.why


def test_truncated_log_still_verifies(log: EventLog) -> None:
    """The chain alone does not show truncation; recorded heads elsewhere do."""
    assert verify(forged(log, "DELETE FROM events WHERE seq > 3")) == (3, None)


def test_reordered_events_are_found(log: EventLog) -> None:
    rows = forged(log, "UPDATE events SET data = CASE seq WHEN 2 THEN '{\"number\":3}' ELSE data END")
    assert verify(rows)[0] == 1


def test_rewritten_chain_has_another_head(log: EventLog, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    rewritten = EventLog(other)
    rewritten.append([(AT, "Forged", "{}", "actor:test"), *ROWS[1:]])
    assert verify(rewritten.rows(1)) == (5, None)
    assert rewritten.head.hash != log.head.hash


def test_rows_are_read_across_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PAGE_ROWS", 3)
    log = EventLog(tmp_path)
    log.append((AT, "Type", str(number), "actor:test") for number in range(1, 11))
    assert [int(row.data) for row in log.rows(1)] == list(range(1, 11))
    assert [row.seq for row in log.rows(2, 8)] == list(range(2, 9))
    assert list(log.rows(11)) == list(log.rows(5, 4)) == []


def test_reader_filters_by_type_and_agent(log: EventLog) -> None:
    log.append([(AT, "MessageSent", '{"from":"a","to":"b"}', "agent:a"), (AT, "Spawned", '{"agent":"b"}', "actor:x")])
    reader = LogReader(log.path.parent, daemon_runs=True)
    assert reader.head() == log.head
    assert [row.seq for row in reader.newest(2)] == [6, 7]
    assert [row.seq for row in reader.newest(9, types=("MessageSent", "Type1"))] == [1, 6]
    assert [row.seq for row in reader.newest(9, agent="a")] == [6]
    assert [row.seq for row in reader.matching(1, 9, agent="b")] == [6, 7]
    assert [row.seq for row in reader.matching(3, 2)] == [3, 4]
    assert [row.seq for row in reader.where("type = ?", ("Spawned",))] == [7]
    assert reader.last_until(AT) == 7
    assert reader.last_until("2026-01-31T09:29:59.999Z") == 0
    assert reader.damage() is None
    assert reader.hash_at(0) == GENESIS
    assert reader.hash_at(99) is None
    reader.close()


def test_closed_log_is_one_private_file(log: EventLog) -> None:
    log.close()
    assert [path.name for path in log.path.parent.iterdir()] == ["events.db"]
    assert log.path.stat().st_mode & 0o777 == 0o600
    again = EventLog(log.path.parent)
    assert again.head.seq == 5
    again.close()


def test_reading_a_copy_leaves_no_files(log: EventLog, tmp_path: Path) -> None:
    log.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(log.path, copy)
    reader = LogReader(copy, daemon_runs=False)
    assert verify(reader.rows(1)) == (5, None)
    reader.close()
    assert [path.name for path in copy.iterdir()] == ["events.db"]


def test_half_created_log_is_created_again(tmp_path: Path) -> None:
    (tmp_path / "events.db.new").write_bytes(b"half of it")
    (tmp_path / "events.db.new-journal").write_bytes(b"and of its journal")
    log = EventLog(tmp_path)
    log.append(ROWS)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["events.db"]


# What is not touched


def test_reading_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no events\.db"):
        LogReader(tmp_path, daemon_runs=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pragma", "says"),
    [
        ("application_id = 1", "not a hive's log"),
        ("user_version = 4", "schema 4.* A newer hive wrote it"),
        ("user_version = 1", "schema 1. Start the daemon once"),
        ("user_version = 0", "schema 0"),
    ],
)
def test_foreign_application_id_or_newer_schema_is_refused(log: EventLog, pragma: str, says: str) -> None:
    log.close()
    database(log).execute(f"PRAGMA {pragma}")
    before = log.path.read_bytes()
    for opened in (EventLog, lambda folder: LogReader(folder, daemon_runs=False)):
        with pytest.raises(CorruptState, match=says):
            opened(log.path.parent)
    assert log.path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300], ids=["empty", "text"])
def test_foreign_file_is_refused_and_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(content)
    with pytest.raises(CorruptState):
        EventLog(tmp_path)
    assert path.read_bytes() == content


def test_foreign_database_is_refused_and_unchanged(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / "events.db"))
    db.execute("CREATE TABLE events(seq, note); INSERT INTO events VALUES(1, 'mine')")
    db.close()
    before = (tmp_path / "events.db").read_bytes()
    with pytest.raises(CorruptState, match="not a hive's log"):
        EventLog(tmp_path)
    assert (tmp_path / "events.db").read_bytes() == before


def test_destroyed_page_is_reported(log: EventLog) -> None:
    log.append((AT, "Type", "x" * 500, "actor:test") for _ in range(200))
    log.close()
    damaged = bytearray(log.path.read_bytes())
    middle = len(damaged) // 4_096 // 2 * 4_096
    damaged[middle : middle + 4_096] = b"\xff" * 4_096
    log.path.write_bytes(bytes(damaged))
    reader = LogReader(log.path.parent, daemon_runs=False)
    with pytest.raises(CorruptState, match="Restore it from a backup"):
        list(reader.rows(1))
    assert reader.damage() is not None


@pytest.mark.parametrize("version", ["3.51.3", "3.51.4", "3.52.0", "4.0.0", "3.50.7", "3.50.8", "3.44.6", "3.44.9"])
def test_safe_sqlite_version_is_accepted(version: str) -> None:
    refuse_unsafe(version)


@pytest.mark.parametrize("version", ["3.51.2", "3.51.0", "3.50.6", "3.49.9", "3.45.0", "3.44.5", "3.43.9", "2.8.17"])
def test_unsafe_sqlite_version_is_refused(version: str) -> None:
    with pytest.raises(Unavailable, match=r"3\.51\.3 or newer"):
        refuse_unsafe(version)


def test_installed_sqlite_is_safe() -> None:
    refuse_unsafe(apsw.sqlite_lib_version())


def test_by_is_written_as_one_line() -> None:
    assert str(agent("coder")) == "agent:coder"
    assert str(actor("reminders")) == "actor:reminders"
    assert str(By("operator", "mara", uid=1000, way="host")) == "operator:mara uid=1000 way=host"
