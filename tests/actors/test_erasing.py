"""Erasing without a daemon: no file of the state holds the text afterwards, and a killed erasure is continued."""

import asyncio
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from audit import story

from hive.actors import erasing as actor
from hive.actors.erasing import erase_offline
from hive.actors.rebuilding import Rebuilding
from hive.audit import anchors, erasing
from hive.audit.chain import verify_log
from hive.audit.check import check
from hive.audit.reading import log_reader
from hive.audit.transfer import export, import_log
from hive.audit.why import explain
from hive.backup.writing import write_backup
from hive.clock import SystemClock
from hive.errors import BadRequest, CorruptState, NotFound
from hive.events import AnyEvent
from hive.events.agents import StatusSet
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId, QuestionId, ReminderId
from hive.events.codec import Codec
from hive.events.daemon import CommandKeyed
from hive.events.log import EventLog
from hive.events.messages import MessageSent
from hive.events.notices import ApprovalResolved as ApprovalTold
from hive.events.notices import OperatorAnswered, QuestionAsked, body
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.reminders import ReminderSet
from hive.events.turns import TurnEnded
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.projections.store import Store

SECRET = "sk-live-4242-secret"
BEGIN = len(story.EVENTS)
OPERATOR = "operator:mara uid=1000 way=host"


def message(id: int, text: str, sender: str = "operator", to: str = "coder") -> MessageSent:
    return MessageSent(id=MessageId(id), sender=sender, to=to, body=text)


QUESTION = f"May I use {SECRET}? And \u00fc?"
ANSWER = f"Use {SECRET} once."
EVENTS: list[tuple[str, AnyEvent]] = [
    (OPERATOR, message(20, f"The key is {SECRET}. " + "Long text. " * 3_000)),
    (OPERATOR, message(21, f"short {SECRET}")),
    (OPERATOR, message(22, f"short {SECRET}", to="manager")),  # As of a broadcast.
    (OPERATOR, CommandKeyed(key=f"{OPERATOR} {SECRET}", first_seq=BEGIN + 2, count=2)),
    ("agent:coder", message(23, "nothing secret here", "coder", "operator")),
    (
        "agent:coder",
        QuestionAdded(id=QuestionId(9), asker="coder", target="manager", question=QUESTION, options=("y", SECRET)),
    ),
    (
        "agent:coder",
        message(
            24,
            body(
                QuestionAsked(
                    id=QuestionId(9),
                    asker="coder",
                    question=QUESTION,
                    options=("y", SECRET),
                    multi=False,
                    deadline_at=None,
                )
            ),
            "system",
            "manager",
        ),
    ),
    (OPERATOR, QuestionResolved(id=QuestionId(9), asker="coder", target="manager", answer=ANSWER, answerer="operator")),
    (
        OPERATOR,
        message(
            25,
            body(OperatorAnswered(id=QuestionId(9), question=QUESTION, answer=ANSWER, answerer="operator")),
            "system",
        ),
    ),
    (
        "agent:manager",
        ApprovalRequested(id=ApprovalId(9), agent="x", kind="spawn", requester="manager", description=f"with {SECRET}"),
    ),
    (OPERATOR, ApprovalResolved(id=ApprovalId(9), agent="x", kind="spawn", status="denied", note=f"no {SECRET}!")),
    (
        OPERATOR,
        message(
            26,
            body(ApprovalTold(id=ApprovalId(9), agent="x", kind="spawn", status="denied", note=f"no {SECRET}!")),
            "system",
            "manager",
        ),
    ),
    ("agent:coder", StatusSet(agent="coder", text=f"using {SECRET}")),
    ("agent:coder", ReminderSet(id=ReminderId(9), agent="coder", message=f"rotate {SECRET}", due_ms=10**15)),
    ("agent:coder", TurnEnded(agent="coder", result_kind="failed", note=f"401 for {SECRET}")),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a stopped hive in which a key leaked into every kind of text."""
    state = tmp_path_factory.mktemp("leaked") / "state"
    story.write(state)
    log = EventLog(state)
    story.append(log, EVENTS)
    hive, store = Hive(), Store(state)
    store.load(hive, log, Codec())
    store.write(hive, log.head.hash)
    anchors.add(state / "anchors.jsonl", log.head, story.BEGIN_MS)
    store.close()
    log.close()
    return state


@pytest.fixture
def paths(written: Path, tmp_path: Path) -> Paths:
    shutil.copytree(written, tmp_path / "state")
    return Paths(tmp_path / "state", tmp_path / "run")


def erase(paths: Paths, subject: Any, name: str, why: str = "a key leaked", *, backups: bool = False) -> dict[str, Any]:
    return asyncio.run(erase_offline(paths, subject, name, why, backups=backups))


def holding(folder: Path, text: str = SECRET) -> list[str]:
    """Every file that holds the bytes of a text."""
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def check_files(paths: Paths) -> None:
    result = verify_log(paths, lambda _: None)
    assert result.ok, result
    assert all(one.state != "contradicts" for one in result.anchors)
    assert [row for row in check(paths, lambda _: None) if not row.is_sound] == []


def data_of(paths: Paths) -> str:
    with log_reader(paths) as reader:
        return "\n".join(row.data for row in reader.rows(1))


def test_everything_of_an_agent_and_its_peers_is_gone(paths: Paths) -> None:
    assert holding(paths.state)
    for agent in ("coder", "manager", "x"):
        erase(paths, "agent", agent)
    assert holding(paths.state) == []
    assert "Long text" not in data_of(paths)
    check_files(paths)


def test_erased_message_and_its_quotes_are_gone(paths: Paths) -> None:
    done = erase(paths, "message", "21")
    assert [row["seq"] for row in done["quotes"]] == [BEGIN + 3], "the same text to another agent"
    assert done["rows"] == 3, "two messages and the idempotency key of both"
    assert holding(paths.state, f"short {SECRET}") == []
    assert f"{OPERATOR} {SECRET}" not in data_of(paths)
    assert f"The key is {SECRET}" in data_of(paths), "another message stays"
    check_files(paths)


def test_verify_says_who_erased_what_and_why(paths: Paths) -> None:
    done = erase(paths, "message", "20")
    (erasure,) = verify_log(paths, lambda _: None).erasures
    assert (erasure.seq, erasure.rows, erasure.why) == (done["seq"], 1, "a key leaked")
    assert erasure.by.startswith("operator:")
    with log_reader(paths) as reader:
        types = [row.type for row in reader.rows(done["seq"])]
    assert types == ["Erased", "ErasureFinished"]


def test_question_is_erased_with_its_answer_and_notices(paths: Paths) -> None:
    erase(paths, "question", "9")
    assert holding(paths.state, QUESTION) == holding(paths.state, ANSWER) == []
    with log_reader(paths) as reader:
        rows = [row for row in explain(reader, "question", "9").rows if row.type == "MessageSent"]
    assert len(rows) == 2, "notices stay notices"
    check_files(paths)


def test_approval_is_erased_with_its_note_and_notice(paths: Paths) -> None:
    erase(paths, "approval", "9")
    assert holding(paths.state, f"with {SECRET}") == holding(paths.state, f"no {SECRET}!") == []
    check_files(paths)


def test_everything_older_is_erased(paths: Paths) -> None:
    done = erase(paths, "older_than", "2026-01-31T10:30:00+00:00")
    assert done["rows"] > len(EVENTS) - 2
    assert holding(paths.state) == []
    assert holding(paths.state, "write a parser") == []
    check_files(paths)
    with pytest.raises(NotFound):
        erase(paths, "older_than", "2020-01-01T00:00:00Z")


def test_second_erasure_leaves_no_copy_of_another_page(paths: Paths) -> None:
    """Rows keep their length, so SQLite moves nothing between pages."""
    log = EventLog(paths.state)
    texts = [f"text {number} {'filler ' * (number % 90)}{SECRET}-{number}." for number in range(300)]
    story.append(log, [(OPERATOR, message(100 + number, text)) for number, text in enumerate(texts)])
    log.close()
    for number in (*range(0, 300, 60), *range(1, 300, 60)):
        erase(paths, "message", str(100 + number))
        assert holding(paths.state, texts[number]) == []
        assert holding(paths.state, f"{SECRET}-{number}.") == []
    check_files(paths)


def test_erased_log_is_exported_and_imported_hash_for_hash(paths: Paths, tmp_path: Path) -> None:
    erase(paths, "agent", "coder")
    out, other = io.BytesIO(), Paths(tmp_path / "other", tmp_path)
    with log_reader(paths) as reader:
        head = export(reader, out, lambda _: None)
        rows = list(reader.rows(1))
    assert import_log(other, io.BytesIO(out.getvalue()), story.BEGIN_MS, lambda _: None) == head
    with log_reader(other) as reader:
        assert list(reader.rows(1)) == rows
    assert verify_log(other, lambda _: None).erasures == verify_log(paths, lambda _: None).erasures != ()


@pytest.mark.parametrize(
    ("subject", "name", "error"),
    [
        ("message", "999", NotFound),
        ("message", "x", BadRequest),
        ("question", "-1", BadRequest),
        ("approval", "77", NotFound),
        ("agent", "nobody", NotFound),
        ("older_than", "noon", BadRequest),
    ],
)
def test_unknown_subject_is_refused_and_nothing_changes(paths: Paths, subject: str, name: str, error: type) -> None:
    before = data_of(paths)
    with pytest.raises(error):
        erase(paths, subject, name)
    assert data_of(paths) == before


def test_erased_subject_is_not_erased_again(paths: Paths) -> None:
    erase(paths, "message", "20")
    with pytest.raises(NotFound, match="not erased"):
        erase(paths, "message", "20")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = '{}' WHERE seq = 21",
        "UPDATE events SET data = '{}', salt = NULL WHERE seq = 21",
        "UPDATE events SET by = 'x', salt = NULL WHERE seq = 21",
        "INSERT OR REPLACE INTO erased SELECT seq, content, 1 FROM erased",
        "UPDATE erased SET content = zeroblob(32)",
        "DELETE FROM erased",
    ],
)
def test_database_still_refuses_every_other_change(paths: Paths, statement: str) -> None:
    erase(paths, "message", "20")
    db = apsw.Connection(str(paths.events))
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        db.execute(statement)
    db.close()


def test_row_erased_without_an_event_does_not_verify(paths: Paths) -> None:
    done = erase(paths, "message", "20")
    db = apsw.Connection(str(paths.events))
    db.execute("INSERT INTO erased SELECT 3, zeroblob(32), ?", (done["seq"],))
    db.execute("UPDATE events SET data = '{}', salt = NULL WHERE seq = 3")
    db.close()
    assert verify_log(paths, lambda _: None).bad_seq == 3, "the kept hash is wrong"


def test_hidden_row_with_its_true_hash_does_not_verify(paths: Paths) -> None:
    done = erase(paths, "message", "20")
    db = apsw.Connection(str(paths.events))
    with log_reader(paths) as reader:
        row = next(reader.rows(3, 3))
    assert row.salt is not None
    content = erasing.content_hash(row.salt, row.data)
    db.execute("INSERT INTO erased VALUES (3, ?, ?)", (content, done["seq"]))
    db.execute("UPDATE events SET data = '{}', salt = NULL WHERE seq = 3")
    db.close()
    result = verify_log(paths, lambda _: None)
    assert (result.ok, result.bad_seq) == (False, 3)
    assert "no `Erased` event that names it" in (result.why or "")


def test_backups_are_named_or_replaced(paths: Paths, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    write_backup(paths, folder, SystemClock(), lambda _: None, keep=9)
    done = erase(paths, "message", "20")
    assert any(str(folder) in place for place in done["out_of_reach"])
    kept = {path.name for path in folder.rglob("*.json")}
    done = erase(paths, "message", "21", backups=True)
    assert not any(str(folder) in place for place in done["out_of_reach"])
    assert not kept & {path.name for path in folder.rglob("*.json")}, "the older backup is gone"
    paths.backups.write_bytes(paths.backups.read_bytes().replace(b"/backups", b"/away"))
    done = erase(paths, "message", "25", backups=True)
    assert any("/away: " in place for place in done["out_of_reach"])


def test_backups_of_what_was_erased_before_are_replaced(paths: Paths, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    write_backup(paths, folder, SystemClock(), lambda _: None, keep=9)
    kept = {path.name for path in folder.rglob("*.json")}
    erase(paths, "message", "20")
    with pytest.raises(NotFound):
        erase(paths, "message", "20")
    done = erase(paths, "message", "20", backups=True)
    assert done["rows"] == 0
    assert not kept & {path.name for path in folder.rglob("*.json")}
    with pytest.raises(NotFound):
        erase(paths, "message", "999", backups=True)
    check_files(paths)


def test_erasing_beside_a_daemon_is_refused(paths: Paths) -> None:
    from hive import lock

    with lock.held(paths.lock), pytest.raises(CorruptState, match="already runs"):
        erase(paths, "message", "20")


def steps() -> Iterator[tuple[Any, str]]:
    yield actor.Erasing, "_decide"
    yield erasing, "erase_row"
    yield erasing, "_empty_wal"
    yield erasing, "remove_leftovers"
    yield Rebuilding, "run_after_current"
    yield Rebuilding, "_start"
    yield actor, "FinishErasure"


def test_killed_erasure_is_continued_or_not_begun(written: Path, tmp_path: Path) -> None:
    """A forked process ends before its first, second, … step, until one completes."""
    number = 0
    while True:
        paths = Paths(tmp_path / str(number) / "state", tmp_path / "run")
        shutil.copytree(written, paths.state)
        child = os.fork()
        if child == 0:
            _exit_before_step(number)
            erase(paths, "question", "9")
            os._exit(0)
        completed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert verify_log(paths, lambda _: None).ok
        was_decided = "Erased" in {row["type"] for row in _types(paths)}
        erase(paths, "message", "23")  # Any later command or start first continues what was decided.
        assert bool(holding(paths.state, QUESTION)) != was_decided
        check_files(paths)
        if completed:
            break
        number += 1
    assert number > 8


def _types(paths: Paths) -> list[dict[str, str]]:
    with log_reader(paths) as reader:
        return [{"type": row.type} for row in reader.rows(1)]


def _exit_before_step(number: int) -> None:
    left = iter(range(number))

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def taking(*args: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os._exit(9)
            return step(*args, **options)

        return taking

    for owner, name in steps():
        setattr(owner, name, counted(getattr(owner, name)))
