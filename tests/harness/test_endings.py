"""Failed turns: which messages are requeued, with which reason, and how the harness continues."""

import json
import os
import signal
import threading

import pytest

from hive.clock import parse_rfc3339
from hive.scripted_model import (
    Answer,
    Conversation,
    Script,
    Step,
    call,
    dropped,
    hang,
    overloaded,
    prompt_too_long,
    rate_limited,
    say,
    server_error,
    unauthorized,
)

from .conftest import Run
from .peer import DEADLINE_S

pytestmark = pytest.mark.system

CLI_TRIES = 3
"""One request and the CLI's retries."""


def test_tool_error_reaches_model(run: Run) -> None:
    run.start([call("Read", file_path="/nonexistent"), Step(when="does not exist", answer=say("no such file"))])
    run.peer.put("read it")
    assert run.peer.ended()[0]["result_kind"] == "ok"


def test_overloaded_api_backs_off_and_continues(run: Run) -> None:
    run.start([*[overloaded()] * CLI_TRIES, say("now")])
    id = run.peer.put("go")
    first, second = run.peer.ended(2)
    assert (first["result_kind"], second["result_kind"]) == ("failed", "ok")
    assert "529" in first["note"]
    assert (first["input_tokens"], first["model"]) == (None, None)
    assert run.peer.requeued == [([id], "overloaded")]
    assert run.peer.acked == [id]


def test_api_error_and_lost_connection_do_not_count_as_failed_delivery(run: Run) -> None:
    run.start([*[server_error()] * CLI_TRIES, say("now"), dropped(), say("and now")])
    run.peer.put("go")
    run.peer.ended(2)
    run.peer.put("go on")
    assert run.peer.ended(3)[2]["result_kind"] == "ok"
    assert [reason for _, reason in run.peer.requeued] == ["overloaded"]


def test_unreachable_api_does_not_count_as_failed_delivery(run: Run) -> None:
    run.extra = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
    run.start()
    id = run.peer.put("go")
    assert run.peer.ended()[0]["result_kind"] == "failed"
    assert run.peer.requeued == [([id], "overloaded")]


def test_rate_limit_waits_with_badge_until_it_ends(run: Run) -> None:
    run.start([rate_limited(for_s=7), say("now")])
    id = run.peer.put("go")
    first, second = run.peer.ended(2)
    assert (first["result_kind"], second["result_kind"]) == ("failed", "ok")
    assert run.peer.requeued == [([id], "rate_limited")]
    badges = [one["until"] for one in run.peer.got("rate_limited")]
    assert badges[0] is None
    assert badges[2] is None
    assert parse_rfc3339(second["started_at"]) >= parse_rfc3339(badges[1])


def test_subscription_rate_limit_reports_its_end(run: Run) -> None:
    run.extra = {"CLAUDE_CODE_OAUTH_TOKEN": f"hive-dummy-{run.name}"}
    run.start([rate_limited(for_s=4), say("now")], key=False)
    run.peer.put("go")
    _, second = run.peer.ended(2)
    until = run.peer.got("rate_limited")[1]["until"]
    assert until.endswith(".000Z")
    assert parse_rfc3339(second["started_at"]) >= parse_rfc3339(until)


def test_refused_key_needs_login_and_continues_after_login(run: Run) -> None:
    run.start(Script(steps=(Step(answer=unauthorized(), times=CLI_TRIES), Step(answer=say("in")))))
    id = run.peer.put("go")
    run.peer.wait_for(lambda: [one for one in run.peer.got("login") if not one["logged_in"]])
    assert run.peer.requeued == [([id], "needs_login")]
    assert [one["logged_in"] for one in run.peer.got("login")] == [True, False]
    assert run.cli_pids() == []
    log_in(run)
    assert run.peer.ended(2)[1]["result_kind"] == "ok"
    assert [one["logged_in"] for one in run.peer.got("login")] == [True, False, True]
    assert run.peer.acked == [id]


def test_agent_without_login_rests_and_detects_login_at_once(run: Run) -> None:
    id = run.peer.put("go")
    run.start(key=False)
    run.peer.wait_for(lambda: run.peer.got("login"))
    assert run.peer.got("login")[0]["logged_in"] is False
    assert run.peer.got("recv") == []
    assert run.rss_mb() < 60
    log_in(run)
    assert run.peer.ended()[0]["result_kind"] == "ok"
    assert run.peer.acked == [id]


def test_prompt_too_long_is_compacted_once_and_retried(run: Run) -> None:
    run.start([say("first"), say("second"), prompt_too_long(), say("fits")])
    for count in (1, 2):
        run.peer.put(f"message {count}")
        run.peer.ended(count)
    run.peer.put("long one")
    assert run.peer.ended(3)[2]["result_kind"] == "ok"
    assert "compaction" in {request.kind for request in run.model.requests}
    assert run.peer.requeued == []


def test_prompt_that_stays_too_long_is_reported(run: Run) -> None:
    steps = (Step(answer=say("first")), Step(answer=prompt_too_long(), times=50))
    run.start(Script(steps=steps, compaction=prompt_too_long()))
    run.peer.put("message")
    run.peer.ended()
    id = run.peer.put("long one")
    row = run.peer.ended(2)[1]
    assert row["result_kind"] == "prompt_too_long"
    assert run.peer.requeued[0] == ([id], "failed")


def test_conversation_that_cannot_be_compacted_is_replaced(run: Run) -> None:
    def decide(conversation: Conversation) -> Answer | None:
        if "old times" in json.dumps(conversation.request["messages"]) and "go on" in conversation.latest:
            return prompt_too_long()
        return None

    run.start(Script(decide=decide, compaction=prompt_too_long()))
    run.peer.put("old times")
    run.peer.ended()
    id = run.peer.put("go on")
    assert [row["result_kind"] for row in run.peer.ended(4)[1:]] == ["prompt_too_long", "prompt_too_long", "ok"]
    assert run.peer.acked[-1] == id
    assert "this is a new one" in json.dumps(run.model.turns(run.name)[-1].body)


def test_killed_cli_is_replaced_and_message_redelivered(run: Run) -> None:
    run.start([say("warm"), hang(60), say("done")])
    run.peer.put("warm up")
    run.peer.ended()
    id = run.peer.put("go")
    run.eventually(lambda: len(run.model.turns(run.name)) == 2)
    [pid] = run.cli_pids()
    os.kill(pid, signal.SIGKILL)
    rows = run.peer.ended(3)
    assert (rows[1]["result_kind"], rows[2]["result_kind"]) == ("failed", "ok")
    assert run.peer.requeued == [([id], "failed")]
    assert "warm up" in json.dumps(run.model.turns(run.name)[-1].body["messages"]), "the session goes on"


def test_hanging_turn_ends_at_time_limit(run: Run) -> None:
    (run.config / "agent.toml").write_text("limits.turn_minutes = 0.05")
    run.start([hang(600), say("done")])
    id = run.peer.put("go")
    run.peer.wait_for(lambda: [row for row in run.peer.got("turn_ended") if row["result_kind"] == "ok"])
    assert run.peer.got("turn_ended")[0]["note"] == "The turn was cancelled: it took longer than 0.05 minutes."
    assert run.peer.acked == [id]
    assert run.peer.requeued[0] == ([id], "failed")


def test_cancelled_turn_redelivers_messages_with_note(run: Run) -> None:
    run.start([hang(600), say("done")])
    id = run.peer.put("go")
    run.eventually(lambda: run.model.turns(run.name))
    run.peer.control("cancel")
    rows = run.peer.ended(2)
    assert [row["note"] for row in rows] == ["The operator cancelled the turn.", None]
    assert run.peer.requeued == [([id], "cancelled")]
    assert "The operator cancelled the turn that had these" in json.dumps(run.model.turns(run.name)[-1].body)


def test_stopped_cli_is_killed_when_cancelled(run: Run) -> None:
    run.start([say("warm"), hang(600), say("done")])
    run.peer.put("warm up")
    run.peer.ended()
    run.peer.put("go")
    run.eventually(lambda: len(run.model.turns(run.name)) == 2)
    [pid] = run.cli_pids()
    os.kill(pid, signal.SIGSTOP)
    run.peer.control("cancel")
    rows = run.peer.ended(3)
    assert [row["result_kind"] for row in rows] == ["ok", "failed", "ok"]
    assert run.peer.requeued[0][1] == "cancelled"
    assert pid not in run.cli_pids()


def test_sigterm_during_turn_requeues_and_exits_zero(run: Run) -> None:
    run.start([hang(600)])
    id = run.peer.put("go")
    run.eventually(lambda: run.model.turns(run.name))
    assert run.stop() == 0
    assert run.peer.requeued == [([id], "stopping")]
    assert run.peer.ended()[0]["result_kind"] == "failed"


def test_sigterm_lets_short_turn_finish(run: Run) -> None:
    asked, told = threading.Event(), threading.Event()

    def decide(_: Conversation) -> Answer | None:
        asked.set()
        told.wait(DEADLINE_S)
        return say("done")

    run.start(decide)
    id = run.peer.put("go")
    assert asked.wait(DEADLINE_S)
    assert run.process is not None
    run.process.terminate()
    told.set()
    assert run.process.wait(DEADLINE_S) == 0
    assert run.peer.acked == [id]


def test_daemon_restart_loses_no_ack(run: Run) -> None:
    run.start([say("done", wait_s=1.0)])
    id = run.peer.put("go")
    run.eventually(lambda: run.model.turns(run.name))
    run.peer.down()
    run.eventually(lambda: b"turn_ended" in run.log.read_bytes())
    run.peer.up()
    run.peer.wait_for(lambda: run.peer.acked)
    assert run.peer.acked == [id]
    run.peer.put("still there?")
    run.peer.ended(2)


def test_tool_call_waits_for_restarting_daemon_and_reports_it(run: Run) -> None:
    run.start(
        [
            say("warm"),
            call("Bash", command="until [ -e go ]; do sleep 0.05; done", description="d"),
            call("send", to="manager", body="hello"),
            Step(when="daemon was away for .* s; the call was repeated and counts once", answer=say("ok")),
        ]
    )
    run.peer.put("warm up")
    run.peer.ended()
    run.peer.put("go")
    run.eventually(lambda: len(run.model.turns(run.name)) == 2)
    run.peer.down()
    (run.state / "go").touch()
    run.eventually(lambda: len(run.model.turns(run.name)) == 3)
    run.peer.up()
    run.peer.ended(2)
    assert run.model.steps_left(run.name) == 0
    assert len(run.peer.got("send")) == 1


def log_in(run: Run) -> None:
    """Write the file that a login creates."""
    folder = run.state / ".claude"
    folder.mkdir(exist_ok=True)
    token = {
        "claudeAiOauth": {
            "accessToken": f"hive-dummy-{run.name}",
            "refreshToken": "none",
            "expiresAt": 4102444800000,
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
        }
    }
    beside = folder / "new"
    beside.write_text(json.dumps(token))
    beside.rename(folder / ".credentials.json")
