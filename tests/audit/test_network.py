"""The audit of network rules and metered use: explanations, replay and statistics."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.audit.figures import turn_figures
from hive.audit.reading import log_reader
from hive.audit.replay import state_at
from hive.audit.why import explain
from hive.clock import rfc3339
from hive.events import notices
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId
from hive.events.egress import EgressAllowed, EgressDenied, ModelUsed, PricesSet
from hive.events.log import LogReader
from hive.events.messages import MessageSent
from hive.events.turns import TurnEnded
from hive.paths import Paths
from hive.turn_columns import Price

from . import story

ONE, TWO = ApprovalId(1), ApprovalId(2)
EVENTS: list[story.Entry] = [
    (
        "agent:coder",
        ApprovalRequested(id=ONE, agent="coder", kind="egress", requester="coder", host="a.example", port=443),
    ),
    ("operator:mara", ApprovalResolved(id=ONE, agent="coder", kind="egress", status="approved")),
    (
        "operator:mara",
        MessageSent(
            id=MessageId(1),
            sender="system",
            to="coder",
            body=notices.body(
                notices.ApprovalResolved(id=ONE, agent="coder", kind="egress", status="approved", note=None)
            ),
        ),
    ),
    ("operator:mara", EgressAllowed(agent="coder", host="a.example", port=443, approval_id=ONE)),
    ("agent:coder", ApprovalRequested(id=TWO, agent="coder", kind="egress", requester="coder", host="b.example")),
    ("operator:mara", ApprovalResolved(id=TWO, agent="coder", kind="egress", status="denied")),
    ("operator:mara", EgressDenied(agent="coder", host="b.example", until_ms=story.BEGIN_MS * 2, approval_id=TWO)),
    ("actor:daemon", PricesSet(prices={"m": Price(input=10.0, output=100.0)})),
    ("actor:broker", ModelUsed(agent="coder", model="m", requests=2, input_tokens=1_000, output_tokens=100, errors=1)),
    ("agent:coder", TurnEnded(agent="coder", model="m", result_kind="ok", input_tokens=0, output_tokens=0)),
    ("actor:broker", ModelUsed(agent="tester", model="unpriced", requests=1, input_tokens=5)),
]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[LogReader]:
    story.write(tmp_path / "state", EVENTS)
    with log_reader(Paths(tmp_path / "state", tmp_path)) as reader:
        yield reader


def types(reader: LogReader, subject: str, name: str) -> list[str]:
    found = explain(reader, subject, name)  # type: ignore[arg-type]
    assert found.gaps == []
    return [row.type for row in found.rows]


def test_why_approval_of_a_host_includes_the_rule_and_the_notice(reader: LogReader) -> None:
    assert types(reader, "approval", "1") == ["ApprovalRequested", "ApprovalResolved", "MessageSent", "EgressAllowed"]
    assert types(reader, "approval", "2") == ["ApprovalRequested", "ApprovalResolved", "EgressDenied"]


def test_why_agent_includes_its_network_rules(reader: LogReader) -> None:
    assert [name for name in types(reader, "agent", "coder") if name.startswith("Egress")] == [
        "EgressAllowed",
        "EgressDenied",
    ]


def test_replay_has_the_rules_as_of_an_event(reader: LogReader) -> None:
    before, after = (state_at(reader, seq, lambda _: None) for seq in (3, 4))
    assert before.egress.listed() == []
    assert [str(rule.entry) for rule in after.egress.listed("coder")] == ["a.example:443"]


def test_figures_show_metered_and_reported_use_and_its_cost(reader: LogReader) -> None:
    coder, tester = turn_figures(reader, story.BEGIN_MS)
    assert coder.metered is not None
    assert (coder.input_tokens, coder.metered.input_tokens, coder.metered.errors) == (0, 1_000, 1)
    assert coder.cost_usd == pytest.approx(0.02)
    assert (tester.agent, tester.turns, tester.cost_usd) == ("tester", 0, None)
    assert [row.agent for row in turn_figures(reader, story.BEGIN_MS, "tester")] == ["tester"]


def test_figures_use_prices_from_before_the_window(reader: LogReader) -> None:
    (used,) = [row for row in reader.where("type = 'ModelUsed'") if '"m"' in row.data]
    since = next(row.at for row in reader.where("seq = ?", (used.seq,)))
    assert rfc3339(story.BEGIN_MS) < since
    coder, _ = turn_figures(reader, story.BEGIN_MS + (used.seq - 1) * 1_000)
    assert coder.cost_usd == pytest.approx(0.02)
