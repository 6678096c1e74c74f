"""Budgets: from agent.toml to the pause and its notice to the operator."""

import json

import pytest

from .hive_process import HiveProcess

pytestmark = pytest.mark.system


def told(hive: HiveProcess) -> list[dict[str, object]]:
    rows = hive.ask("messages")["messages"]
    return [json.loads(row["body"]) for row in rows if row["from"] == "system"]


def test_used_up_budget_pauses_the_agent_until_it_is_resumed(
    hive: HiveProcess,
) -> None:
    hive.spawn("coder", paused=False)
    hive.configure("coder", "[limits]\nbudget_hours = 3\nbudget_tokens = 1000\n")
    hive.run("restart", "coder")
    with hive.agent("coder") as coder:
        coder.ask("turn_ended", result_kind="ok", input_tokens=600, output_tokens=399)
        assert coder.ask("whoami")["paused"] is False
        coder.ask("turn_ended", result_kind="ok", output_tokens=1)
        assert coder.ask("whoami")["paused"] is True
        assert coder.ask("recv", wait_seconds=0, max=1)["paused"] is True
    row = hive.row("coder")
    assert (row["state"], row["running"], row["paused"]) == ("paused", True, True)
    [notice] = [one for one in told(hive) if one["event"] == "budget_reached"]
    assert (notice["agent"], notice["turns"], notice["tokens"], notice["hours"]) == ("coder", 2, 1000, 3)
    assert notice["until"] == row["budget_until"]
    assert "budget" in hive.run("status")

    hive.kill()
    hive.up()
    assert hive.row("coder")["budget_until"] == row["budget_until"]

    hive.run("resume", "coder")
    with hive.agent("coder") as coder:
        coder.ask("turn_ended", result_kind="ok", output_tokens=1)
        assert coder.ask("whoami")["paused"] is False, "the operator's resume overrides the budget"
    assert "budget_until" not in hive.row("coder")
    hive.check_files()
