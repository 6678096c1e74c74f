"""The operator's controls: pause, model, compaction, session, login flow, live stream; and idle agents."""

import json
import sys

import pytest

from hive.scripted_model import Script, Step, call, rate_limited, say, unauthorized

from .conftest import Run
from .test_endings import CLI_TRIES, log_in

pytestmark = pytest.mark.system

SMALL_MB = 60


def test_paused_agent_receives_nothing_until_resumed(run: Run) -> None:
    run.start()
    run.peer.wait_for(lambda: run.peer.got("recv"))
    run.peer.pause(True)
    run.peer.wait_for(lambda: len(run.peer.got("next_control")) >= 2 and not run.peer.parked)
    id = run.peer.put("later")
    asked = len(run.peer.got("recv"))
    run.peer.control("cancel")
    run.peer.wait_for(lambda: run.peer.seen("notice"))
    assert (len(run.peer.got("recv")), run.peer.acked) == (asked, [])
    run.peer.pause(False)
    run.peer.ended()
    assert run.peer.acked == [id]


def test_agent_started_paused_runs_no_turn(run: Run) -> None:
    run.peer.pause(True)
    run.peer.put("later")
    run.start()
    run.peer.wait_for(lambda: run.peer.got("next_control"))
    assert run.peer.got("turn_started") == []
    run.peer.pause(False)
    run.peer.ended()
    assert run.peer.requeued == [], "a paused agent takes no messages"


def test_missed_resume_is_detected(run: Run) -> None:
    run.peer.pause(True)
    id = run.peer.put("later")
    run.start()
    run.peer.wait_for(lambda: run.peer.got("next_control"))
    run.peer.paused = False  # Without waking the parked next_control.
    run.peer.ended()
    assert run.peer.acked == [id]


def test_model_change_takes_effect_and_survives_restart(run: Run) -> None:
    (run.config / "agent.toml").write_text('model = "claude-haiku-4-5"')
    run.extra = {"HIVE_MODEL": "claude-opus-4-5"}
    run.start()
    run.peer.put("one")
    run.peer.ended()
    run.peer.control("model", "claude-sonnet-4-5")
    run.peer.wait_for(lambda: run.peer.seen("notice"))
    run.peer.put("two")
    run.peer.ended(2)
    assert run.stop() == 0
    run.start()
    run.peer.put("three")
    run.peer.ended(3)
    assert [request.body["model"] for request in run.model.turns(run.name)] == [
        "claude-haiku-4-5",
        "claude-sonnet-4-5",
        "claude-sonnet-4-5",
    ]
    assert run.peer.ended(3)[1]["model"] == "claude-sonnet-4-5"


def test_compact_and_new_session(run: Run) -> None:
    run.start([say("the word is walnut"), say("the word is acorn")])
    for count in (1, 2):
        run.peer.put(f"message {count}")
        run.peer.ended(count)
    run.peer.control("compact")
    run.peer.wait_for(lambda: [line for line in run.peer.seen("notice") if "was compacted" in line["text"]])
    run.peer.put("after")
    run.peer.ended(3)
    assert "in short: the scripted work" in json.dumps(run.model.turns(run.name)[-1].body["messages"])
    run.peer.control("new_session")
    run.peer.wait_for(lambda: [line for line in run.peer.seen("notice") if "new session" in line["text"]])
    run.peer.put("fresh")
    run.peer.ended(4)
    assert "in short" not in json.dumps(run.model.turns(run.name)[-1].body["messages"])


def test_turn_is_streamed_live(run: Run) -> None:
    run.start([call("Bash", command="seq 3", description="count"), say("counted")])
    run.peer.put("count")
    run.peer.wait_for(lambda: run.peer.seen("turn_ended"))
    types = [line["type"] for line in run.peer.lines]
    assert types == ["turn_started", "tool_call", "tool_result", "text", "turn_ended"]
    [called], [result], [ended] = (run.peer.seen(type) for type in ("tool_call", "tool_result", "turn_ended"))
    assert (called["tool"], json.loads(called["arguments"])["command"]) == ("Bash", "seq 3")
    assert (result["id"], result["text"], result["lines"]) == (called["id"], "1\n2\n3", 3)
    assert ended["result_kind"] == "ok"
    assert ended["output_tokens"] > 0
    assert all(line["at"].endswith("Z") for line in run.peer.lines)


def test_idle_agent_frees_memory_and_resumes(run: Run) -> None:
    run.start([say("I shall remember walnut")], idle_minutes=0.02)
    run.peer.put("remember")
    run.peer.ended()
    pid = run.pid
    run.eventually(lambda: run.log.read_bytes().count(b"harness.started") == 2)
    run.eventually(lambda: not run.cli_pids() and run.rss_mb() < SMALL_MB)
    run.peer.put("what was it?")
    run.peer.ended(2)
    assert run.pid == pid
    assert run.process is not None
    assert run.process.poll() is None
    assert "walnut" in json.dumps(run.model.turns(run.name)[-1].body["messages"])
    assert len({hello["incarnation"] for hello in run.peer.got("hello")}) == 1


def is_small(run: Run) -> bool:
    """The harness has executed itself again: same process, same incarnation."""
    again = run.log.read_bytes().count(b"harness.started") > 1
    return again and not run.cli_pids() and run.rss_mb() < SMALL_MB


def test_paused_agent_frees_memory(run: Run) -> None:
    """A harness that may rest for days must be small."""
    run.start(idle_minutes=0.05)
    run.peer.put("one")
    run.peer.ended()
    run.peer.pause(True)
    run.eventually(lambda: is_small(run))
    id = run.peer.put("two")
    run.peer.pause(False)
    run.peer.ended(2)
    assert run.peer.acked[-1] == id
    assert run.peer.requeued == []


def test_agent_with_refused_login_frees_memory_and_remembers_refusal(run: Run) -> None:
    run.start(Script(steps=(Step(answer=unauthorized(), times=CLI_TRIES), Step(answer=say("well again")))))
    id = run.peer.put("one")
    run.peer.ended()
    run.eventually(lambda: is_small(run))
    run.peer.wait_for(lambda: [one for one in run.peer.got("login") if one["logged_in"] is False])
    requests = len(run.model.requests)
    run.peer.control("login_code", "nobody asked")
    run.peer.wait_for(lambda: run.peer.seen("login_result"))
    assert len(run.model.requests) == requests, "the refused key is not tried again"
    assert run.peer.requeued == [([id], "needs_login")]
    log_in(run)
    run.peer.ended(2)
    assert run.peer.acked == [id]
    assert len({hello["incarnation"] for hello in run.peer.got("hello")}) == 1


def test_rate_limited_agent_frees_memory_and_keeps_badge(run: Run) -> None:
    run.start([rate_limited(for_s=86_400), say("well again")], idle_minutes=0.02)
    id = run.peer.put("one")
    run.peer.ended()
    run.eventually(lambda: is_small(run))
    run.peer.control("login_code", "nobody asked")
    run.peer.wait_for(lambda: run.peer.seen("login_result"))
    told = [one["until"] for one in run.peer.got("rate_limited")]
    assert told[0] is None
    assert len(told) == 2
    assert told[1] is not None, "the badge survives the exec"
    assert run.peer.requeued == [([id], "rate_limited")]
    run.peer.control("model", "claude-haiku-4-5")
    run.peer.ended(2)
    assert run.peer.acked == [id], "another model may have no limit"


def test_control_with_lost_reply_is_executed_once(run: Run) -> None:
    run.start()
    run.peer.wait_for(lambda: run.peer.got("next_control"))
    run.peer.lose_control_replies = 1
    run.peer.control("model", "claude-haiku-4-5")
    run.peer.wait_for(lambda: run.peer.seen("notice"))
    run.peer.lose_control_replies = 1
    run.peer.control("model", "claude-sonnet-4-5")
    run.peer.wait_for(lambda: not run.peer.controls)
    run.peer.put("one")
    run.peer.wait_for(lambda: run.peer.seen("turn_ended"))
    assert [line["text"] for line in run.peer.seen("notice")] == [
        "The model is now claude-haiku-4-5.",
        "The model is now claude-sonnet-4-5.",
    ]
    assert run.peer.lose_control_replies == 0


def test_login_flow_shows_url_and_accepts_code(run: Run) -> None:
    run.start(key=False)
    run.peer.wait_for(lambda: run.peer.got("login"))
    run.peer.control("login_start")
    run.peer.wait_for(lambda: run.peer.seen("login_url"))
    assert run.peer.seen("login_url")[0]["url"].startswith("https://")
    run.peer.control("login_code", "not#a-code")
    run.peer.wait_for(lambda: run.peer.seen("login_result"))
    [result] = run.peer.seen("login_result")
    assert result["ok"] is False
    assert result["text"]


def test_login_code_without_flow_is_refused(run: Run) -> None:
    run.start(key=False)
    run.peer.control("login_code", "abc")
    run.peer.wait_for(lambda: run.peer.seen("login_result"))


def test_agent_toml_takes_effect(run: Run) -> None:
    server = run.config / "server.py"
    server.write_text(MCP_SERVER)
    (run.config / "agent.toml").write_text(
        f"""
        allowed_tools = ["Read", "Bash(printenv *)"]
        environment.GREETING = "salut"
        [mcp_servers.extra]
        command = "{sys.executable}"
        args = ["{server}"]
        """
    )
    run.start(
        [
            call("Bash", command="printenv GREETING", description="d"),
            call("Bash", command="touch forbidden", description="d"),
            call("mcp__extra__add", a=2, b=3),
            say("done"),
        ]
    )
    run.peer.put("go")
    run.peer.wait_for(lambda: run.peer.seen("turn_ended"))
    results = [line["text"] for line in run.peer.seen("tool_result")]
    assert results[0] == "salut"
    assert "denied" in results[1]
    assert results[2] == "5"
    assert not (run.state / "forbidden").exists()
    names = {tool["name"] for tool in run.model.turns(run.name)[0].body["tools"]}
    assert {name for name in names if not name.startswith("mcp__hive__")} == {"Bash", "Read", "mcp__extra__add"}


def test_settings_in_agents_home_are_ignored(run: Run) -> None:
    home = run.state / ".claude"
    home.mkdir()
    hook = {"hooks": {"UserPromptSubmit": [{"hooks": [{"type": "command", "command": f"touch {run.state}/hooked"}]}]}}
    for folder in (home, run.state):
        (folder / "settings.json").write_text(json.dumps(hook))
    (run.state / ".mcp.json").write_text(json.dumps({"mcpServers": {"sly": {"command": "true"}}}))
    (run.state / "CLAUDE.md").write_text("Sly instructions 4711")
    run.start()
    run.peer.put("go")
    run.peer.ended()
    assert not (run.state / "hooked").exists()
    assert "4711" not in json.dumps(run.model.turns(run.name)[0].body)


MCP_SERVER = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    if request["method"] == "initialize":
        result = {"protocolVersion": request["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "extra", "version": "1"}}
    elif request["method"] == "tools/list":
        schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
        result = {"tools": [{"name": "add", "description": "adds", "inputSchema": schema}]}
    elif request["method"] == "tools/call":
        arguments = request["params"]["arguments"]
        result = {"content": [{"type": "text", "text": str(arguments["a"] + arguments["b"])}]}
    else:
        result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"""
