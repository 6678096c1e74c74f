"""A harness that reports no tokens: budget, statistics and cost follow what the broker metered."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hive.scripted_model import ScriptedModel, say

from .hive_process import HiveProcess, eventually
from .sandboxed_hive import sandboxed_hive

pytestmark = pytest.mark.system

PRICED = "claude-priced"


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as one:
        yield one


@pytest.fixture(scope="module")
def hive(model: ScriptedModel) -> Iterator[HiveProcess]:
    prices = f'[prices."{PRICED}"]\ninput = 1000.0\noutput = 1000.0\ncache_read = 0\ncache_write = 0\n'
    with sandboxed_hive({"hive.toml": prices}, model_url=model.url, paused=True) as one:
        yield one


class _Door(http.client.HTTPConnection):
    """A client of the agent's own socket to the broker."""

    def __init__(self, path: Path):
        super().__init__("broker", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def asked(hive: HiveProcess, model: ScriptedModel, name: str) -> tuple[int, Any]:
    """One request of the agent to a model, past its harness."""
    model.play("coder", [say("hello")])
    door = _Door(hive.paths.agent_net_socket("coder"))
    body = {"model": name, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    door.request("POST", "/model/anthropic/v1/messages", json.dumps(body), {"content-type": "application/json"})
    reply = door.getresponse()
    answer = json.loads(reply.read())
    door.close()
    return reply.status, answer


def used(hive: HiveProcess, name: str) -> dict[str, Any]:
    """What was metered, recorded at the end of a turn for which the harness reports nothing."""
    first = hive.head() + 1
    with hive.agent("coder") as lines:
        lines.ask("turn_started", model=name)
        lines.ask("turn_ended", model=name, result_kind="ok", input_tokens=0, output_tokens=0)
    return hive.event("ModelUsed", first=first, agent="coder", model=name)


def test_harness_that_reports_nothing_is_metered_and_priced(hive: HiveProcess, model: ScriptedModel) -> None:
    status, answer = asked(hive, model, PRICED)
    assert status == 200
    tokens = answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"]
    assert tokens > 0
    event = used(hive, PRICED)
    assert event["input_tokens"] + event["output_tokens"] == tokens

    [stats] = [row for row in hive.ask("stats", window="24h")["stats"]["agents"] if row["agent"] == "coder"]
    assert (stats["input_tokens"], stats["output_tokens"], stats["metered"]["requests"]) == (0, 0, 1)
    assert stats["metered"]["input_tokens"] + stats["metered"]["output_tokens"] == tokens
    assert stats["cost_usd"] == pytest.approx(tokens / 1000)
    row = hive.row("coder")
    assert (row["tokens_today"], row["reported_tokens_today"]) == (tokens, 0)
    assert row["cost_today"] == pytest.approx(tokens / 1000)
    buckets = hive.ask("turn_buckets", agent="coder", window="24h")["buckets"]
    sums = [sum(one[key] for one in buckets) for key in ("counted_tokens", "metered_tokens", "input_tokens")]
    assert sums == [tokens, tokens, 0]
    said = hive.run("stats")
    assert "the harness reported 0 in, 0 out" in said
    assert "$" in said


def test_use_of_a_model_without_a_price_has_no_cost(hive: HiveProcess, model: ScriptedModel) -> None:
    asked(hive, model, "claude-unpriced")
    used(hive, "claude-unpriced")
    assert "cost_today" not in hive.row("coder")
    assert "–" in hive.run("stats")


def test_budget_of_metered_use_pauses_and_refuses_the_model(hive: HiveProcess, model: ScriptedModel) -> None:
    hive.configure("coder", "[limits]\nbudget_hours = 1\nbudget_usd = 0.001\n")
    hive.run("restart", "coder")
    hive.ask("set_paused", name="coder", paused=False)
    status, answer = asked(hive, model, PRICED)
    eventually(lambda: hive.row("coder")["paused"], "the budget pauses the agent")
    assert hive.event("BudgetReached", agent="coder")["dollars"] >= 0.001

    def refused() -> bool:
        nonlocal status, answer
        status, answer = asked(hive, model, PRICED)
        return status == 400

    eventually(refused, "the broker refuses")
    assert answer["error"]["message"].startswith("hive: the budget of this agent is used up until ")
    hive.run("resume", "coder")
    eventually(lambda: asked(hive, model, PRICED)[0] == 200, "the operator's resume overrides the budget")
    hive.check_files()
