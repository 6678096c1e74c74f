"""Version 1 of the host protocol, byte for byte as existing desktop clients speak it."""

import json
import os
import re
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from .hive_process import HiveProcess, Lines

pytestmark = pytest.mark.system

ROW_ALWAYS = {"name", "running", "failed", "needs_update", "needs_login", "pending_reminders", "paused"}
ROW_WHERE_KNOWN = {"parent", "deployed_sha", "active_model", "status_text", "status_set_at", "url"}
APPROVAL_ALWAYS = {"id", "agent", "kind", "commit_ref", "requested_at", "status"}
APPROVAL_WHERE_KNOWN = {"fetched_sha", "resolved_at", "note", "description"}
APPROVAL_ADDED = {"requester", "resolved_by"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
DONE = b'{"version":1,"ok":true}'


@pytest.fixture(scope="module")
def standing() -> Iterator[HiveProcess]:
    hive = HiveProcess()
    try:
        hive.up()
        hive.ask("set_paused", name="manager", paused=True)
        hive.spawn("x")
        yield hive
    finally:
        hive.close()


@pytest.fixture
def client(standing: HiveProcess) -> Iterator[Lines]:
    with standing.host() as lines:
        yield lines


def says(client: Lines, request: bytes) -> bytes:
    client.socket.sendall(request + b"\n")
    return client.line()


def asks(client: Lines, request: bytes) -> dict[str, Any]:
    """The reply of a successful request, without `version` and `ok`, which come first."""
    line = says(client, request)
    assert line.startswith(DONE[:-1]), line
    reply: dict[str, Any] = json.loads(line)
    assert (reply.pop("version"), reply.pop("ok")) == (1, True)
    assert None not in reply.values(), "a key that does not apply is absent"
    return reply


def refusal(client: Lines, request: bytes) -> str:
    reply = json.loads(says(client, request))
    assert (reply["version"], reply["ok"]) == (1, False)
    assert set(reply) == {"version", "ok", "error", "code"}
    error: str = reply["error"]
    assert error
    assert "\n" not in error
    return error


def test_list_and_agent_status(client: Lines) -> None:
    assert says(client, b'{"cmd":"list"}') == b'{"version":1,"ok":true,"agents":["manager","x"]}'
    reply = asks(client, b'{"cmd":"agent_status"}')
    assert set(reply) == {"agent_statuses"}
    manager, x = reply["agent_statuses"]
    for row in (manager, x):
        assert ROW_ALWAYS <= set(row) <= ROW_ALWAYS | ROW_WHERE_KNOWN
        assert None not in row.values()
        assert re.fullmatch("[0-9a-f]{12}", row["deployed_sha"])
    assert "parent" not in manager
    assert {key: x[key] for key in (*sorted(ROW_ALWAYS), "parent")} == {
        "name": "x", "running": True, "failed": False, "needs_update": False, "needs_login": False,
        "pending_reminders": 0, "paused": True, "parent": "manager",
    }  # fmt: skip


def test_status_text_is_absent_when_not_running(standing: HiveProcess, client: Lines) -> None:
    def row() -> dict[str, Any]:
        rows = asks(client, b'{"cmd":"agent_status"}')["agent_statuses"]
        return next(one for one in rows if one["name"] == "x")

    with standing.agent("x") as agent:
        agent.ask("set_status", text="thinking")
    assert row()["status_text"] == "thinking"
    assert TIME.fullmatch(row()["status_set_at"])
    assert says(client, b'{"cmd":"stop","scope":{"agent_names":["x"]},"graceful":true}') == DONE
    assert not {"status_text", "status_set_at"} & set(row())
    assert row()["running"] is False
    assert says(client, b'{"cmd":"start","scope":{"agent_names":["x"]}}') == DONE
    assert row()["running"] is True


def test_subscription_sends_one_row_per_change(standing: HiveProcess, client: Lines) -> None:
    assert says(client, b'{"cmd":"subscribe_agent_status"}') == DONE
    with standing.host() as other:
        for paused in (False, True):
            asks(other, b'{"cmd":"set_paused","name":"x","paused":%s}' % str(paused).lower().encode())
            while True:
                line = client.line()
                assert line.startswith(DONE[:-1])
                (row,) = json.loads(line)["agent_statuses"]
                if (row["name"], row["paused"]) == ("x", paused):
                    break


def test_lifecycle_requests(standing: HiveProcess, client: Lines) -> None:
    for request in (
        b'{"cmd":"set_paused","name":"x","paused":true}',
        b'{"cmd":"set_paused","name":"x","paused":true}',
        b'{"name":"x","cmd":"restart"}',
        b'{"cmd":"rebuild","name":"x"}',
        b'{"cmd":"spawn","name":"y"}',
        b'{"cmd":"kill","name":"y"}',
        b'{"cmd":"destroy","name":"y","purge":false}',
        b'{"cmd":"stop","scope":{},"graceful":true}',
        b'{"cmd":"start","scope":{"agent_names":[]}}',
    ):
        assert says(client, request) == DONE, request
    rows = asks(client, b'{"cmd":"agent_status"}')["agent_statuses"]
    assert {row["name"]: row["running"] for row in rows} == {"manager": True, "x": True}, (
        "an empty scope means all agents"
    )
    assert standing.paths.agent("y").is_dir(), "a tombstone"


def test_approvals(standing: HiveProcess, client: Lines) -> None:
    assert says(client, b'{"cmd":"pending"}') == b'{"version":1,"ok":true,"approvals":[]}'
    ids = [asks(client, b'{"cmd":"request_spawn","name":"%s"}' % name)["id"] for name in (b"p", b"q", b"r")]
    rows = asks(client, b'{"cmd":"pending"}')["approvals"]
    assert [row["id"] for row in rows] == sorted(ids)
    for row in rows:
        assert APPROVAL_ALWAYS <= set(row) <= APPROVAL_ALWAYS | APPROVAL_WHERE_KNOWN | APPROVAL_ADDED
        assert (row["kind"], row["commit_ref"], row["status"]) == ("spawn", "", "pending")
        assert TIME.fullmatch(row["requested_at"])
        assert None not in row.values()
    assert says(client, b'{"cmd":"approve","id":%d}' % ids[0]) == DONE
    assert says(client, b'{"cmd":"deny","id":%d,"note":"not now"}' % ids[1]) == DONE
    assert says(client, b'{"cmd":"deny","id":%d}' % ids[2]) == DONE
    assert f"{ids[0]}" in refusal(client, b'{"cmd":"approve","id":%d}' % ids[0])
    assert asks(client, b'{"cmd":"pending"}')["approvals"] == []
    denied = next(row for row in asks(client, b'{"cmd":"approvals"}')["approvals"] if row["id"] == ids[1])
    assert (denied["status"], denied["note"]) == ("denied", "not now")
    assert TIME.fullmatch(denied["resolved_at"])
    for id in (-(2**63), -1, 0, 2**63 - 1):
        assert "no approval" in refusal(client, b'{"cmd":"approve","id":%d}' % id)
    refusal(client, b'{"cmd":"approve","id":%d}' % 2**63)
    standing.event("Spawned", agent="p")


def test_urls(client: Lines) -> None:
    urls = asks(client, b'{"cmd":"urls"}')["urls"]
    assert set(urls) <= {"domain", "home", "forge", "matrix"}
    assert all(isinstance(url, str) for url in urls.values())


def test_refusals(client: Lines) -> None:
    line = says(client, b'{"cmd":"kill","name":"ghost"}')
    assert line.startswith(rb'{"version":1,"ok":false,"error":"agent \"ghost\" is not managed by this hive"'), line
    for request in (
        b'{"cmd":"restart","name":"ghost"}',
        b'{"cmd":"rebuild","name":"ghost"}',
        b'{"cmd":"set_paused","name":"ghost","paused":true}',
        b'{"cmd":"destroy","name":"ghost","purge":false}',
        b'{"cmd":"start","scope":{"agent_names":["ghost"]}}',
        b'{"cmd":"stop","scope":{"agent_names":["x","ghost"]},"graceful":true}',
    ):
        assert refusal(client, request) == 'agent "ghost" is not managed by this hive', request
    assert "frobnicate" in refusal(client, b'{"cmd":"frobnicate"}')
    refusal(client, b"not json")
    refusal(client, b'{"cmd":"kill"}')
    assert "1 MiB" in refusal(client, b'{"cmd":"list","pad":"' + b"x" * 2**20 + b'"}')
    assert asks(client, b'{"cmd":"list","unknown":{"keys":["are","ignored"]}}')["agents"]


def test_socket_mode_and_recorded_uid(standing: HiveProcess, client: Lines) -> None:
    mode = standing.paths.host_socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    id = asks(client, b'{"cmd":"request_spawn","name":"z"}')["id"]
    asks(client, b'{"cmd":"deny","id":%d}' % id)
    resolved = standing.event("ApprovalResolved", id=id)
    assert resolved["by"].startswith("operator:")
    assert f"uid={os.getuid()}" in resolved["by"]


def test_requests_over_one_or_many_connections(standing: HiveProcess) -> None:
    with standing.host() as lines:
        lines.socket.sendall(b'{"cmd":"list"}\n' * 100)
        assert len({lines.line() for _ in range(100)}) == 1
        lines.socket.sendall(b'{"cmd":"list"}\r\n\n')
        assert lines.reply()["ok"]
