"""Exit reasons of containers, and crash loops."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hive.deciders.lifecycle import CRASHES_MAX, RESTART_FIRST_MS
from hive.runtimes import cgroup

from .conftest import MakeHive
from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system

BREAKS_PYTHON = '[environment]\nPYTHONHOME = "/nowhere"\n'
TOO_LITTLE_MB = 16
"""Less memory than a harness needs."""
ENOUGH_MB = 150
EAT = """
import os, sys
for group in sys.argv[1:]:
    open(group + "/cgroup.procs", "w").write("0")
eaten = [bytes(range(256)) * 4096 for _ in range(400)]
"""


def has_memory_groups() -> bool:
    return os.geteuid() == 0 and any("memory" in controllers for _, _, controllers in cgroup.hierarchies())


def told(hive: HiveProcess, to: str, event: str, **fields: Any) -> list[dict[str, Any]]:
    """Notices from `system` in an inbox."""
    sent = [row["body"] for row in hive.events("MessageSent", to=to, from_="system")]
    notices = [notice for notice in map(json.loads, sent) if notice["event"] == event]
    return [notice for notice in notices if all(notice.get(key) == value for key, value in fields.items())]


def test_crash_loop_backs_off_and_ends_in_rest(hive: HiveProcess) -> None:
    reasons = {"broken": "exit code 1"}
    if has_memory_groups():
        reasons["glutton"] = "out of memory"
    for name, text in (("broken", BREAKS_PYTHON), ("glutton", f"[limits]\nmemory_mb = {TOO_LITTLE_MB}\n")):
        hive.spawn(name)
        hive.ask("stop", scope={"agent_names": [name]}, graceful=False)
        hive.configure(name, text)
    first = hive.head() + 1
    for name in reasons:
        hive.ask("start", scope={"agent_names": [name]})
    for name, reason in reasons.items():
        eventually(
            lambda name=name: told(hive, "operator", "rested", agent=name), f"{name} rests and the operator knows"
        )
        crashes = hive.events("Crashed", first=first, agent=name)
        assert [row["reason"] for row in crashes] == [reason] * CRASHES_MAX
        assert [row.get("out_of_memory", False) for row in crashes] == [reason == "out of memory"] * CRASHES_MAX
        assert "restart_ms" not in crashes[-1]
        starts = [row["reason"] for row in hive.events("Started", first=first, agent=name)]
        assert starts == ["start", *["crash"] * (CRASHES_MAX - 1)]
        waits = [row["restart_ms"] - row["ended_ms"] for row in crashes[:-1]]
        assert all(wait >= RESTART_FIRST_MS << nth for nth, wait in enumerate(waits)), waits
        assert len(told(hive, "manager", "crashed", agent=name)) == CRASHES_MAX
        row = hive.row(name)
        assert (row["running"], row["failed"], row["failure"]) == (False, True, reason)
    said = hive.row("broken")["last_line"]
    assert said, "the interpreter says why it does not start"
    assert told(hive, "operator", "rested", agent="broken")[0]["last_line"] == said
    assert said in hive.run("agents")
    hive.kill()
    hive.up()
    hive.becomes_whole()
    assert not hive.row("broken")["running"], "a daemon restart does not start resting agents"
    seen = len(hive.events("Crashed", agent="broken"))
    hive.configure("broken", "")
    hive.ask("start", scope={"agent_names": ["broken"]})
    assert hive.row("broken")["running"]
    assert not hive.row("broken")["failed"]
    assert len(hive.events("Crashed", agent="broken")) == seen
    hive.check_files()


@pytest.mark.parametrize("seen_by", ["the daemon", "nobody"])
def test_exit_reasons_are_reported(hive: HiveProcess, seen_by: str) -> None:
    ends = {
        "killed": ("signal 9 (SIGKILL)", None, 9),
        "faulty": ("signal 11 (SIGSEGV)", None, 11),
        "tired": ("exit code 0", 0, None),
        "hungry": ("out of memory", None, 9),
    }
    if not has_memory_groups():
        del ends["hungry"]
    hive.spawn(*ends)
    if "hungry" in ends:
        hive.ask("stop", scope={"agent_names": ["hungry"]}, graceful=False)
        hive.configure("hungry", f"[limits]\nmemory_mb = {ENOUGH_MB}\n")
        hive.ask("start", scope={"agent_names": ["hungry"]})
    for name in ends:  # A connected harness handles SIGTERM.
        eventually(lambda name=name: is_connected(hive, name), f"{name} is connected")
    runs = {name: hive.running(name) for name in ends}
    first = hive.head() + 1
    if seen_by == "nobody":
        hive.kill()
    for name, signal_ in (("killed", signal.SIGKILL), ("faulty", signal.SIGSEGV), ("tired", signal.SIGTERM)):
        os.kill(runs[name].pid, signal_)
    if "hungry" in ends:
        starve(hive, "hungry", runs["hungry"].pid)
    for name in ends:
        eventually(lambda name=name: hive.running(name) != runs[name], f"{name} ends")
    if seen_by == "nobody":
        hive.up()
    for name, (reason, code, by_signal) in ends.items():
        crashed = hive.event("Crashed", first=first, agent=name)
        assert (crashed["reason"], crashed.get("code"), crashed.get("signal")) == (reason, code, by_signal), name
        assert crashed["incarnation"] == runs[name].incarnation
        assert crashed["ended_ms"]
        assert hive.event("Started", first=first, agent=name)["reason"] == "crash"
    hive.becomes_whole()


def is_connected(hive: HiveProcess, name: str) -> bool:
    row = hive.replayed().agents.all[name]
    return row.running and row.hello == row.incarnation


def starve(hive: HiveProcess, name: str, pid: int) -> None:
    """Fill the memory group of the agent from another process, with the agent as preferred OOM victim."""
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    groups = json.loads((hive.paths.record(name) / "run.json").read_text())["groups"]
    subprocess.run([sys.executable, "-c", EAT, *groups], stderr=subprocess.DEVNULL, check=False)


def test_agent_without_login_is_not_restarted(make_hive: MakeHive) -> None:
    hive = make_hive(model_url=None).up()
    hive.event("NeedsLogin", agent="manager")
    hive.spawn("coder", "writer", paused=False)
    for name in ("coder", "writer"):
        hive.event("NeedsLogin", agent=name)
    assert hive.row("coder")["needs_login"]
    run = hive.running("coder")
    assert run is not None
    first = hive.head() + 1
    id = hive.ask("send", to="coder", body="when you are back")["id"]
    os.kill(run.pid, signal.SIGKILL)
    crashed = hive.event("Crashed", first=first, agent="coder")
    assert "restart_ms" not in crashed
    (rested,) = told(hive, "operator", "rested", agent="coder")
    assert "needs login" in rested["reason"]
    credentials = hive.paths.agent_state("writer") / ".claude" / ".credentials.json"
    credentials.parent.mkdir(exist_ok=True)
    credentials.write_text("{}")
    hive.event("LoggedIn", agent="writer")
    assert hive.running("writer") is not None
    hive.kill()
    hive.up()
    hive.becomes_whole()
    assert hive.running("coder") is None
    assert not hive.events("Started", first=first, agent="coder")
    assert not hive.events("MessageDelivered", id=id)
    for name in ("coder", "writer"):
        assert len(hive.events("NeedsLogin", agent=name)) == 1, "no new event for an agent that already needs login"
