"""What the projections keep, and their limits."""

import pytest
from deciders.check import MANAGED, NOW, folded, grow, sent, spawned

from hive.events.agents import AgentAdded, Crashed, Destroyed, Purged, Started, StatusSet, Stopped
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId
from hive.events.daemon import CommandKeyed
from hive.events.messages import MessageAcked, MessageDelivered
from hive.events.operators import OperatorAdded, OperatorRevoked
from hive.events.turns import TOOL_CALLS_MAX, TurnEnded, TurnStarted
from hive.projections import approvals, ids, messages, turns


def test_inbox_keeps_newest_rows_for_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "RECENT_KEPT", 5)
    hive = folded([*MANAGED, *(sent(number, "coder") for number in range(1, 11))])
    assert [row.id for row in hive.messages.newest("coder", 99)] == [6, 7, 8, 9, 10]
    assert [row.id for row in hive.messages.newest("coder", 2)] == [9, 10]
    assert hive.messages.newest("coder", 0) == []
    assert hive.messages.waiting_count("coder") == 10, "what waits is never dropped"


def test_recent_bodies_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "RECENT_KEPT_BYTES", 10)
    hive = folded([*MANAGED, sent(1, "coder", "12345"), sent(2, "coder", "12345"), sent(3, "coder", "1")])
    assert [row.id for row in hive.messages.newest("coder", 99)] == [2, 3]
    grow(hive, sent(4, "coder", "x" * 50))
    assert [row.id for row in hive.messages.newest("coder", 99)] == [4]


def test_acked_message_leaves_inbox() -> None:
    given = MessageDelivered(id=MessageId(1), to="coder", incarnation="one")
    hive = folded([*MANAGED, sent(1, "coder", "12345"), given, MessageAcked(id=MessageId(1), to="coder")])
    assert len(hive.messages.open) == 0
    assert hive.messages.backlog("coder") == (0, 0)


def test_operator_message_is_never_waiting() -> None:
    hive = folded([*MANAGED, sent(1, "operator", sender="coder")])
    assert len(hive.messages.open) == 0
    assert [row.id for row in hive.messages.newest("operator", 9)] == [1]


def test_oldest_idempotency_keys_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "KEYS_KEPT", 3)
    hive = folded([CommandKeyed(key=f"k{number}", first_seq=number, count=1) for number in range(5)])
    assert [row.key for row in hive.ids.keys] == ["k2", "k3", "k4"]
    hive.ids.restored()
    assert [row.key for row in hive.ids.keys] == ["k2", "k3", "k4"]


def test_approval_history_is_bounded_and_pending_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "OVER_KEPT", 2)
    hive = folded(MANAGED)
    for number in range(1, 6):
        id = ApprovalId(number)
        grow(hive, ApprovalRequested(id=id, agent="coder", kind="apply_commit", requester="manager"))
        if number > 1:
            grow(hive, ApprovalResolved(id=id, agent="coder", kind="apply_commit", status="denied"))
    assert [row.id for row in hive.approvals.over()] == [4, 5]
    assert [row.id for row in hive.approvals.pending()] == [1]


def turn(agent: str = "coder", **fields: object) -> TurnEnded:
    return TurnEnded(agent=agent, **{"result_kind": "ok", **fields})  # type: ignore[arg-type]


def test_turns_are_summed_by_hour_and_unknown_adds_nothing() -> None:
    hive = folded(MANAGED)
    grow(hive, turn(duration_ms=10, input_tokens=5, tool_call_count=3, tool_calls_json='{"Read":2,"Bash":1}'))
    grow(hive, turn(result_kind="failed", tool_calls_json='{"Read":1}'))
    grow(hive, turn(tool_calls_json="not json"), NOW + turns.HOUR_MS)
    first, second = sorted(hive.turns.hours, key=lambda row: row.hour)
    assert (first.turns, first.failed, first.duration_ms, first.input_tokens, first.output_tokens) == (2, 1, 10, 5, 0)
    assert first.tools == {"Read": 3, "Bash": 1}
    assert (second.turns, second.tools) == (1, {})


@pytest.mark.parametrize(
    "calls", ["", "[]", "not json", '{"Read":-1}', '{"Read":1.5}', f'{{"Read":{TOOL_CALLS_MAX + 1}}}']
)
def test_invalid_tool_counts_count_as_none(calls: str) -> None:
    hive = folded([*MANAGED, turn(tool_calls_json=f'{{"Read":{TOOL_CALLS_MAX}}}'), turn(tool_calls_json=calls)])
    (hour,) = hive.turns.hours
    assert (hour.turns, hour.tools) == (2, {"Read": TOOL_CALLS_MAX})


def test_old_hours_and_turns_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "HOURS_KEPT", 2)
    monkeypatch.setattr(turns, "RECENT_KEPT", 2)
    hive = folded(MANAGED)
    for number in range(5):
        grow(hive, turn(note=str(number)), NOW + number * turns.HOUR_MS)
    assert len(hive.turns.hours) == 2
    assert [row.report.note for row in hive.turns.of("coder")] == ["3", "4"]


@pytest.mark.parametrize(
    "end",
    [
        TurnEnded(agent="coder"),
        Stopped(agent="coder", exit="-"),
        Started(agent="coder", incarnation="two", reason="restart"),
        Crashed(agent="coder", incarnation="coder-1", reason="-"),
        Destroyed(agent="coder"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_turn_is_current_until_it_or_its_container_ends(end: TurnEnded) -> None:
    hive = folded([*MANAGED, TurnStarted(agent="coder", model="claude-x")])
    assert hive.turns.current["coder"].since_ms == NOW
    assert hive.agents.all["coder"].active_model == "claude-x"
    grow(hive, end)
    assert "coder" not in hive.turns.current.rows


def test_revoked_token_has_no_holder() -> None:
    hive = folded([OperatorAdded(name="mara", token_hash="h")])
    holder = hive.operators.holder("h")
    assert holder is not None
    assert holder.name == "mara"
    assert hive.operators.holder("other") is None
    grow(hive, OperatorRevoked(name="mara"))
    assert hive.operators.holder("h") is None


def test_purged_agent_leaves_no_rows() -> None:
    hive = folded([*MANAGED, *spawned("gone", 9), StatusSet(agent="gone", text="x"), sent(1, "gone")])
    for event in (Destroyed(agent="gone"), Purged(agent="gone"), AgentAdded(agent="gone", slot=10)):
        grow(hive, event)
    row = hive.agents.all["gone"]
    assert (row.slot, row.status_text, row.spawned) == (10, None, False)
    assert hive.messages.newest("gone", 9) == []
