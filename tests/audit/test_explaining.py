"""Replay as of any point, and the events that explain a thing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.audit.figures import turn_figures
from hive.audit.reading import log_reader
from hive.audit.replay import as_data, position, state_at
from hive.audit.why import explain
from hive.errors import BadRequest, NotFound
from hive.events.log import LogReader
from hive.paths import Paths

from . import story

HEAD = len(story.EVENTS)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[LogReader]:
    story.write(tmp_path / "state")
    with log_reader(Paths(tmp_path / "state", tmp_path)) as reader:
        yield reader


@pytest.mark.parametrize(
    ("until", "seq"),
    [
        (None, HEAD),
        ("0", 0),
        ("7", 7),
        ("999999", HEAD),
        ("2026-01-31T09:30:00Z", 1),
        ("2026-01-31T09:30:04.999Z", 5),
        ("2026-01-31T11:30:05+02:00", 6),
        ("2026-01-31", None),
        ("2020-01-01T00:00:00Z", 0),
        ("2099-01-01T00:00:00Z", HEAD),
        ("yesterday", None),
        ("-3", None),
    ],
)
def test_positions(reader: LogReader, until: str | None, seq: int | None) -> None:
    if seq is not None:
        assert position(reader, until) == seq
        return
    with pytest.raises(BadRequest, match="position of an event"):
        position(reader, until)


def test_the_state_as_of_then(reader: LogReader) -> None:
    empty = state_at(reader, 0, lambda _: None)
    assert empty.agents.living() == []
    before = state_at(reader, 17, lambda _: None)
    assert [row.id for row in before.questions.pending()] == [1]
    assert before.agents.all["coder"].running
    after = state_at(reader, HEAD, lambda _: None)
    assert after.questions.pending() == []
    assert not after.agents.all["coder"].running
    data = as_data(after)
    assert [row["name"] for row in data["agents"]["agents"]] == ["coder", "manager"]


def told(reader: LogReader, subject: str, name: str) -> list[str]:
    rows = explain(reader, subject, name)  # type: ignore[arg-type]
    assert [row.seq for row in rows] == sorted({row.seq for row in rows})
    return [row.type for row in rows]


def test_why_an_agent(reader: LogReader) -> None:
    assert told(reader, "agent", "coder") == [
        "ApprovalRequested",
        "ApprovalResolved",
        "AgentAdded",
        "Started",
        "Spawned",
        "StatusSet",
        "Killed",
    ]


def test_why_a_message(reader: LogReader) -> None:
    assert told(reader, "message", "2") == [
        "MessageSent",
        "MessageDelivered",
        "TurnStarted",
        "TurnEnded",
        "MessageAcked",
    ]
    assert told(reader, "message", "3") == ["QuestionAdded", "QuestionResolved", "MessageSent"]


def test_why_a_question(reader: LogReader) -> None:
    assert told(reader, "question", "1") == ["QuestionAdded", "QuestionResolved", "MessageSent"]


def test_why_an_approval(reader: LogReader) -> None:
    assert told(reader, "approval", "1") == [
        "ApprovalRequested",
        "ApprovalResolved",
        "AgentAdded",
        "MessageSent",
        "Started",
        "Spawned",
    ]


@pytest.mark.parametrize(
    ("subject", "name"), [("message", "99"), ("agent", "ghost"), ("question", "x"), ("approval", "")]
)
def test_what_the_log_does_not_tell(reader: LogReader, subject: str, name: str) -> None:
    with pytest.raises(NotFound, match="says nothing"):
        told(reader, subject, name)


def test_figures_are_summed_and_the_unknown_is_none(reader: LogReader) -> None:
    (row,) = turn_figures(reader, story.BEGIN_MS)
    assert (row.agent, row.turns, row.ok, row.failed) == ("coder", 1, 1, 0)
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens) == (100, 20, None)
    assert row.tools == {"Read": 2, "Bash": 1}
    assert turn_figures(reader, story.BEGIN_MS, "manager") == []
    assert turn_figures(reader, story.BEGIN_MS + 3_600_000) == []
