"""Limits in a real hive: a runaway agent leaves the others working, exits name their limit, a full disk pauses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hive.runtimes import cgroup
from hive.runtimes.limits import WALKED
from hive.scripted_model import Answer, Conversation, ScriptedModel, call, say

from .conftest import MakeHive
from .hive_process import HiveProcess, eventually
from .test_turns_and_kills import TurnFixture

pytestmark = pytest.mark.system

CONTROLLERS = {name for _, _, offered in cgroup.hierarchies() for name in offered}
MIB = 1024 * 1024
PROCESSES = 120
RUNAWAY = """
import os, time
for _ in range(os.cpu_count()):
    if os.fork() == 0:
        while True: pass
if os.fork() == 0:
    held = []
    while True:
        try: held.append(bytearray(b'x' * 10**7))
        except MemoryError: time.sleep(0.1)
while True:
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError: time.sleep(0.01)
"""

BOMB = """
import os, threading, time

def bomb():
    while not os.path.exists(os.environ["HIVE_AGENT_STATE"] + "/go"):
        time.sleep(0.01)
    try:
        while True:
            if os.fork() == 0:
                time.sleep(1000)
    except OSError:
        os._exit(7)

threading.Thread(target=bomb, daemon=True).start()
"""


def run_away(conversation: Conversation) -> Answer:
    """A turn that starts a fork bomb, an endless allocation and a busy loop for each core."""
    if conversation.results:
        return say("started")
    return call("Bash", command=f'setsid python3 -c "{RUNAWAY}" >/dev/null 2>&1 &', description="run away")


def work(conversation: Conversation) -> Answer:
    if conversation.results:
        return say("done")
    return call("Bash", command="true", description="work")


def pids_of(hive: HiveProcess, name: str) -> tuple[int, int]:
    """Processes of an agent's control group now, and its limit."""
    record = json.loads((hive.paths.record(name) / "run.json").read_text())
    group = next(Path(one) for one in record["groups"] if (Path(one) / "pids.current").exists())
    return int((group / "pids.current").read_text()), int((group / "pids.max").read_text())


def test_runaway_agent_leaves_the_turns_of_others_working(
    make_hive: MakeHive, model: ScriptedModel, walls: str
) -> None:
    if not {"memory", "pids", "cpu"} <= CONTROLLERS:
        pytest.skip("no control groups here")
    hive = make_hive(model_url=model.url, runtime=walls)
    hive.paths.state.mkdir(parents=True, exist_ok=True)
    hive.paths.settings.write_text(f"[limits]\nmemory_mb = 768\nprocesses = {PROCESSES}\n")
    hive.up()
    model.play("rogue", run_away)
    model.play("coder", work)
    hive.spawn("rogue", "coder", paused=False)
    begun = hive.ask("send", to="rogue", body="go")["id"]
    hive.event("MessageAcked", id=begun)
    eventually(lambda: pids_of(hive, "rogue")[0] >= PROCESSES - 1, "the fork bomb reaches the limit")
    id = hive.ask("send", to="coder", body="work")["id"]
    hive.event("MessageAcked", id=id)
    assert hive.event("TurnEnded", agent="coder")["result_kind"] == "ok"
    current, limit = pids_of(hive, "rogue")
    assert limit == PROCESSES
    assert PROCESSES - 1 <= current <= PROCESSES, "it still runs"
    assert hive.row("coder")["limits"]["processes"] == PROCESSES
    limits = hive.row("coder")["limits"]
    assert limits.get("not_enforced", []) == ([] if limits.get("disk_quota") else [WALKED])
    hive.run("kill", "rogue")
    assert not hive.row("rogue")["running"]
    hive.check_files()


def test_crash_without_a_daemon_names_the_process_limit(hive: HiveProcess) -> None:
    if "pids" not in CONTROLLERS:
        pytest.skip("no control groups here")
    hive.spawn("bomber")
    state = hive.paths.agent_state("bomber")
    (state / "sitecustomize.py").write_text(BOMB)
    hive.configure("bomber", f'[environment]\nPYTHONPATH = "{state}"\n[limits]\nprocesses = 40\n')
    hive.run("restart", "bomber")
    assert hive.running("bomber")
    hive.kill()
    (state / "go").touch()
    exit_file = hive.paths.record("bomber") / "exit.json"
    incarnation = json.loads((hive.paths.record("bomber") / "run.json").read_text())["incarnation"]
    eventually(lambda: incarnation in exit_file.read_text(), "it ends without a daemon")
    (state / "sitecustomize.py").unlink()
    hive.up()
    assert hive.event("Crashed", agent="bomber")["reason"] == "too many processes"


def test_limit_above_the_hosts_is_refused_at_the_build(hive: HiveProcess) -> None:
    hive.spawn("coder")
    hive.configure("coder", "\n[limits]\nmemory_mb = 99999999\n")
    done = hive.try_run("rebuild", "coder")
    assert done.returncode == 1
    assert "agent.toml:3: limits.memory_mb: this host allows at most" in done.stderr
    assert hive.row("coder")["running"]
    hive.configure("coder", "[limits]\nmemory_mb = 2000\ncpu_percent = 150\ndisk_mb = 30000\n")
    hive.run("rebuild", "coder")
    limits = hive.row("coder")["limits"]
    assert (limits["memory_mb"], limits["cpu_percent"], limits["disk_mb"]) == (2000, 150, 30000)


def told(hive: HiveProcess, to: str, event: str) -> list[dict[str, Any]]:
    sent = [json.loads(row["body"]) for row in hive.events("MessageSent", to=to, from_="system")]
    return [notice for notice in sent if notice["event"] == event]


def test_full_disk_pauses_until_there_is_room(make_hive: MakeHive, model: ScriptedModel) -> None:
    hive = make_hive(model_url=model.url)
    hive.paths.state.mkdir(parents=True, exist_ok=True)
    hive.paths.settings.write_text("[limits]\ndisk_mb = 64\n")
    turn = TurnFixture(hive.up(), model)
    id = turn.begin("fill")
    fill = hive.paths.agent_state("coder") / "fill"
    write(fill, 59)
    nearly = hive.event("DiskNearlyFull", agent="coder")
    assert 58 <= nearly["used_mb"] < 64
    for to in ("coder", "manager", "operator"):
        assert len(told(hive, to, "disk_nearly_full")) == 1
    assert "disk nearly full" in hive.run("status")
    assert not hive.row("coder")["paused"]
    write(fill, 80)
    full = hive.event("DiskFull", agent="coder")
    assert full["used_mb"] >= 64
    assert hive.event("MessageRequeued", id=id)["reason"] == "cancelled"
    row = hive.row("coder")
    assert (row["paused"], row["running"], row["disk"]["full"]) == (True, True, True)
    assert "disk full" in hive.run("status")
    assert len(told(hive, "operator", "disk_full")) == 1
    assert fill.stat().st_size == 80 * MIB, "nothing is deleted"
    fill.unlink()
    hive.event("DiskNoLongerFull", agent="coder")
    assert not hive.row("coder")["paused"]
    turn.gate.opened.set()
    hive.event("MessageAcked", id=id)
    hive.check_files()


def write(path: Path, size_mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))
