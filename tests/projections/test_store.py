"""`projections.db` is disposable: whatever happens to it, the loaded state is the fold of the log."""

import random
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from deciders.check import NOW
from deciders.everything import EVERYTHING

from hive.clock import rfc3339
from hive.events import AnyEvent
from hive.events.base import MessageId, QuestionId
from hive.events.codec import Codec
from hive.events.log import EventLog
from hive.events.messages import MessageSent
from hive.events.questions import QuestionResolved
from hive.projections import store as storing
from hive.projections.approvals import Approvals
from hive.projections.hive import Hive, digest, fold
from hive.projections.messages import Messages
from hive.projections.questions import Questions
from hive.projections.store import Store
from hive.projections.table import Projection, Table

NAMES = [one.NAME for one in Hive().projections()]
DAMAGES = 40


def append(log: EventLog, events: list[AnyEvent], begin_ms: int = NOW) -> None:
    """One event per millisecond."""
    first = log.head.seq
    encode = Codec().encode
    log.append(
        (rfc3339(begin_ms + first + number), type(event).__name__, encode(event), "actor:test")
        for number, event in enumerate(events)
    )


def digests(hive: Hive) -> list[str]:
    return [digest(one) for one in hive.projections()]


class Files:
    """A state folder with the full history and its stored projections."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / storing.FILE_NAME
        self.log = EventLog(folder)
        append(self.log, EVERYTHING)
        assert self.load() == NAMES

    def load(self) -> list[str]:
        """Load like a starting journal and compare with a full fold; returns the refolded projections."""
        store, hive = Store(self.folder), Hive()
        refolded = store.load(hive, self.log, Codec())
        assert hive.seq == self.log.head.seq
        self.check(hive)
        store.write(hive, self.log.head.hash)
        store.close()
        return refolded

    def check(self, hive: Hive) -> None:
        folded, _ = fold(self.log.rows(1), Codec())
        assert digests(hive) == digests(folded)

    def tables(self) -> list[Table[object, object]]:  # type: ignore[type-var]
        return [table for one in Hive().projections() for table in one.tables()]

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        db = apsw.Connection(str(self.path))
        db.execute(statement, values)  # type: ignore[arg-type]
        db.close()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_full_history_fills_every_table(files: Files) -> None:
    folded, _ = fold(files.log.rows(1), Codec())
    assert [table.name for one in folded.projections() for table in one.tables() if not table.rows] == []


def test_stored_rows_are_loaded_without_refolding(files: Files) -> None:
    assert files.load() == []


def test_only_the_tail_is_folded(files: Files) -> None:
    append(files.log, [MessageSent(id=MessageId(99), sender="operator", to="a", body="tail")])
    assert files.load() == []


def test_dropped_rows_are_deleted_from_file(files: Files) -> None:
    append(files.log, [QuestionResolved(id=2, asker="a", target="b", answer="x", answerer="b")])  # type: ignore[arg-type]
    files.load()
    assert files.load() == []


def test_file_holds_plain_tables(files: Files) -> None:
    db = apsw.Connection(str(files.path), flags=apsw.SQLITE_OPEN_READONLY)
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == {"positions", *(table.name for table in files.tables())}
    (row,) = db.execute("SELECT name, running, recipients, wanted_running FROM agents WHERE name = 'a'")
    assert row == ("a", 1, '["b"]', 1)
    assert files.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("projection", [Messages, Questions, Approvals])
def test_raised_version_refolds_only_that_projection(
    files: Files, projection: type[Projection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "VERSION", projection.VERSION + 1)
    assert files.load() == [projection.NAME]
    assert files.load() == []


def test_raised_version_does_not_refold_other_projections(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.execute("UPDATE questions SET question = 'as it was stored' WHERE id = 1")
    monkeypatch.setattr(Messages, "VERSION", Messages.VERSION + 1)
    store, hive = Store(files.folder), Hive()
    assert store.load(hive, files.log, Codec()) == ["messages"]
    store.close()
    folded, _ = fold(files.log.rows(1), Codec())
    assert hive.questions.all[QuestionId(1)].question == "as it was stored"
    assert digest(hive.messages) == digest(folded.messages)


@pytest.mark.parametrize("name", NAMES)
def test_projection_without_position_is_refolded(files: Files, name: str) -> None:
    files.execute("DELETE FROM positions WHERE projection = ?", (name,))
    assert files.load() == [name]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE positions SET hash = x'00' WHERE projection = 'messages'",
        "UPDATE positions SET seq = seq + 1000 WHERE projection = 'messages'",
        "UPDATE positions SET seq = 3 WHERE projection = 'messages'",
        "DROP TABLE messages",
        "ALTER TABLE messages DROP COLUMN failures",
        "UPDATE messages SET body = 7",
        "UPDATE messages SET body = CAST(x'ff' AS TEXT)",
        "UPDATE recent_messages SET id = CAST(id AS BLOB)",
    ],
)
def test_rows_of_another_log_or_shape_are_refolded(files: Files, statement: str) -> None:
    files.execute(statement)
    assert files.load() == ["messages"]
    assert files.load() == []


@pytest.mark.parametrize(
    "statement",
    ["UPDATE agents SET recipients = 5 WHERE name = 'a'", "UPDATE agents SET recipients = '[' WHERE name = 'a'"],
)
def test_damaged_nested_value_is_refolded(files: Files, statement: str) -> None:
    files.execute(statement)
    assert files.load() == ["agents"]


def test_projection_behind_the_others_catches_up(files: Files) -> None:
    hash_then = files.log.hash_at(5)
    files.execute("DELETE FROM operators")
    files.execute("UPDATE positions SET seq = 5, hash = ? WHERE projection = 'operators'", (hash_then,))
    assert files.load() == []


def test_replaced_log_refolds_everything(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    log = EventLog(other)
    append(log, EVERYTHING, NOW + 5)
    files.path.rename(other / storing.FILE_NAME)
    store, hive = Store(other), Hive()
    assert store.load(hive, log, Codec()) == NAMES
    assert digests(hive) == digests(fold(log.rows(1), Codec())[0])


def overwritten(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1_000)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def headless(path: Path) -> None:
    path.write_bytes(b"\0" * 4_096 + path.read_bytes()[4_096:])


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [overwritten, emptied, cut, headless, gone], ids=lambda one: one.__name__)
def test_damaged_file_is_discarded_and_refolded(files: Files, damage: Callable[[Path], None]) -> None:
    damage(files.path)
    assert set(files.load()) <= set(NAMES)
    assert files.load() == []


def test_state_is_restored_after_any_destroyed_page(files: Files) -> None:
    """A changed value in a valid row is not covered here; `hive projections check` finds it."""
    sound, dice = files.path.read_bytes(), random.Random(7)
    pages = len(sound) // 4_096
    for _ in range(DAMAGES):
        damaged = bytearray(sound)
        page = dice.randrange(pages)
        damaged[page * 4_096 : (page + 1) * 4_096] = dice.randbytes(4_096)
        files.path.write_bytes(bytes(damaged))
        files.load()
    assert files.load() == []


def test_digests_are_equal_only_for_equal_states(files: Files) -> None:
    folded, again = (fold(files.log.rows(1), Codec())[0] for _ in range(2))
    assert digests(folded) == digests(again)
    message = next(iter(again.messages.open))
    again.messages.open.drop(message.id)
    pairs = zip(NAMES, digests(folded), digests(again), strict=True)
    assert [name for name, one, other in pairs if one != other] == ["messages"]


def test_digest_ignores_row_order_in_memory(files: Files) -> None:
    folded, _ = fold(files.log.rows(1), Codec())
    before = digests(folded)
    for one in folded.projections():
        for table in one.tables():
            table.rows = dict(reversed(list(table.rows.items())))
    assert digests(folded) == before


def test_fold_up_to_a_position_is_the_state_there(files: Files) -> None:
    for seq in (0, 1, len(EVERYTHING) // 2, len(EVERYTHING)):
        hive, last = fold(files.log.rows(1, seq), Codec())
        assert hive.seq == seq
        assert last == files.log.hash_at(seq)
