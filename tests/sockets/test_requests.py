"""Invalid requests get an error that says what is wrong; none of them ends a connection or the daemon."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from system.hive_process import HiveProcess, Lines

from hive.errors import BadRequest, NotFound
from hive.sockets.requests import Id, Limit, Request, RequestDecoder, error_reply, ok_reply

pytestmark = pytest.mark.system

WRONG = [
    (b"{}", "cmd"),
    (b"[]", "cmd"),
    (b"7", "cmd"),
    (b"null", "cmd"),
    (b'"recv"', "cmd"),
    (b'{"cmd":7}', "cmd"),
    (b'{"cmd":null}', "cmd"),
    (b'{"cmd":"recv"', "JSON"),
    (b"\xff\xfe\x00", "JSON"),
    (b'{"cmd":"\xff"}', "JSON"),
    (b'{"cmd":"\\ud800"}', "JSON"),
    (b"GET / HTTP/1.1", "JSON"),
    (b'{"cmd":"nonsense"}', "unknown cmd 'nonsense'"),
    (b'{"cmd":"sned","to":"a","body":"b"}', "did you mean 'send'"),
    (b'{"cmd":"' + b"x" * 5_000 + b'"}', "unknown cmd"),
    (b'{"cmd":"send","to":"a"}', "body"),
    (b'{"cmd":"send","to":7,"body":"b"}', "to"),
    (b'{"cmd":"send","to":null,"body":"b"}', "to"),
    (b'{"cmd":"send","to":"nobody","body":"b"}', 'agent "nobody"'),
    (b'{"cmd":"send","to":"manager","body":""}', "empty"),
    (b'{"cmd":"send","to":"manager","body":"b","in_reply_to":1e9}', "in_reply_to"),
    (b"[" * 100_000, "JSON"),
]
AGENTS_OWN = [
    (b'{"cmd":"recv","max":-1}', "max"),
    (b'{"cmd":"recv","max":"1"}', "max"),
    (b'{"cmd":"recv","wait_seconds":-1}', "wait_seconds"),
    (b'{"cmd":"recv","wait_seconds":NaN}', "JSON"),
    (b'{"cmd":"ack","ids":[99999999999999999999]}', "ids"),
    (b'{"cmd":"ack","ids":[1.5]}', "ids"),
    (b'{"cmd":"ack","ids":[123456]}', "never delivered"),
    (b'{"cmd":"requeue","ids":[],"reason":"bored"}', "not a requeue reason"),
    (b'{"cmd":"hello","incarnation":""}', "characters"),
    (b'{"cmd":"hello","incarnation":true}', "incarnation"),
    (b'{"cmd":"remind","message":"m"}', "delay_seconds"),
    (b'{"cmd":"remind","message":"m","delay_seconds":1e308}', "delay_seconds"),
    (b'{"cmd":"remind","message":"m","delay_seconds":-1}', "delay_seconds"),
    (b'{"cmd":"remind","message":"m","at":"tomorrow"}', "not a time"),
    (b'{"cmd":"remind","message":"m","at":"2026-01-31T09:30:00"}', "time zone"),
    (b'{"cmd":"ask_operator","question":"?","ttl_seconds":1e308}', "ttl_seconds"),
    (b'{"cmd":"ask_operator","question":"?","options":["a","a"]}', "same"),
    (b'{"cmd":"rate_limited","until":"soon"}', "not a time"),
    (b'{"cmd":"turn_ended","duration_ms":-1}', "duration_ms"),
    (b'{"cmd":"turn_ended","input_tokens":1e30}', "input_tokens"),
    (b'{"cmd":"live","lines":{}}', "lines"),
]
NO_AGENTS_VERB = [
    "approve",
    "deny",
    "spawn",
    "stop",
    "destroy",
    "operators",
    "answer_question",
    "shutdown",
    "login_link",
]
HOSTS_OWN = [
    (b'{"cmd":"approve","id":99999999999999999999}', "id"),
    (b'{"cmd":"approve","id":"1"}', "id"),
    (b'{"cmd":"approve","id":-9223372036854775808}', "no approval"),
    (b'{"cmd":"deny","id":9223372036854775807}', "no approval"),
    (b'{"cmd":"stop","scope":{"agent_names":["ghost"]}}', 'agent "ghost" is not managed by this hive'),
    (b'{"cmd":"stop","scope":{"agent_names":"x"}}', "scope"),
    (b'{"cmd":"restart","name":"ghost"}', 'agent "ghost" is not managed by this hive'),
    (b'{"cmd":"spawn","name":"../x"}', "not a valid agent name"),
    (b'{"cmd":"spawn","name":"operator"}', "not a valid agent name"),
    (b'{"cmd":"stats","window":"1y"}', "window"),
    (b'{"cmd":"events","from":"first"}', "from"),
    (b'{"cmd":"mount","name":"manager","path":"relative"}', "absolute"),
]


def answered(lines: Lines, request: bytes) -> dict[str, Any]:
    lines.socket.sendall(request + b"\n")
    reply: dict[str, Any] = json.loads(lines.line())
    return reply


def check_refusal(lines: Lines, request: bytes, says: str) -> None:
    reply = answered(lines, request)
    assert reply["ok"] is False, reply
    assert says in reply["error"]
    assert reply["code"] != "internal"
    assert "\n" not in reply["error"]


@pytest.mark.parametrize(("request_line", "says"), [*WRONG, *AGENTS_OWN], ids=lambda one: str(one)[:60])
def test_invalid_request_of_an_agent_gets_an_error(standing: HiveProcess, request_line: bytes, says: str) -> None:
    with standing.agent("manager") as lines:
        check_refusal(lines, request_line, says)
        assert answered(lines, b'{"cmd":"whoami"}')["name"] == "manager", "the connection goes on"


@pytest.mark.parametrize("verb", NO_AGENTS_VERB)
def test_operator_verb_is_unknown_on_an_agent_socket(standing: HiveProcess, verb: str, agent: str) -> None:
    with standing.agent("manager") as manager, standing.agent(agent) as lines:
        for one in (manager, lines):
            check_refusal(one, json.dumps({"cmd": verb, "id": 1, "name": "x", "answer": "a"}).encode(), "unknown cmd")


@pytest.mark.parametrize(
    "verb", ["request_spawn", "request_apply_commit", "start", "kill", "update", "list_agents", "logs"]
)
def test_manager_verb_is_unknown_on_another_agents_socket(standing: HiveProcess, agent: str, verb: str) -> None:
    with standing.agent(agent) as lines:
        check_refusal(lines, json.dumps({"cmd": verb, "name": "manager"}).encode(), "unknown cmd")


@pytest.mark.parametrize(("request_line", "says"), [*WRONG, *HOSTS_OWN], ids=lambda one: str(one)[:60])
def test_invalid_request_on_the_host_socket_gets_an_error(
    standing: HiveProcess, request_line: bytes, says: str
) -> None:
    with standing.host() as lines:
        check_refusal(lines, request_line, says)
        assert answered(lines, b'{"cmd":"list"}')["version"] == 1, "the connection goes on"


@settings(max_examples=150, deadline=None, database=None)
@given(junk=st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_random_bytes_get_one_error_per_line(standing: HiveProcess, junk: list[bytes]) -> None:
    wanted = b"\n".join(junk).split(b"\n")
    for path in (standing.paths.host_socket, standing.paths.agent_socket("manager")):
        with Lines(path) as lines:
            lines.socket.sendall(b"\n".join(junk) + b"\n")
            for _ in wanted:
                assert lines.reply()["ok"] is False
            assert answered(lines, b'{"cmd":"list"}')["ok"] is (path == standing.paths.host_socket)


def test_reused_key_for_a_different_request_gets_an_error(standing: HiveProcess, agent: str) -> None:
    """The same key for two different requests is a mistake of the caller."""
    for path in (standing.paths.host_socket, standing.paths.agent_socket(agent)):
        with Lines(path) as lines:
            first = "set_paused" if path == standing.paths.host_socket else "set_status"
            fields = {"name": agent, "paused": True, "text": "x", "to": "manager", "body": "x", "key": "twice"}
            assert answered(lines, json.dumps({"cmd": first, **fields}).encode())["ok"] is True
            reply = answered(lines, json.dumps({"cmd": "send", **fields}).encode())
            assert (reply["ok"], reply["code"]) == (False, "bad_request")
            assert answered(lines, json.dumps({"cmd": "send", **fields, "key": "other"}).encode())["ok"] is True


class Ask(Request, frozen=True, kw_only=True):
    id: Id
    limit: Limit = 1


def test_unknown_keys_are_ignored() -> None:
    decoder = RequestDecoder({"ask": Ask})
    cmd, request = decoder.decode(b'{"cmd":"ask","id":-9223372036854775808,"from":"operator","sender":1}')
    assert (cmd, request) == ("ask", Ask(id=-(2**63)))
    with pytest.raises(BadRequest, match=r"ask: .*id"):
        decoder.decode(b'{"cmd":"ask","id":9223372036854775808}')


def test_reply_is_one_line_without_null_keys() -> None:
    assert ok_reply({"id": 1, "note": None, "rows": []}, version=1) == b'{"version":1,"ok":true,"id":1,"rows":[]}'
    assert error_reply(NotFound("no\nsuch\tthing")) == b'{"ok":false,"error":"no such thing","code":"not_found"}'
    assert b"internal" in error_reply(ZeroDivisionError("secret"))
    assert b"secret" not in error_reply(ZeroDivisionError("secret"))
