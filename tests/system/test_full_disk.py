"""A small real file system: agents are refused below the floor, the operator is not, and all goes on by itself."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .flooding import BIG, WIDE
from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system

DISK_MB = 64
FREE_MB = 24
SENDS_MAX = 400
"""More than the file system holds."""


@pytest.fixture
def hive() -> Iterator[HiveProcess]:
    """A hive whose state is on a tmpfs of 64 MiB."""
    hive = HiveProcess()
    hive.paths.state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(hive.paths.state)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        hive.close()
        pytest.skip("this user cannot mount a file system")
    try:
        rows = [f"{key} = {value}" for key, value in {**WIDE, "free_mb": FREE_MB}.items()]
        hive.paths.settings.write_text("\n".join(["[limits]", *rows, ""]))
        yield hive
    finally:
        if hive.alive:
            hive.kill()
        subprocess.run(["umount", "-l", str(hive.paths.state)], capture_output=True, check=False)
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
        hive.run("status")
        low = hive.event("DiskLow", first=first)
        assert low["floor_mb"] == FREE_MB
        loud.say("send", to="operator", body="x")
        assert len(hive.events("DiskLow", first=first)) == 1
        notices = hive.events("MessageSent", first=first, to="operator", from_="system")
        assert sum("disk_low" in row["body"] for row in notices) == 1
        _grow(hive.paths.state)
        eventually(lambda: loud.say("send", to="operator", body="x")["ok"], "it goes on by itself")
    hive.event("DiskFreed", first=first)
    hive.check_files()


@pytest.mark.parametrize("clean", [True, False])
def test_daemon_started_on_a_full_disk_reads_and_goes_on(hive: HiveProcess, clean: bool) -> None:
    hive.up()
    hive.spawn("one")
    hive.down() if clean else hive.kill()
    last = hive.head()
    _fill(hive.paths.state / "filler")
    hive.up()
    assert "answers reads and refuses writes" in hive.output.read_text()
    hive.run("status")
    hive.run("log", "--limit", "1")
    assert hive.row("one")["name"] == "one"
    with hive.host() as host:
        refused = [host.say("spawn", name="two"), host.say("stop", scope={"agent_names": ["one"]})]
        assert all("Free disk space" in str(reply) for reply in refused), refused
        assert refused[0]["code"] == "unavailable"
    (hive.paths.state / "filler").unlink()
    hive.event("Booted", first=last + 1)
    eventually(lambda: hive.row("one")["running"], "the agent runs")
    hive.spawn("two")
    hive.down()
    hive.check_files()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def _grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={4 * DISK_MB}m", str(folder)], check=True)
