"""Kills during real turns of the CLI: unacked messages are delivered again, acked ones never."""

import contextlib
import json
import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from hive.scripted_model import Answer, Conversation, ScriptedModel, call, say

from .conftest import MakeHive, usable
from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system

GATE_S = 180.0
"""Time limit of a blocked turn. Only a defect takes this long."""


class Gate:
    """A script that calls one tool and then blocks inside the turn until the test opens the gate."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, conversation: Conversation) -> Answer | None:
        if not conversation.results:
            return call("Bash", command="true", description="work")
        self.reached.set()
        self.opened.wait(GATE_S)
        return say("done")

    def await_turn(self) -> None:
        assert self.reached.wait(GATE_S), "the turn did not get to its middle"


class TurnFixture:
    """A hive whose agent is inside a turn."""

    def __init__(self, hive: HiveProcess, model: ScriptedModel) -> None:
        self.hive, self.model = hive, model
        self.gate = Gate()
        model.play("coder", self.gate)
        hive.spawn("coder", paused=False)
        self.first = hive.head() + 1

    def begin(self, body: str) -> int:
        """Send a message and wait until the agent is inside the turn."""
        id: int = self.hive.ask("send", to="coder", body=body)["id"]
        self.gate.await_turn()
        return id

    def cli_pids(self) -> list[int]:
        """Pids of the agent's CLI processes."""
        status = self.hive.running("coder")
        assert status is not None
        return [pid for pid in children(status.pid) if b"claude" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def comes_again(self, id: int) -> None:
        """Check that the message is delivered again, marked `redelivered`, and acked once."""
        self.gate.opened.set()
        self.hive.event("MessageAcked", id=id)
        assert len(self.hive.events("MessageDelivered", id=id)) == 2
        assert len(self.hive.events("MessageAcked", id=id)) == 1
        prompts = [str(request.body["messages"]) for request in self.model.turns("coder")]
        assert any("redelivered" in prompt for prompt in prompts)

    def is_over(self, id: int, *, first: int) -> None:
        """Check that the acked message is not delivered again and that the agent takes more turns."""
        another = self.hive.ask("send", to="coder", body="another")["id"]
        self.hive.event("MessageAcked", id=another)
        assert id not in [row["id"] for row in self.hive.events("MessageDelivered", first=first)]


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@pytest.fixture
def turn(make_hive: MakeHive, model: ScriptedModel) -> TurnFixture:
    return TurnFixture(make_hive(model_url=model.url).up(), model)


@pytest.fixture(params=["bubblewrap", "nspawn", "nixos"])
def walled(make_hive: MakeHive, model: ScriptedModel, request: pytest.FixtureRequest) -> TurnFixture:
    return TurnFixture(make_hive(model_url=model.url, runtime=usable(request.param)).up(), model)


def kill_harness(turn: TurnFixture) -> None:
    status = turn.hive.running("coder")
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)


def kill_cli(turn: TurnFixture) -> None:
    pids = turn.cli_pids()
    assert pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_killed_harness_gets_its_message_again(turn: TurnFixture) -> None:
    hive = turn.hive
    id = turn.begin("first")
    kill_harness(turn)
    crashed = hive.event("Crashed", agent="coder")
    assert (crashed["reason"], crashed["signal"]) == ("signal 9 (SIGKILL)", 9)
    requeued = hive.event("MessageRequeued", id=id)
    assert (requeued["reason"], requeued["counts"]) == ("crashed", True)
    turn.comes_again(id)
    assert [row["reason"] for row in hive.events("Started", agent="coder")] == ["spawn", "crash"]
    first = hive.head() + 1
    kill_harness(turn)
    hive.event("Started", agent="coder", first=first)
    turn.is_over(id, first=first)
    hive.check_files()


def test_killed_cli_gets_its_message_again(turn: TurnFixture) -> None:
    id = turn.begin("first")
    before = turn.hive.running("coder")
    kill_cli(turn)
    assert turn.hive.event("MessageRequeued", id=id)["reason"] == "failed"
    turn.comes_again(id)
    assert turn.hive.running("coder") == before, "the harness survives its CLI"
    turn.hive.event("TurnEnded", agent="coder", result_kind="ok")
    kinds = [row["result_kind"] for row in turn.hive.events("TurnEnded", agent="coder")]
    assert kinds == ["failed", "ok"]
    first = turn.hive.head() + 1
    kill_cli(turn)
    turn.is_over(id, first=first)


def test_killed_container_gets_its_message_again(walled: TurnFixture) -> None:
    hive = walled.hive
    id = walled.begin("first")
    eventually(lambda: list(hive.paths.agent_state("coder").rglob("*.jsonl")), "the CLI writes its transcript")
    hive.ask("kill", name="coder")
    assert "counts" not in hive.event("MessageRequeued", id=id)
    assert hive.running("coder") is None
    hive.ask("start", scope={"agent_names": ["coder"]})
    walled.comes_again(id)
    (kicked,) = [row for row in hive.events("MessageSent", to="coder", from_="system") if "kicked" in row["body"]]
    hive.event("MessageAcked", id=kicked["id"])
    first = hive.head() + 1
    init = init_of(hive, "coder")
    os.kill(init, signal.SIGKILL)
    hive.event("Crashed", agent="coder", first=first)
    hive.event("Started", agent="coder", first=first)
    walled.is_over(id, first=first)
    ended = hive.event("TurnEnded", agent="coder", result_kind="ok")
    assert ended["input_tokens"] > 0
    assert ended["output_tokens"] > 0
    assert ended["tool_call_count"] >= 0


def init_of(hive: HiveProcess, name: str) -> int:
    """The container's init process."""
    run = json.loads((hive.paths.record(name) / "run.json").read_text())
    return int(run["root"])


@pytest.mark.parametrize("let_go", ["while the daemon is away", "after it came back"])
def test_turn_continues_while_the_daemon_is_killed(turn: TurnFixture, let_go: str) -> None:
    hive = turn.hive
    id = turn.begin("first")
    before = hive.running("coder")
    hive.kill()
    if let_go == "while the daemon is away":
        turn.gate.opened.set()
        eventually(lambda: turn_was_written_down(hive), "the turn ends without a daemon")
    hive.up()
    turn.gate.opened.set()
    hive.event("MessageAcked", id=id)
    ended = hive.event("TurnEnded", agent="coder")
    assert (ended["result_kind"], ended["tool_calls_json"]) == ("ok", '{"Bash":1}')
    assert len(hive.events("MessageDelivered", id=id)) == 1
    assert len(hive.events("TurnStarted", agent="coder")) == 1
    assert hive.running("coder") == before
    turn.is_over(id, first=hive.head() + 1)
    hive.check_files()


def turn_was_written_down(hive: HiveProcess) -> bool:
    """Whether the harness stored its row of the turn."""
    path = hive.paths.agent_state("coder") / "hive-turn-stats.sqlite"
    if not path.exists():
        return False
    # The file exists before its table, and the table before its row.
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.OperationalError):
        return bool(db.execute("SELECT count(*) FROM turn_stats").fetchone()[0])
    return False
