"""One golden request and response for each verb of the host socket, run in order against one real daemon."""

import getpass
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from system.hive_process import HiveProcess

from hive.sockets.server import HOST_VERBS

pytestmark = pytest.mark.system

GOLDEN = Path(__file__).parent / "golden"
STORY = """
    spawn set_paused list agent_status request_spawn pending deny approve approvals stop send messages questions
    answer_question cancel_question agent_inbox live edit rollback diff config
    allow_egress deny_egress egress revoke_egress mount mounts unmount control
    logs start restart kill rebuild update_all destroy revive purge
    stats turn_buckets state events audit_events audit_state why search doctor operators login_link urls forge_status
    webhook_test webhook_status metrics figures erase archive_log rebuild_projections swarm move adopt
    subscribe_agent_status shutdown
"""
"""The verbs in order. Each response depends on the requests before it."""
VERBS = tuple(STORY.split())
TURN = {"model": "m", "wake_from": "operator", "result_kind": "ok", "duration_ms": 1_200, "input_tokens": 10,
        "output_tokens": 5, "tool_call_count": 1, "tool_calls_json": '{"Bash":1}'}  # fmt: skip
METRICS_TOKEN = "a-token-for-monitors"
VARIES = {
    "seq": "<position>",
    "head": "<position>",
    "hash": "<hash>",
    "token": "<token>",
    "hive_version": "<version>",
    "version": "<version>",
    "waiting": "<count>",
    "in_flight": "<count>",
    "queue": "<counts>",
    "approvals_oldest_seconds": "<age>",
    "facts": "<facts>",
    "hour": "<hour>",
    "index": "<index>",
    "first_ms": "<time>",
    "log_bytes": "<bytes>",
    "commit_seconds": "<histogram>",
    "deployed_sha": "<sha>",
    "limits": "<limits>",
    "text": "<text>",
    "out_of_reach": "<places>",
}
"""Keys that are only checked for presence; other tests check their values."""


class Hook(BaseHTTPRequestHandler):
    """Accepts every webhook delivery."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Scene:
    """The daemon, and the actions of others between the operator's requests."""

    def __init__(self, hive: HiveProcess):
        self.hive = hive
        self.project = hive.folder / "project"
        self.project.mkdir()

    def before(self, verb: str) -> None:
        match verb:
            case "agent_status":
                self.says("coder", "set_status", text="painting")
            case "approve":
                self.hive.ask("request_spawn", name="writer")
            case "approvals":
                self.hive.event("Spawned", agent="writer")
                self.hive.ask("set_paused", name="writer", paused=True)
            case "messages":
                self.says("coder", "send", to="operator", body="Shall I?")
            case "questions":
                self.says("coder", "ask_operator", question="Which?", options=["A", "B"], multi=True)
                self.says("coder", "ask", to="writer", question="And you?")
            case "diff":
                self.propose()
            case "live":
                self.says("writer", "live", lines=[{"type": "note", "says": "hello"}])
            case "purge":
                self.hive.ask("destroy", name="writer")
            case "stats":
                self.says("coder", "turn_started", model="m", wake_from="operator")
                self.says("coder", "turn_ended", **TURN)
            case "subscribe_agent_status":
                self.hive.ask("stop", scope={"agent_names": ["coder"]})
            case _:
                pass  # Needs no other client.

    def says(self, agent: str, cmd: str, /, **fields: Any) -> None:
        with self.hive.agent(agent) as lines:
            lines.ask(cmd, **fields)

    def propose(self) -> None:
        """The manager adds a file to the coder's configuration and requests its deploy."""
        folder = self.hive.paths.proposed("coder")
        (folder / "colours.md").write_text("Mauve.\n")
        git = ("git", "-c", "safe.directory=*", "-c", "user.name=m", "-c", "user.email=m@m", "-C", str(folder))
        subprocess.run([*git, "add", "colours.md"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", "mauve"], check=True)
        self.says("manager", "request_apply_commit", agent="coder", commit_ref="main", description="mauve")

    def play(self, verb: str) -> Any:
        """The normalized response, or a list of them for a stream."""
        self.before(verb)
        request = json.dumps(golden(verb)["request"]).replace("<project>", str(self.project))
        with self.hive.host() as lines:
            lines.socket.sendall(request.encode() + b"\n")
            first = whole(lines.reply(), self.hive)
            if verb != "subscribe_agent_status":
                return first
            self.hive.ask("set_paused", name="coder", paused=False)
            return [first, whole(lines.reply(), self.hive)]


def golden(verb: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{verb}.json").read_text())
    return found


def whole(response: dict[str, Any], hive: HiveProcess) -> dict[str, Any]:
    """Normalized, except for the protocol version."""
    return {**normalised(response, hive), "version": response["version"]}


def normalised(value: Any, hive: HiveProcess, key: str = "") -> Any:
    """Without values that differ between runs or hosts."""
    match value:
        case None | bool():
            return value
        case _ if key in VARIES:
            return VARIES[key]
        case [*lines] if key == "lines" and all(isinstance(line, str) for line in lines):
            return "<lines>"
        case dict():
            return {name: normalised(inner, hive, name) for name, inner in value.items()}
        case list():
            return [normalised(inner, hive) for inner in value]
        case str():
            return _without_places(value, hive)
        case _:
            return value


def _without_places(text: str, hive: HiveProcess) -> str:
    for found, shown in ((str(hive.folder), "<folder>"), (hive.url, "<dashboard>")):
        text = text.replace(found, shown)
    text = re.sub(rf"\b{getpass.getuser()}\b", "<user>", text).replace(f"uid={os.getuid()}", "uid=<uid>")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>", text)
    text = re.sub(r"(?<=/login#)[\w-]+", "<secret>", text)
    return re.sub(r"\b(?=[a-f]*\d)[0-9a-f]{7,64}\b", "<sha>", text)


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Any]]:
    """The responses of all verbs, run once."""
    with HTTPServer(("127.0.0.1", 0), Hook) as hook:
        thread = threading.Thread(target=hook.serve_forever)
        thread.start()
        hive = HiveProcess(dashboard=True)
        try:
            yield play(hive, f"http://127.0.0.1:{hook.server_port}/hive")
        finally:
            hive.close()
            hook.shutdown()
            thread.join()


def play(hive: HiveProcess, webhook: str) -> dict[str, Any]:
    hive.paths.state.mkdir(mode=0o700)
    token = hive.paths.state / "metrics.token"
    token.write_text(METRICS_TOKEN)
    token.chmod(0o600)
    settings = f'[dashboard]\nmetrics_token_file = "metrics.token"\n[webhook]\nurl = "{webhook}"\n'
    hive.paths.settings.write_text(settings)
    hive.up()
    hive.event("Started", agent="manager")
    hive.ask("set_paused", name="manager", paused=True)
    scene = Scene(hive)
    responses: dict[str, Any] = {}
    for verb in VERBS:
        responses[verb] = scene.play(verb)
    hive.await_end()
    return responses


def test_every_host_verb_has_a_golden_pair() -> None:
    assert sorted(VERBS) == sorted(HOST_VERBS) == sorted(path.stem for path in GOLDEN.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_verb_matches_its_golden_response(played: dict[str, Any], verb: str) -> None:
    assert played[verb] == golden(verb)["response"]
