"""Floods from one agent's own socket: its share, the daemon's memory, its neighbour and its own harness."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hive.scripted_model import ScriptedModel, say
from hive.sockets.shares import RESERVE, RESERVE_EVENTS_MIN, ROW_BYTES

from .flooding import BEYOND, BIG, MIXTURE, Flood
from .hive_process import HiveProcess, Lines, eventually

pytestmark = pytest.mark.system

FLOOD_S = 4.0
CONNECTIONS = 60
LIMITS = {
    "events_per_minute": 300,
    "burst_events": 200,
    "kib_per_minute": 2_048,
    "burst_kib": 2_048,
    "connections": 100,
}
MEMORY_MAX_KB = 64 * 1024
SENDS = 50


@pytest.fixture(scope="module")
def hive() -> Iterator[HiveProcess]:
    """A hive whose agents take turns of the real CLI with a scripted model."""
    with ScriptedModel() as model:
        for agent in ("loud", "quiet", "busy", "rude", "manager"):
            model.play(agent, lambda _: say("done"))
        hive = HiveProcess(model_url=model.url, limits=LIMITS)
        try:
            hive.up()
            hive.spawn("loud", "quiet", "rude")
            hive.ask("stop", scope={"agent_names": ["loud", "quiet", "rude"]})
            yield hive
        finally:
            hive.close()


def resident_kb(hive: HiveProcess) -> int:
    assert hive.daemon is not None
    lines = Path(f"/proc/{hive.daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def caused(hive: HiveProcess, agent: str, first: int) -> tuple[int, int]:
    """Events that an agent's requests wrote, and their bytes with the rest of their rows."""
    with hive.reading() as reader:
        rows = [row for row in reader.rows(first) if row.by == f"agent:{agent}"]
    return len(rows), sum(len(row.data.encode()) + ROW_BYTES for row in rows)


def test_flood_of_every_verb_stays_within_the_share_and_beside_it_others_go_on(hive: HiveProcess) -> None:
    first, before_kb, most_kb = hive.head() + 1, resident_kb(hive), 0
    with Flood(hive.paths.agent_socket("loud"), connections=CONNECTIONS) as flood, hive.agent("quiet") as quiet:
        for _ in range(SENDS):
            quiet.ask("send", to="operator", body="still here")
            most_kb = max(most_kb, resident_kb(hive))
            time.sleep(FLOOD_S / SENDS)  # The flood goes on meanwhile.
        assert "throttled_until" in hive.row("loud")
        assert "throttled_until" not in hive.row("quiet")
    events, written = caused(hive, "loud", first)
    minutes = flood.seconds / 60
    reserve = max(RESERVE_EVENTS_MIN, RESERVE * LIMITS["burst_events"])
    assert events <= LIMITS["burst_events"] + reserve + LIMITS["events_per_minute"] * minutes
    assert written <= 1024 * ((1 + RESERVE) * LIMITS["burst_kib"] + LIMITS["kib_per_minute"] * minutes)
    assert flood.codes["limit_reached"] > 0
    assert len(flood.waits_ms) == flood.codes["limit_reached"]
    assert "internal" not in flood.codes
    assert most_kb - before_kb < MEMORY_MAX_KB
    (throttled,) = hive.events("Throttled", first=first)
    assert (throttled["agent"], throttled["told"]) == ("loud", True)
    notices = hive.events("MessageSent", first=first, to="operator", from_="system")
    assert [msgspec.json.decode(row["body"])["event"] for row in notices].count("throttled") == 1
    hive.check_files()


def test_flood_of_the_harness_verbs_does_not_starve_the_harness(hive: HiveProcess) -> None:
    hive.spawn("busy", paused=False)
    hive.event("IncarnationSeen", agent="busy")
    forged = [one for one in MIXTURE if one["cmd"] in ("turn_started", "turn_ended", "login", "rate_limited", "hello")]
    with Flood(hive.paths.agent_socket("busy"), connections=CONNECTIONS, mixture=forged) as flood:
        eventually(lambda: flood.codes["limit_reached"] > 100, "the flood has used up the share")
        id = hive.ask("send", to="busy", body="work")["id"]
        hive.event("MessageAcked", id=id)
        ended = eventually(lambda: hive.events("TurnEnded", agent="busy", result_kind="ok"), "the turn is reported")
    assert ended


def test_refusal_says_when_to_try_again_and_the_request_then_succeeds(hive: HiveProcess) -> None:
    with hive.agent("rude") as lines:
        replies = [lines.say("send", to="operator", body="x") for _ in range(LIMITS["burst_events"] + 20)]
        refused = next(reply for reply in replies if not reply["ok"])
        assert refused["code"] == "limit_reached"
        assert "send is refused: rude has used up its share" in refused["error"]
        time.sleep(refused["retry_after_ms"] / 1000)
        lines.ask("send", to="operator", body="x")


def test_large_lines_on_every_connection_are_answered_within_bounded_memory(hive: HiveProcess) -> None:
    before_kb, opened = resident_kb(hive), [hive.agent("loud") for _ in range(CONNECTIONS)]
    try:
        for lines in opened:
            lines.socket.setblocking(False)
        part = b'{"cmd":"send","to":"operator","body":"' + BEYOND.encode()
        left = dict.fromkeys(opened, part)
        deadline = time.monotonic() + FLOOD_S
        while time.monotonic() < deadline and any(left.values()):
            for lines in opened:
                left[lines] = left[lines][_sent(lines, left[lines]) :]
            assert resident_kb(hive) - before_kb < MEMORY_MAX_KB
            time.sleep(0.01)
    finally:
        for lines in opened:
            lines.close()
    with hive.agent("quiet") as quiet:
        quiet.ask("whoami")


def _sent(lines: Lines, data: bytes) -> int:
    try:
        return lines.socket.send(data[: 1 << 18])
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return 0


def test_connection_beyond_the_limit_is_answered_and_closed(hive: HiveProcess) -> None:
    opened = list[Lines]()
    try:
        for _ in range(LIMITS["connections"]):
            opened.append(hive.agent("loud"))
            opened[-1].ask("whoami")
        with hive.agent("loud") as refused:
            reply = refused.reply()
            assert reply["code"] == "limit_reached"
            assert reply["retry_after_ms"] > 0
            assert "connections" in reply["error"]
            with pytest.raises(EOFError):
                refused.reply()
        opened[0].close()
        eventually(lambda: _is_answered(hive), "a closed connection makes room")
    finally:
        for lines in opened:
            lines.close()


def test_agent_that_reads_no_replies_loses_a_connection_and_no_memory(hive: HiveProcess) -> None:
    for _ in range(4):
        hive.ask("send", to="quiet", body=BIG)
    before_kb = resident_kb(hive)
    opened = [hive.agent("quiet") for _ in range(CONNECTIONS)]
    try:
        for lines in opened:
            for _ in range(20):
                lines.send("recent", limit=4)
        hive.ask("list")
        assert resident_kb(hive) - before_kb < MEMORY_MAX_KB
    finally:
        for lines in opened:
            lines.close()


def _is_answered(hive: HiveProcess) -> bool:
    try:
        with hive.agent("loud") as lines:
            return lines.say("whoami")["ok"] is True
    except (OSError, EOFError):
        return False
