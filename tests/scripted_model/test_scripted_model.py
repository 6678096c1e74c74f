"""The scripted model over HTTP: replies, streams, usage, every error, and which requests use up a script's steps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive.scripted_model import (
    Answer,
    Conversation,
    Reply,
    Script,
    ScriptedModel,
    Step,
    call,
    calls,
    dropped,
    hang,
    overloaded,
    prompt_too_long,
    rate_limited,
    say,
    server_error,
    unauthorized,
)

TOOLS = [{"name": "Bash"}, {"name": "mcp__hive__send"}]


def ask(model: ScriptedModel, *messages: Any, agent: str = "coder", **fields: Any) -> httpx.Response:
    body = {"model": "m", "max_tokens": 100, "tools": TOOLS, "messages": list(messages) or [user("hi")], **fields}
    return httpx.post(f"{model.url}/v1/messages?beta=true", json=body, headers={"x-api-key": f"hive-dummy-{agent}"})


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def result(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": text}]}


def test_each_agent_has_its_own_script_and_others_the_default() -> None:
    with ScriptedModel({"coder": [say("one"), say("two")]}) as model:
        assert ask(model).json()["content"] == [{"type": "text", "text": "one"}]
        assert ask(model, agent="other").json()["stop_reason"] == "end_turn"
        assert ask(model).json()["content"][0]["text"] == "two"
        assert ask(model).json()["content"][0]["text"] == "Nothing more to do for now."
        bearer = {"authorization": "Bearer hive-dummy-coder"}
        httpx.post(f"{model.url}/v1/messages", json={"tools": TOOLS, "messages": [user("x")]}, headers=bearer)
        assert [request.agent for request in model.requests] == ["coder", "other", "coder", "coder", "coder"]


def test_stream_equals_complete_message() -> None:
    answer = calls(("send", {"to": "x", "body": "ü" * 50}), ("Bash", {"command": "true"}), text="a long text " * 9)
    with ScriptedModel({"coder": [answer, answer]}) as model:
        whole = ask(model).json()
        events = [json.loads(line[6:]) for line in ask(model, stream=True).text.splitlines() if line[:6] == "data: "]
    text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    inputs = [
        json.loads(event["delta"]["partial_json"])
        for event in events
        if event["type"] == "content_block_delta" and "partial_json" in event["delta"]
    ]
    assert [text, *inputs] == [whole["content"][0]["text"], *(block["input"] for block in whole["content"][1:])]
    assert [block["name"] for block in whole["content"][1:]] == ["mcp__hive__send", "Bash"]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    assert events[-2]["delta"]["stop_reason"] == whole["stop_reason"] == "tool_use"


def test_step_waits_for_match_and_captures_values() -> None:
    steps = [Step(when=r'"id": (?P<question>\d+)', answer=call("answer", id="{question}", answer="q {question}"))]
    with ScriptedModel({"coder": steps}) as model:
        assert ask(model).json()["stop_reason"] == "end_turn"
        assert model.steps_left("coder") == 1
        reply = ask(model, user("x"), {"role": "assistant", "content": "y"}, result('{"id": 42}')).json()
        assert reply["content"][0]["input"] == {"id": 42, "answer": "q 42"}
        assert model.steps_left("coder") == 0


def test_script_may_be_a_function() -> None:
    def decide(conversation: Conversation) -> Answer | None:
        if conversation.results:
            return say(f"{conversation.results[0].text} after {conversation.step}")
        return call("send", to="x", body=conversation.latest)

    with ScriptedModel({"coder": decide}) as model:
        assert ask(model, user("hello")).json()["content"][0]["input"]["body"] == "hello"
        assert ask(model, user("hello"), result("sent")).json()["content"][0]["text"] == "sent after 1"


def test_side_requests_use_no_step() -> None:
    summing_up = user(
        "Your task is to create a detailed summary of the conversation so far. Wrap it in <summary> tags."
    )
    with ScriptedModel({"coder": Script(steps=(Step(answer=say("mine")),), compaction=prompt_too_long())}) as model:
        assert ask(model, tools=[]).status_code == 200
        assert ask(model, summing_up).status_code == 400
        assert httpx.post(f"{model.url}/v1/messages/count_tokens", json={"messages": []}).json()["input_tokens"] > 0
        assert ask(model).json()["content"][0]["text"] == "mine"
        assert [request.kind for request in model.requests] == ["side", "compaction", "turn"]


def test_usage_counts_repeated_prefix_as_cached() -> None:
    with ScriptedModel() as model:
        first = ask(model).json()["usage"]
        second = ask(model, user("hi"), {"role": "assistant", "content": "x"}, user("more " * 50)).json()["usage"]
    assert first["cache_read_input_tokens"] == 0
    assert second["cache_read_input_tokens"] == first["cache_creation_input_tokens"] + first["input_tokens"]
    assert second["cache_creation_input_tokens"] > 0
    assert second["output_tokens"] > 0


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (unauthorized(), 401, "authentication_error"),
        (rate_limited(for_s=30), 429, "rate_limit_error"),
        (overloaded(), 529, "overloaded_error"),
        (server_error(), 500, "api_error"),
        (prompt_too_long(), 400, "invalid_request_error"),
    ],
)
def test_errors_have_api_shape(answer: Answer, status: int, kind: str) -> None:
    with ScriptedModel({"coder": [answer]}) as model:
        reply = ask(model)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, kind)
    if status == 429:
        assert int(reply.headers["retry-after"]) == 30
        assert reply.headers["anthropic-ratelimit-unified-status"] == "rejected"


def test_connections_can_be_closed_and_answers_withheld() -> None:
    with ScriptedModel({"coder": [dropped(), hang(0.05)]}) as model:
        with pytest.raises(httpx.HTTPError):
            ask(model, stream=True)
        with pytest.raises(httpx.HTTPError):
            ask(model)
        assert ask(model).status_code == 200, "the server goes on"


def test_bad_requests_are_refused() -> None:
    with ScriptedModel() as model:
        assert httpx.post(f"{model.url}/v1/messages", content=b"{").status_code == 400
        assert httpx.post(f"{model.url}/v1/other", json={}).status_code == 404
        assert httpx.head(model.url).status_code == 200


def test_runs_as_its_own_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from hive.scripted_model import say\nscripts = {'coder': [say('from a file')]}\n")
    command = [sys.executable, "-m", "hive.scripted_model", "--script", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        headers = {"x-api-key": "hive-dummy-coder"}
        body = {"tools": TOOLS, "messages": [user("x")]}
        reply = httpx.post(f"{url}/v1/messages", json=body, headers=headers).json()
        recorded = httpx.get(f"{url}/requests").json()
        process.terminate()
    assert Reply(blocks=()).usage is None
    assert reply["content"][0]["text"] == "from a file"
    assert [(one["agent"], one["kind"], one["status"]) for one in recorded] == [("coder", "turn", 200)]
