"""A small real file system: agents are refused below the floor, the operator is not, and all goes on by itself."""

from collections.abc import Iterator

import httpx
import pytest
from small_disk import fill, grow, small_disk

from hive.reserve import Reserve

from .flooding import BIG, WIDE
from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system

MIB = 1024 * 1024
DISK_MB = 64
FREE_MB = 40
SENDS_MAX = 400
"""More than the file system holds."""


@pytest.fixture
def hive() -> Iterator[HiveProcess]:
    """A hive whose state is on a file system of 64 MiB, with a dashboard."""
    hive = HiveProcess(dashboard=True)
    try:
        with small_disk(hive.paths.state, DISK_MB):
            rows = [f"{key} = {value}" for key, value in {**WIDE, "free_mb": FREE_MB}.items()]
            hive.paths.settings.write_text("\n".join(["[limits]", *rows, ""]))
            yield hive
    finally:
        hive.close()


def test_agent_that_fills_the_disk_is_refused_and_the_operator_goes_on(hive: HiveProcess) -> None:
    hive.up()
    hive.spawn("loud")
    hive.ask("stop", scope={"agent_names": ["loud", "manager"]})
    first = hive.head() + 1
    with hive.agent("loud") as loud:
        question = loud.ask("ask_operator", question="Still there?")["id"]
        refused = next(
            reply for _ in range(SENDS_MAX) if not (reply := loud.say("send", to="operator", body=BIG, key=None))["ok"]
        )
        assert refused["code"] == "unavailable"
        assert "MiB left" in refused["error"]
        loud.ask("recent", limit=1)
        hive.ask("answer_question", id=question, answer="yes")
        low = hive.event("DiskLow", first=first)
        assert low["floor_mb"] == FREE_MB
        assert f"agents must leave {FREE_MB} MiB" in hive.run("status")
        assert hive.data("status")["disk_low"]["floor_mb"] == FREE_MB
    (hive.paths.state / "filler").write_bytes(bytes(DISK_MB // 3 * MIB))  # The end of a daemon shortens the log's WAL.
    hive.down()
    hive.up()
    assert "disk_low" in hive.data("status"), "it survives a restart"
    with hive.agent("loud") as loud:
        assert not loud.say("send", to="operator", body="x")["ok"]
    assert len(hive.events("DiskLow", first=first)) == 1, "and is not repeated"
    notices = hive.events("MessageSent", first=first, to="operator", from_="system")
    assert sum("disk_low" in row["body"] for row in notices) == 1
    grow(hive.paths.state, 4 * DISK_MB)
    hive.event("DiskFreed", first=first)  # No agent asks meanwhile.
    assert "disk_low" not in hive.data("status")
    with hive.agent("loud") as loud:
        loud.ask("send", to="operator", body="x")
    hive.check_files()


def test_operator_decides_signs_in_and_stops_the_hive_on_a_completely_full_disk(hive: HiveProcess) -> None:
    hive.up()
    hive.spawn("one")
    token = hive.ask("operators", action="add", name="mara")["token"]
    with hive.agent("one") as one:
        questions = [one.ask("ask_operator", question=f"Question {nth}?")["id"] for nth in range(20)]
    _fill_completely(hive)
    for id in questions:
        hive.run("answer", str(id), "yes")
    with httpx.Client(base_url=hive.url, headers={"Origin": hive.url}) as mara:
        mara.post("/login", data={"token": token}, headers={"Accept": "application/json"}).raise_for_status()
        page = mara.get("/").raise_for_status()
        assert 'id="disk-low"' in page.text
    assert not Reserve(hive.paths.state).is_whole()
    assert "Agents are refused" in hive.run("status")
    hive.run("pause", "one")
    hive.run("stop", "one")
    hive.down()
    assert len(hive.events("ShutDown")) == 1
    assert hive.running("one") is None
    assert len(hive.events("QuestionResolved")) == len(questions)
    (hive.paths.state / "filler").unlink()
    hive.up()
    hive.becomes_whole()
    assert Reserve(hive.paths.state).is_whole()
    hive.down()
    hive.check_files()


def test_hive_down_ends_a_daemon_whose_log_cannot_be_written_at_all(hive: HiveProcess) -> None:
    hive.up()
    hive.ask("stop", scope={"agent_names": ["manager"]})
    _fill_completely(hive)
    Reserve(hive.paths.state).release(DISK_MB * MIB)
    fill(hive.paths.state / "filler")
    refused = hive.try_run("send", "manager", "x" * 100_000)
    assert refused.returncode == 1
    assert "Free disk space" in refused.stderr
    hive.down("--keep-agents")
    (hive.paths.state / "filler").unlink()
    hive.up()
    hive.down()
    hive.check_files()


@pytest.mark.parametrize("has_reserve", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_daemon_started_on_a_full_disk_reads_and_goes_on(hive: HiveProcess, clean: bool, has_reserve: bool) -> None:
    hive.up()
    hive.spawn("one")
    hive.down() if clean else hive.kill()
    last = hive.head()
    if not has_reserve:
        (hive.paths.state / "reserve").unlink()
    fill(hive.paths.state / "filler")
    hive.up()
    takes_decisions = has_reserve or clean  # Without a reserve, projections.db makes room for a log that was closed.
    said = "takes decisions; it starts no agent" if takes_decisions else "answers reads and refuses writes"
    assert said in hive.output.read_text()
    assert "no agent is started" in hive.run("status")
    hive.run("log", "--limit", "1")
    assert hive.row("one")["name"] == "one"
    started = hive.try_run("start", "one")
    assert started.returncode == 1
    assert "Free disk space" in started.stderr
    if has_reserve:
        hive.run("pause", "one")
        if not clean:
            hive.run("kill", "one")
            assert hive.running("one") is None
    (hive.paths.state / "filler").unlink()
    hive.event("Booted", first=last + 1)
    if has_reserve:
        hive.run("resume", "one")
    if clean or not has_reserve:
        eventually(lambda: hive.row("one")["running"], "the agent runs")
    eventually(lambda: "no agent is started" not in hive.run("status"), "the banner goes")
    hive.spawn("two")
    hive.down()
    hive.check_files()


def test_hive_down_stops_agents_that_run_although_the_daemon_waits_for_room(hive: HiveProcess) -> None:
    hive.up()
    hive.spawn("one")
    hive.kill()
    assert hive.running("one") is not None
    fill(hive.paths.state / "filler")
    hive.up()
    hive.down()
    assert hive.running("one") is None
    (hive.paths.state / "filler").unlink()
    hive.check_files()


def test_first_start_on_a_full_disk_ends_with_what_to_do_and_the_next_one_works(hive: HiveProcess) -> None:
    fill(hive.paths.state / "filler")
    refused = hive.try_run("up", "--runtime", "process", "--no-dashboard")
    assert refused.returncode == 1
    assert "Free disk space or check the disk, then start the daemon again." in refused.stderr
    assert "Traceback" not in refused.stderr
    (hive.paths.state / "filler").unlink()
    hive.up()
    hive.down()


def _fill_completely(hive: HiveProcess) -> None:
    """Until not one more event fits: the file takes what the daemon's own event left."""
    fill(hive.paths.state / "filler")
    hive.event("DiskLow")
    fill(hive.paths.state / "filler")
