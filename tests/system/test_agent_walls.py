"""Attacks from inside a sandboxed agent of a real hive are refused."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from missing_tool import missing_tool

import hive
from hive.runtimes.bubblewrap import BubblewrapRuntime
from hive.scripted_model import Answer, Conversation, ScriptedModel, call, say
from hive.sockets.agent_verbs import AGENT_VERBS
from hive.sockets.manager_verbs import MANAGER_VERBS
from hive.sockets.server import HOST_VERBS

from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system

USER = 65502
"""An unprivileged user without a name."""
PROBE = Path(__file__).with_name("probe.py")
FORGED = dict.fromkeys(
    ("from", "sender", "by", "name", "agent", "asker", "answerer", "operator", "session"), "operator"
)
OPERATORS_FIELDS = {"name": "writer", "id": 1, "scope": {"agent_names": ["writer"]}, "paused": True, "answer": "yes"}
MANAGERS_FIELDS = {"name": "manager", "agent": "ghost", "commit_ref": "main", "id": 999}


class Inside(msgspec.Struct, frozen=True):
    """A hive whose coder and manager have run the probe."""

    hive: HiveProcess
    targets: dict[str, Any]
    reports: dict[str, dict[str, Any]]
    """By agent."""

    def replies(self, agent: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Requests on the agent's own socket with their replies."""
        return list(zip(self.targets["requests"], self.reports[agent]["replies"], strict=True))


@pytest.fixture(scope="module", params=["root", "ordinary user"])
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root runs a hive as root")
    if why := BubblewrapRuntime().unavailable_reason():
        missing_tool(why)
    with tempfile.TemporaryDirectory(prefix="hive-user-") as home, ScriptedModel() as model:
        python, user = ordinary(Path(home)) if request.param == "ordinary user" else (sys.executable, None)
        one = HiveProcess(runtime="bubblewrap", model_url=model.url, python=python, user=user)
        try:
            yield probed(one.up(), model)
        finally:
            one.close()


def ordinary(home: Path) -> tuple[str, int | None]:
    """An interpreter with hive that an unprivileged user can run, and that user. Not root: this interpreter, None."""
    if os.geteuid() != 0:
        return sys.executable, None
    home.chmod(0o755)
    packages = [entry for entry in sys.path if Path(entry).name == "site-packages"]
    mine = str(home / "bin" / "python3")
    for python in (sys.executable, "/usr/bin/python3"):
        same = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}"
        if try_as_user(python, "-c", same) and try_as_root(python, "-m", "venv", "--clear", "--without-pip", str(home)):
            folders = "\n".join((str(Path(hive.__file__).parent.parent), *packages))
            (next(home.glob("lib/*/site-packages")) / "hive.pth").write_text(folders)
            if try_as_user(mine, "-c", "import hive.daemon, claude_agent_sdk"):
                return mine, USER
    missing_tool("no interpreter and packages that an ordinary user may read")
    raise AssertionError


def try_as_user(*command: str) -> bool:
    try:
        done = subprocess.run(
            command, user=USER, group=USER, extra_groups=[], cwd="/", check=False, capture_output=True
        )
    except OSError:
        return False
    return done.returncode == 0


def try_as_root(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def run_the_probe(conversation: Conversation) -> Answer | None:
    if conversation.results:
        return say("done")
    return call("Bash", command="python3 /state/probe.py /state/targets.json /state/report.json", description="look")


def probed(hive: HiveProcess, model: ScriptedModel) -> Inside:
    for name in ("coder", "manager"):
        model.play(name, run_the_probe)
    hive.ask("set_paused", name="manager", paused=True)
    hive.spawn("writer")
    hive.spawn("coder", paused=False)
    with hive.agent("writer") as lines:
        lines.ask("ask_operator", question="May I?")
        lines.ask("ask", to="manager", question="May I?")
    with hive.agent("manager") as lines:
        lines.ask("request_spawn", name="minion")
    secret = hive.folder / "secret"
    secret.write_text("only root may read this")
    secret.chmod(0o600)
    (hive.paths.agent_state("writer") / "diary").write_text("private")
    targets = attempts(hive, secret)
    reports = {}
    for name in ("coder", "manager"):
        state = hive.paths.agent_state(name)
        (state / "probe.py").write_text(PROBE.read_text())
        (state / "targets.json").write_text(json.dumps(targets))
        hive.ask("set_paused", name=name, paused=False)
        hive.ask("send", to=name, body="look around")
        report = state / "report.json"
        reports[name] = eventually(lambda report=report: written(report), f"{name} reports")
        hive.event("TurnEnded", agent=name)
    return Inside(hive, targets, reports)


def written(report: Path) -> Any:
    try:
        return json.loads(report.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def attempts(hive: HiveProcess, secret: Path) -> dict[str, Any]:
    """What the probe tries: paths of the host, also through links."""
    paths = hive.paths
    run = hive.running("writer")
    assert hive.daemon is not None
    assert run is not None
    files = [
        paths.events, paths.projections, paths.lock, secret, Path("/etc/shadow"), hive.output,
        paths.agent_state("writer") / "diary", paths.record("writer") / "run.json",
        paths.applied("writer") / ".git" / "HEAD",
    ]  # fmt: skip
    folders = [
        paths.state,
        paths.run,
        paths.run / "records",
        paths.agent_state("writer"),
        paths.agent("writer"),
        Path("/root"),
    ]
    ways = ["", "/proc/1/root", f"/proc/{run.pid}/root"]
    operators = sorted(set(HOST_VERBS) - set(MANAGER_VERBS))
    writers_message = hive.ask("send", to="writer", body="for the writer alone")["id"]
    return {
        "requests": [
            {"cmd": "send", "to": "writer", "body": "who am I?", **FORGED},
            {"cmd": "ask_operator", "question": "who asks?", **FORGED},
            {"cmd": "answer", "id": 1, "answer": "yes", **FORGED},
            {"cmd": "cancel_question", "id": 1, **FORGED},
            {"cmd": "ack", "ids": [writers_message], **FORGED},
            *({"cmd": cmd, **OPERATORS_FIELDS} for cmd in operators),
            *({"cmd": cmd, **MANAGERS_FIELDS} for cmd in sorted(set(MANAGER_VERBS) - set(AGENT_VERBS))),
        ],
        "sockets": [
            f"{way}{path}"
            for way in ways
            for path in (paths.host_socket, paths.agent_socket("writer"), paths.agent_socket("manager"))
        ],
        "files": [f"{way}{path}" for way in ways for path in files],
        "folders": [f"{way}{path}" for way in ways for path in folders],
        "pids": [hive.daemon.pid, os.getpid(), run.pid],
    }


AGENTS = pytest.mark.parametrize("agent", ["coder", "manager"])


@AGENTS
def test_agent_is_not_root_and_takes_a_real_turn(inside: Inside, agent: str) -> None:
    assert inside.reports[agent]["uid"] != 0
    ended = inside.hive.event("TurnEnded", agent=agent)
    assert (ended["result_kind"], ended["tool_calls_json"]) == ("ok", '{"Bash":1}')
    assert list(inside.hive.paths.agent_state(agent).rglob("*.jsonl")), "the CLI stores its transcript"


@AGENTS
def test_agent_cannot_forge_the_sender(inside: Inside, agent: str) -> None:
    sent, asked = (reply for _, reply in inside.replies(agent)[:2])
    assert sent["ok"]
    (message,) = inside.hive.events("MessageSent", id=sent["id"])
    assert (message["from"], message["by"]) == (agent, f"agent:{agent}")
    (question,) = inside.hive.events("QuestionAdded", id=asked["id"])
    assert (question["asker"], question["by"]) == (agent, f"agent:{agent}")


@AGENTS
def test_agent_cannot_answer_cancel_or_ack_for_others(inside: Inside, agent: str) -> None:
    for request, reply in inside.replies(agent)[2:5]:
        assert not reply["ok"], request
        assert reply["error"], request
    resolved = {row["id"] for row in inside.hive.events("QuestionResolved")}
    assert 1 not in resolved


@AGENTS
def test_agent_socket_has_no_operator_verbs(inside: Inside, agent: str) -> None:
    operators = set(HOST_VERBS) - set(MANAGER_VERBS)
    replies = {request["cmd"]: reply for request, reply in inside.replies(agent) if request["cmd"] in operators}
    assert replies.keys() == operators
    assert {"approve", "deny", "answer_question", "spawn", "destroy", "stop", "shutdown"} <= operators
    for cmd, reply in replies.items():
        assert not reply["ok"], cmd
        assert "unknown cmd" in reply["error"], (cmd, reply)
    hive = inside.hive
    assert [row["agent"] for row in hive.ask("pending")["approvals"]] == ["minion"], "its own request is pending"
    assert not hive.events("ApprovalResolved")


def test_agent_cannot_use_manager_verbs(inside: Inside) -> None:
    managers = set(MANAGER_VERBS) - set(AGENT_VERBS)
    replies = {request["cmd"]: reply for request, reply in inside.replies("coder") if request["cmd"] in managers}
    assert {"kill", "restart", "start", "update", "request_spawn"} <= replies.keys()
    for cmd, reply in replies.items():
        assert "unknown cmd" in reply["error"], (cmd, reply)


def test_manager_cannot_stop_or_start_itself(inside: Inside) -> None:
    replies = {request["cmd"]: reply for request, reply in inside.replies("manager") if request["cmd"] in MANAGER_VERBS}
    for cmd in ("start", "restart", "kill", "update"):
        assert "itself" in replies[cmd]["error"], replies[cmd]
    decided = inside.hive.events("ActDecided", "Killed", "Stopped", "Crashed")
    assert not decided, "no agent was stopped"


@AGENTS
def test_agent_reaches_only_its_own_socket(inside: Inside, agent: str) -> None:
    own = str(inside.hive.paths.agent_socket(agent))
    reached = [path for path, error in inside.reports[agent]["sockets"].items() if error is None and path != own]
    assert reached == []


@AGENTS
def test_agent_cannot_access_files_of_others(inside: Inside, agent: str) -> None:
    report = inside.reports[agent]
    assert [path for path, error in report["read"].items() if error is None] == []
    assert [path for path, error in report["written"].items() if error is None] == []
    listed = [path for path, error in report["listed"].items() if error is None]
    assert [path for path in listed if "/root" not in path.removeprefix("/proc/1")] == []
    assert not list(inside.hive.paths.state.rglob("left-by-the-agent"))


@AGENTS
def test_agent_sees_only_its_own_processes(inside: Inside, agent: str) -> None:
    report = inside.reports[agent]
    assert report["signalled"] == dict.fromkeys(report["signalled"], "ProcessLookupError")
    seen = [" ".join(words) for words in report["processes"].values()]
    assert len([line for line in seen if "hive.harness" in line]) == 1
    assert not [line for line in seen if "shim.py" in line or "hive up" in line or "pytest" in line]
    assert "init.py" in " ".join(report["processes"]["1"])
