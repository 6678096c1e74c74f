"""Parts of the harness that need no CLI: framing, outcomes, statistics, memory, connection and tool schemas."""

import asyncio
import json
from itertools import pairwise
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive.clock import SystemClock, rfc3339
from hive.errors import BadRequest
from hive.harness import framing, outcome, tools
from hive.harness.connection import Connection, Daemon, DaemonAway, DaemonRefused
from hive.harness.environment import from_environment
from hive.harness.memory import Memory
from hive.harness.stats import DAY_MS, TurnRow, TurnStats
from hive.names import BUDGET_USED_UP
from hive.turn_columns import TurnColumns

from .peer import Peer

NOW = SystemClock().now_ms()
KNOCKS = 10
KNOCK_WITHIN_S = 0.5
"""A parked agent must get its next message well within a second of the daemon's restart."""


@given(st.text(), st.lists(st.text(), max_size=4))
def test_any_body_stays_in_its_line(sender: str, bodies: list[str]) -> None:
    rows = [{"id": id, "from": sender, "body": body} for id, body in enumerate(bodies)]
    prompt = framing.wake_prompt(rows, 0)
    lines = prompt.split("\n")
    assert [json.loads(line) for line in lines[2:-1]] == [framing.message(row) for row in rows]
    mark = lines[1].removeprefix("<messages ").removesuffix(">")
    assert lines[-1] == f"</messages {mark}>"
    assert not {"<", ">"} & set("".join(lines[2:-1]))


def test_marks_differ_each_time() -> None:
    rows = [{"id": 1, "from": "a", "body": "x"}]
    assert framing.wake_prompt(rows, 0) != framing.wake_prompt(rows, 0)
    assert "3 more wait in your inbox" in framing.wake_prompt(rows, 3)


def test_only_system_bodies_become_events() -> None:
    body = '{"event": "operator_answered", "id": 3}'
    assert framing.message({"from": "system", "body": body}) == {"from": "system", "event": json.loads(body)}
    assert framing.message({"from": "coder", "body": body}) == {"from": "coder", "body": body}
    assert framing.message({"from": "system", "body": "plain"}) == {"from": "system", "body": "plain"}


def test_invisible_and_bidi_characters_are_escaped() -> None:
    assert framing.encode("a\u202eb\u200bc\x1b[0m") == '"a\\u202eb\\u200bc\\u001b[0m"'


@pytest.mark.parametrize(
    ("text", "status", "reason", "kind", "requeue"),
    [
        ("Invalid API key", 401, "api_error", "failed", "needs_login"),
        ("Not logged in · Please run /login", None, None, "failed", "needs_login"),
        ("API Error: Request rejected (429)", 429, "api_error", "failed", "rate_limited"),
        ("API Error: 529 Overloaded", 529, "api_error", "failed", "overloaded"),
        ("API Error: Unable to connect", None, "api_error", "failed", "overloaded"),
        ("Prompt is too long · the request is", 400, "api_error", "prompt_too_long", "failed"),
        ("API Error: 400 tools.0: bad", 400, "api_error", "failed", "failed"),
        ("error_during_execution", None, None, "failed", "failed"),
        (f"API Error: 400 {BUDGET_USED_UP} until 2026-01-31T09:30:00.000Z.", 400, None, "budget", "budget"),
    ],
)
def test_outcomes(text: str, status: int | None, reason: str | None, kind: str, requeue: str) -> None:
    end = outcome.of_error(text, status=status, reason=reason, limited_until_ms=None, now_ms=NOW)
    assert (end.result_kind, end.requeue, end.note) == (kind, requeue, text)
    assert (end.limited_until_ms is not None) == (requeue == "rate_limited")


def test_rows_older_than_ninety_days_are_deleted(tmp_path: Path) -> None:
    stats = TurnStats(tmp_path)
    for days in (91, 89, 0):
        row = TurnRow(started_at=rfc3339(NOW - days * DAY_MS), input_tokens=10, result_kind="ok")
        assert stats.record(row, NOW) is None
    database = apsw.Connection(str(tmp_path / "hive-turn-stats.sqlite"))
    rows = database.execute("SELECT started_at FROM turn_stats ORDER BY 1").fetchall()
    assert rows == [(rfc3339(NOW - 89 * DAY_MS),), (rfc3339(NOW),)]


def test_corrupt_statistics_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "hive-turn-stats.sqlite").write_bytes(b"not a database" * 1000)
    assert TurnStats(tmp_path).record(TurnRow(), NOW)


def test_file_of_an_older_harness_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    database = apsw.Connection(str(tmp_path / "hive-turn-stats.sqlite"))
    database.execute("CREATE TABLE turn_stats (started_at TEXT, model TEXT)")
    assert TurnStats(tmp_path).record(TurnRow(started_at=rfc3339(NOW), model="m", note="why"), NOW) is None
    assert database.execute("SELECT started_at, model, note FROM turn_stats").fetchall() == [(rfc3339(NOW), "m", "why")]
    columns = {name for _, name, *_ in database.execute("PRAGMA table_info(turn_stats)")}
    assert columns == set(TurnColumns.__struct_fields__)


def test_unknown_figures_are_null_in_the_file(tmp_path: Path) -> None:
    TurnStats(tmp_path).record(TurnRow(started_at=rfc3339(NOW)), NOW)
    database = apsw.Connection(str(tmp_path / "hive-turn-stats.sqlite"))
    [row] = database.execute("SELECT * FROM turn_stats").fetchall()
    assert row == (None, None, None, rfc3339(NOW), *[None] * 11)


def test_memory_survives_restart_and_corruption(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.session_id = "s"
    memory.model = "m"
    assert (Memory(tmp_path).session_id, Memory(tmp_path).model) == ("s", "m")
    (tmp_path / "hive-harness.json").write_text("{")
    assert Memory(tmp_path).session_id is None


def test_incomplete_environment_is_refused() -> None:
    with pytest.raises(BadRequest, match="HIVE_AGENT_NAME is not set"):
        from_environment({})


def test_request_repeated_after_daemon_restart_counts_once(tmp_path: Path) -> None:
    async def story(peer: Peer) -> None:
        connection = Connection(peer.path, "run-1")
        await connection.call("whoami")
        peer.down()
        asking = asyncio.create_task(connection.call("send", to="manager", body="x", key="k"))
        await asyncio.sleep(0)
        peer.up()
        reply = await asking
        assert reply["daemon_away_s"] >= 0
        again = await connection.call("send", to="manager", body="x", key="k")
        assert again["id"] == reply["id"]
        with pytest.raises(DaemonRefused, match='There is no agent "nobody"'):
            await connection.call("send", to="nobody", body="x")
        connection.close()

    with Peer(tmp_path / "hive.sock") as peer:
        asyncio.run(story(peer))
        assert [one["incarnation"] for one in peer.got("hello")] == ["run-1", "run-1"]


def test_reconnect_is_tried_several_times_a_second(tmp_path: Path) -> None:
    """A busy machine only lengthens waits, so the shortest late wait is the intended one."""
    knocks: list[float] = []
    enough = asyncio.Event()

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append(asyncio.get_running_loop().time())
        writer.close()
        if len(knocks) == KNOCKS:
            enough.set()

    async def story() -> None:
        path = tmp_path / "hive.sock"
        async with await asyncio.start_unix_server(hang_up, path):
            asking = asyncio.create_task(Connection(path, "run-1").call("whoami"))
            await enough.wait()
            asking.cancel()

    asyncio.run(story())
    waits = [after - before for before, after in pairwise(knocks)]
    assert min(waits[KNOCKS // 2 :]) < KNOCK_WITHIN_S


def test_absent_daemon_is_reported(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(DaemonAway):
            await Connection(tmp_path / "nothing.sock", "run-1").call("whoami", away_s=0)

    asyncio.run(story())


def test_cancelled_request_leaves_no_stale_reply(tmp_path: Path) -> None:
    async def story(peer: Peer) -> None:
        connection = Connection(peer.path, "run-1")
        parked = asyncio.create_task(connection.call("recv", waits_s=30, wait_seconds=30))
        await asyncio.to_thread(peer.wait_for, lambda: peer.got("recv"))
        parked.cancel()
        await asyncio.gather(parked, return_exceptions=True)
        assert (await connection.call("whoami"))["name"] == "coder"
        connection.close()

    with Peer(tmp_path / "hive.sock") as peer:
        asyncio.run(story(peer))


def test_parallel_tools_do_not_wait_for_a_parked_recv(tmp_path: Path) -> None:
    async def story(peer: Peer) -> None:
        daemon = Daemon(peer.path, "run-1")
        box = tools.Toolbox(daemon)
        by_name = {tool.name: tool for tool in tools.offered(manager=True)}
        parked = asyncio.create_task(box.run(by_name["recv"], {"wait_seconds": 30}))
        sent = await box.run(by_name["send"], {"to": "operator", "body": "x"})
        assert not parked.done()
        assert json.loads(sent.text)["id"]
        id = peer.put("hello")
        assert json.loads((await parked).text)["messages"][0]["body"] == "hello"
        assert box.taken == [id]
        daemon.close()

    with Peer(tmp_path / "hive.sock") as peer:
        asyncio.run(story(peer))


def test_every_tool_describes_its_arguments() -> None:
    for tool in tools.offered(manager=True):
        assert tool.description.endswith((".", "."))
        assert set(tool.required) <= set(tool.properties)
        assert all(property.get("description") for property in tool.properties.values())
    assert "at most 180" in tools.WAIT_SECONDS["description"]
    assert not {"nap", "login", "approve"} & {tool.name for tool in tools.offered(manager=True)}
