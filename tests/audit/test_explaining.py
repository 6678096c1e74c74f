"""Replay up to any position, and the events that explain a subject."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.audit.figures import turn_figures
from hive.audit.reading import log_reader
from hive.audit.replay import as_data, position, state_at
from hive.audit.why import Explanation, explain
from hive.errors import BadRequest, NotFound
from hive.events.agents import Crashed
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId
from hive.events.log import LogReader
from hive.events.messages import MessageSent
from hive.events.turns import TurnEnded, TurnStarted
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
def test_position_accepts_seq_and_time(reader: LogReader, until: str | None, seq: int | None) -> None:
    if seq is not None:
        assert position(reader, until) == seq
        return
    with pytest.raises(BadRequest, match="position of an event"):
        position(reader, until)


def test_replay_returns_state_at_position(reader: LogReader) -> None:
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


def test_replay_filters_by_agent(reader: LogReader) -> None:
    data = as_data(state_at(reader, 16, lambda _: None), "coder")
    found = {table: rows for tables in data.values() for table, rows in tables.items() if rows}
    assert [row["name"] for row in found["agents"]] == ["coder"]
    assert [(row["sender"], row["to"]) for row in found["messages"]] == [("operator", "coder")]
    assert [row["asker"] for row in found["questions"]] == ["coder"]
    assert [row["agent"] for row in found["approvals"]] == ["coder"]
    assert set(found) == {
        "agents",
        "approvals",
        "messages",
        "questions",
        "recent_messages",
        "recent_turns",
        "turn_hours",
    }


def explained(reader: LogReader, subject: str, name: str) -> Explanation:
    found = explain(reader, subject, name)  # type: ignore[arg-type]
    assert [row.seq for row in found.rows] == sorted({row.seq for row in found.rows})
    return found


def told(reader: LogReader, subject: str, name: str) -> list[str]:
    found = explained(reader, subject, name)
    assert found.gaps == []
    return [row.type for row in found.rows]


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
    ("subject", "name"),
    [
        ("message", "99"),
        ("agent", "ghost"),
        ("question", "x"),
        ("approval", ""),
        ("message", str(2**63)),
        ("message", "9" * 5_000),
        ("message", "\u0663"),
        ("agent", "x' OR 1"),
    ],
)
def test_why_of_unknown_subject_is_not_found(reader: LogReader, subject: str, name: str) -> None:
    with pytest.raises(NotFound, match="Cannot tell: this log, up to event 20, says nothing"):
        told(reader, subject, name)


def sent(id: int, by: str, to: str, body: str, answers: int | None = None) -> story.Entry:
    reply = None if answers is None else MessageId(answers)
    return f"agent:{by}", MessageSent(id=MessageId(id), sender=by, to=to, body=body, in_reply_to=reply)


MORE: list[story.Entry] = [
    ("agent:manager", TurnStarted(agent="manager", wake_from="system", message_ids=(MessageId(1),))),
    sent(4, "manager", "coder", "go on", 2),
    ("agent:manager", TurnEnded(agent="manager", result_kind="ok")),
    sent(5, "manager", "coder", "and on", 77),
    ("actor:x", MessageSent(id=MessageId(6), sender="system", to="coder", body='{"event":"rebuilt","agent":"coder"}')),
    ("actor:agent", Crashed(agent="coder", incarnation="c1", reason="unknown")),
    ("agent:manager", ApprovalRequested(id=ApprovalId(2), agent="writer", kind="spawn", requester="manager")),
    ("operator:mara", ApprovalResolved(id=ApprovalId(2), agent="writer", kind="spawn", status="approved")),
]


@pytest.fixture
def longer(tmp_path: Path) -> Iterator[LogReader]:
    """The same with gaps."""
    story.write(tmp_path / "longer", [*story.EVENTS, *MORE])
    with log_reader(Paths(tmp_path / "longer", tmp_path)) as reader:
        yield reader


def test_why_message_includes_turn_and_original(longer: LogReader) -> None:
    assert [row.seq for row in explained(longer, "message", "4").rows] == [11, 21, 22]
    assert told(longer, "message", "4") == ["MessageSent", "TurnStarted", "MessageSent"]


@pytest.mark.parametrize(
    ("subject", "name", "types", "gaps"),
    [
        (
            "message",
            "5",
            ["MessageSent"],
            [
                "what it answers: the log holds no message 77.",
                "which turn it came from: manager sent it while none was under way.",
            ],
        ),
        (
            "message",
            "6",
            ["MessageSent"],
            ["why the system said it: no event before it is the one that it tells of."],
        ),
        (
            "approval",
            "2",
            ["ApprovalRequested", "ApprovalResolved"],
            ["whether it was carried out: up to event 28 the log holds no outcome."],
        ),
        (
            "agent",
            "coder",
            [
                "ApprovalRequested",
                "ApprovalResolved",
                "AgentAdded",
                "Started",
                "Spawned",
                "StatusSet",
                "Killed",
                "Crashed",
            ],
            ["how the run ended that event 26 found gone: nobody saw it."],
        ),
    ],
)
def test_why_reports_gaps(longer: LogReader, subject: str, name: str, types: list[str], gaps: list[str]) -> None:
    found = explained(longer, subject, name)
    assert [row.type for row in found.rows] == types
    assert found.gaps == gaps


def test_figures_are_summed_and_unknown_is_none(reader: LogReader) -> None:
    (row,) = turn_figures(reader, story.BEGIN_MS)
    assert (row.agent, row.turns, row.ok, row.failed) == ("coder", 1, 1, 0)
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens) == (100, 20, None)
    assert row.tools == {"Read": 2, "Bash": 1}
    assert turn_figures(reader, story.BEGIN_MS, "manager") == []
    assert turn_figures(reader, story.BEGIN_MS + 3_600_000) == []
