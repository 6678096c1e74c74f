"""The index finds what the log says, follows it, and is made again when it is lost, damaged or of another log."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from audit import story

from hive.events import AnyEvent
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId, QuestionId
from hive.events.log import EventLog
from hive.events.messages import MessageSent
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.paths import Paths
from hive.search.index import Hit, index

PATIENCE_S = 120.0
OPERATOR = "operator:mara uid=0 way=cli"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "state", tmp_path / "run")
    story.write(paths.state)
    append(
        paths,
        ("agent:coder", MessageSent(id=MessageId(10), sender="coder", to="tester", body="The Größe of the parser")),
        ("agent:coder", MessageSent(id=MessageId(11), sender="system", to="coder", body='{"event":"parser"}')),
        (
            "agent:coder",
            QuestionAdded(
                id=QuestionId(9), asker="coder", target="tester", question="Which?", options=("red", "mauve")
            ),
        ),
        (
            OPERATOR,
            QuestionResolved(id=QuestionId(9), asker="coder", target="tester", answer="mauve", answerer="operator"),
        ),
        (
            "agent:manager",
            ApprovalRequested(
                id=ApprovalId(9), agent="coder", kind="apply_commit", requester="manager", description="faster parser"
            ),
        ),
        (
            OPERATOR,
            ApprovalResolved(id=ApprovalId(9), agent="coder", kind="apply_commit", status="denied", note="not today"),
        ),
    )
    return paths


def append(paths: Paths, *entries: tuple[str, AnyEvent]) -> None:
    log = EventLog(paths.state)
    story.append(log, list(entries))
    log.close()


def find(paths: Paths, text: str, **filters: str | int) -> list[Hit]:
    with index(paths, lambda _: None) as opened:
        return opened.find(text, **filters)  # type: ignore[arg-type]


def found(paths: Paths, text: str, **filters: str | int) -> list[tuple[str, int]]:
    return [(hit.kind, hit.id) for hit in find(paths, text, **filters)]


def test_messages_questions_answers_and_notes_are_found_newest_first(paths: Paths) -> None:
    assert found(paths, "parser") == [("note", 9), ("message", 10), ("message", 2)]
    assert found(paths, "mauve") == [("answer", 9), ("question", 9)]
    assert found(paths, '"not today"') == [("note", 9)]
    assert found(paths, "today not") == [("note", 9)]
    assert found(paths, '"today not"') == []


def test_case_and_accents_do_not_matter(paths: Paths) -> None:
    assert found(paths, "GROSSE") == []
    assert found(paths, "grö*") == found(paths, "GROßE") == [("message", 10)]


def test_hits_are_filtered_and_bounded(paths: Paths) -> None:
    assert found(paths, "parser", agent="tester") == [("message", 10)]
    assert found(paths, "parser", kind="note") == [("note", 9)]
    assert found(paths, "parser", limit=1) == [("note", 9)]


def test_hit_says_who_said_it_to_whom_and_where(paths: Paths) -> None:
    (hit,) = find(paths, "today")
    assert (hit.sender, hit.to, hit.text) == ("operator", "coder", "not today")
    with index(paths, lambda _: None) as opened:
        assert opened._reader.hash_at(hit.seq) is not None


def test_notices_of_the_system_are_not_indexed(paths: Paths) -> None:
    assert found(paths, "event") == []


def test_index_follows_the_log(paths: Paths) -> None:
    assert found(paths, "later") == []
    append(paths, ("agent:coder", MessageSent(id=MessageId(12), sender="coder", to="operator", body="said later")))
    assert found(paths, "later") == [("message", 12)]


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_damaged_or_missing_index_is_made_again(paths: Paths, damage: bytes) -> None:
    before = found(paths, "parser")
    paths.search.write_bytes(damage)
    assert found(paths, "parser") == before
    paths.search.unlink()
    assert found(paths, "parser") == before


def test_index_of_another_log_is_made_again(paths: Paths, tmp_path: Path) -> None:
    found(paths, "parser")
    other = Paths(tmp_path / "other", tmp_path / "run")
    story.write(other.state, story.EVENTS[:12], begin_ms=story.BEGIN_MS + 1)
    other.search.write_bytes(paths.search.read_bytes())
    assert found(other, "parser") == [("message", 2)]
    assert found(other, "mauve") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes every folder")
def test_copy_that_cannot_be_written_is_searched(paths: Paths) -> None:
    paths.state.chmod(0o500)
    try:
        assert found(paths, "parser")
    finally:
        paths.state.chmod(0o700)


def test_command_prints_hits(paths: Paths) -> None:
    command = [sys.executable, "-m", "hive", "search", "--state", str(paths.state), "--run", str(paths.run)]

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    done = run("faster", "parser", "--json")
    assert done.returncode == 0, done.stderr
    assert [(hit["kind"], hit["id"], hit["from"], hit["to"]) for hit in json.loads(done.stdout)] == [
        ("note", 9, "manager", "coder")
    ]
    assert "note 9  manager → coder" in run("faster").stdout
    assert run("nowhere").stdout == "Nothing matches.\n"
    assert run("parser", "--kind", "nonsense").returncode == 1
