"""A demo whose agent cannot run stops at once and says why."""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from system.hive_process import HiveProcess, eventually

from hive.demo import follow_steps
from hive.demo.steps import STEPS
from hive.demo.temporary_hive import DemoHive
from hive.names import MANAGER

pytestmark = pytest.mark.system


def test_agent_that_rests_after_a_crash_stops_the_demo() -> None:
    """An agent without a login rests after its first crash; others crash five times before."""
    hive = HiveProcess(model_url=None)
    said = io.StringIO()
    try:
        hive.up()
        hive.event("NeedsLogin", agent=MANAGER)
        eventually(lambda: hive.replayed().agents.all[MANAGER].hello, "the harness is connected")
        run = hive.running(MANAGER)
        assert run is not None and hive.daemon is not None
        os.kill(run.pid, signal.SIGKILL)
        demo = DemoHive(hive.paths, hive.ready, hive.daemon)  # type: ignore[arg-type]
        assert not follow_steps(demo, Console(file=said, soft_wrap=True))
    finally:
        hive.close()
    text = said.getvalue()
    last_line = hive_last_line(text)
    assert "manager crashed and is not restarted: signal 9 (SIGKILL)" in text
    assert last_line in text.partition("The last lines that its container wrote")[2]
    assert "Claude Code" in text.partition("`hive doctor` says:")[2]
    assert f"of {len(STEPS)} steps are in the log. The first missing one is " in text
    assert len(text.partition("steps are in the log")[2].splitlines()) == 1


def hive_last_line(text: str) -> str:
    line = next(line for line in text.splitlines() if "signal 9 (SIGKILL): " in line)
    return line.partition("signal 9 (SIGKILL): ")[2]


def test_agent_that_cannot_be_started_stops_the_demo(tmp_path: Path) -> None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("bubblewrap is not installed")
    fails = tmp_path / "bwrap"
    fails.write_text(f'#!/bin/sh\ncase "$1" in --args) echo broken by a test >&2; exit 1;; esac\nexec {bwrap} "$@"\n')
    fails.chmod(0o755)
    done = subprocess.run(
        [Path(sys.executable).parent / "hive", "demo", "--exit"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "manager: spawn failed: " in done.stdout
    assert "broken by a test" in done.stdout
    assert "`hive doctor` says:" in done.stdout
