"""Model requests: whose key goes out, what is metered, what is refused, and that no key comes back."""

import json
from pathlib import Path

import pytest

from hive.actors.file_watch import FileWatch
from hive.broker import wire
from hive.broker.metering import Meter, Redactor
from hive.broker.wire import Provider, Used
from hive.scripted_model import ScriptedModel
from hive.scripted_model.answers import Reply, Text, Usage, server_error

from .lab import KEY, BrokerLab, Client, Handler, Web, anthropic, eventually, exchange, get

BODY = {
    "model": "claude-test",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hello"}],
    "tools": [{"name": "Bash"}],
}


def post(path, target, body=BODY, *headers: str) -> bytes:
    raw = json.dumps(body).encode()
    lines = "".join(f"{line}\r\n" for line in ("Host: x", "Connection: close", f"Content-Length: {len(raw)}", *headers))
    return exchange(path, f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode() + raw)


def test_identity_of_the_agent_is_dropped_and_the_operators_key_added(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("keyed", mode="none", providers=(anthropic(f"{web.url}/base"),))
    said = post(
        path,
        "/model/anthropic/v1/messages?beta=true",
        BODY,
        "x-api-key: mine",
        "Authorization: Bearer mine",
        "anthropic-organization-id: theirs",
        "Cookie: a=b",
        "anthropic-version: 2023-06-01",
        "Connection: x-api-key",
    )
    assert said.endswith(b"POST /base/v1/messages?beta=true")
    ((_, headers, body),) = web.seen
    assert headers["x-api-key"] == KEY
    assert json.loads(body) == BODY
    assert headers["anthropic-version"] == "2023-06-01"
    assert not {"authorization", "anthropic-organization-id", "cookie"} & set(headers)


def test_new_key_is_used_for_the_next_request_of_an_open_connection(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("rotates", providers=(anthropic(web.url),))
    raw = json.dumps(BODY).encode()
    request = b"POST /model/anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw)
    with Client(path) as client:
        for key in (KEY, "sk-ant-new"):
            lab.policy("rotates", providers=(anthropic(web.url, key),), refusal=None)
            eventually(lambda: _knows(lab, web, path, key), "the key")  # noqa: B023
            client.send(request).head()
            client.socket.recv(65536)
            assert web.seen[-1][1]["x-api-key"] == key


def _knows(lab: BrokerLab, web: Web, path, key: str) -> bool:
    get(path, "/model/anthropic/v1/models")
    return web.seen[-1][1]["x-api-key"] == key


def test_request_after_a_change_of_a_file_waits_for_the_new_policy(lab: BrokerLab, web: Web, tmp_path: Path) -> None:
    path = lab.agent("waits", providers=(anthropic(web.url, "sk-ant-old"),))
    files = FileWatch()
    files.add([tmp_path])
    wire.send(lab.channel, wire.Watch(names=("the.key",)), files)
    (tmp_path / "other").write_text("x")
    get(path, "/model/anthropic/v1/models")
    assert lab.changes() == [], "other files do not count"
    (tmp_path / "the.key").write_text("sk-ant-new")
    with Client(path) as client:
        client.send(b"GET /model/anthropic/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        eventually(lambda: 1 in lab.changes(), "the broker reports the change")
        lab.policy("waits", providers=(anthropic(web.url, "sk-ant-new"),))
        wire.send(lab.channel, wire.Settled(number=1_000))
        assert b"GET /v1/models" in client.all()
    assert [headers["x-api-key"] for _, headers, _ in web.seen] == ["sk-ant-old", "sk-ant-new"]
    files.close()


def test_agents_own_login_passes_where_the_operator_has_no_key(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("subscribed", providers=(anthropic(web.url, None),))
    post(path, "/model/anthropic/v1/messages", BODY, "Authorization: Bearer own-login", "x-api-key: dummy")
    assert web.seen[0][1]["authorization"] == "Bearer own-login"
    assert "x-api-key" not in web.seen[0][1]


def test_only_metered_and_free_paths_are_offered_with_the_operators_key(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("paths", providers=(anthropic(web.url),))
    for target in (
        "v1/files",
        "v1/messages/batches",
        "v1/organizations/api_keys",
        "v1/messages/../files",
        "v1//messages",
    ):
        assert b"is not offered" in post(path, f"/model/anthropic/{target}"), target
    assert b"no model provider" in post(path, "/model/other/v1/messages")
    assert web.seen == []
    assert b"GET /v1/models" in get(path, "/model/anthropic/v1/models")
    assert lab.used("paths") == []


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_usage_is_metered_outside(lab: BrokerLab, stream: bool) -> None:
    usage = Usage(input_tokens=10, output_tokens=20, cache_read_input_tokens=30, cache_creation_input_tokens=40)
    with ScriptedModel({"coder": [Reply(blocks=(Text(text="hello"),), usage=usage)]}) as model:
        name = f"metered-{stream}"
        path = lab.agent(name, providers=(anthropic(model.url, "hive-dummy-coder"),))
        assert b"hello" in post(path, "/model/anthropic/v1/messages", {**BODY, "stream": stream})
    (used,) = eventually(lambda: lab.used(name), "the use is reported")
    expected = Used(
        agent=name,
        model=used.model,
        input_tokens=10,
        output_tokens=20,
        cache_read_tokens=30,
        cache_creation_tokens=40,
    )
    assert used == expected
    assert used.model.startswith("claude")


def test_error_of_the_api_is_counted_with_the_model_asked_for(lab: BrokerLab) -> None:
    with ScriptedModel({"coder": [server_error()]}) as model:
        path = lab.agent("errors", providers=(anthropic(model.url, "hive-dummy-coder"),))
        assert b" 500 " in post(path, "/model/anthropic/v1/messages")
    assert eventually(lambda: lab.used("errors"), "the error") == [Used(agent="errors", model="claude-test", errors=1)]


def test_cut_stream_is_metered_by_what_passed() -> None:
    meter = Meter("anthropic", streamed=True, asked_model=None, asked_bytes=400)
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 100}}
    for event in (start, delta, delta):
        meter.feed(f"event: x\ndata: {json.dumps(event)}\n\n".encode())
    used = meter.used("a")
    assert (used.model, used.input_tokens) == ("m", 7)
    assert 200 <= used.output_tokens <= 300


def test_openai_usage_splits_cached_input() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 60}}
    meter = Meter("openai", streamed=False, asked_model=None, asked_bytes=0)
    meter.feed(json.dumps({"model": "gpt", "choices": [], "usage": usage}).encode())
    expected = Used(agent="a", model="gpt", input_tokens=40, output_tokens=9, cache_read_tokens=60)
    assert meter.used("a") == expected
    streamed = Meter("openai", streamed=True, asked_model="gpt", asked_bytes=0)
    response = {
        "model": "gpt",
        "usage": {"input_tokens": 5, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 1}},
    }
    streamed.feed(b"data: " + json.dumps({"type": "response.completed", "response": response}).encode() + b"\n\n")
    assert streamed.used("a") == Used(agent="a", model="gpt", input_tokens=4, output_tokens=6, cache_read_tokens=1)


def test_budget_refusal_has_the_providers_error_shape(lab: BrokerLab, web: Web) -> None:
    openai = Provider(name="openai", url=web.url, shape="openai", key=KEY)
    path = lab.agent("spent", providers=(anthropic(web.url), openai), refusal="hive: the budget is used up")
    body = post(path, "/model/anthropic/v1/messages").partition(b"\r\n\r\n")[2]
    expected = {"type": "invalid_request_error", "message": "hive: the budget is used up"}
    assert json.loads(body) == {"type": "error", "error": expected}
    body = post(path, "/model/openai/v1/chat/completions").partition(b"\r\n\r\n")[2]
    assert json.loads(body)["error"]["message"] == "hive: the budget is used up"
    assert web.seen == []


def test_key_is_in_no_answer(lab: BrokerLab) -> None:
    def echo(handler: Handler) -> None:
        text = f"your headers: {dict(handler.headers)}".encode()
        handler.reply(text, 400 if "bad" in handler.path else 200, X_Echo=handler.headers["x-api-key"])

    with Web(echo) as web:
        path = lab.agent("echoed", providers=(anthropic(web.url),))
        for said in (post(path, "/model/anthropic/v1/messages?bad"), post(path, "/model/anthropic/v1/messages")):
            assert b"your headers" in said
            assert KEY.encode() not in said


def test_redactor_finds_a_secret_across_pieces() -> None:
    for cut in range(len("so SECRET it is")):
        redactor = Redactor("SECRET")
        text = b"so SECRET it is"
        assert redactor.feed(text[:cut]) + redactor.feed(text[cut:]) + redactor.rest() == b"so ****** it is"


def test_model_that_is_away_is_an_error_the_cli_repeats(lab: BrokerLab) -> None:
    path = lab.agent("away", providers=(anthropic("http://127.0.0.1:9"),))
    said = post(path, "/model/anthropic/v1/messages")
    assert said.split()[1] == b"502"
    assert b"x-should-retry: true" in said
