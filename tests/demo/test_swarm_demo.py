"""`hive demo --swarm` as a process: two hives in network namespaces, of root or of an ordinary user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from missing_tool import missing_tool

from hive.demo.hosts import network
from hive.demo.swarm_steps import STEPS
from hive.demo.temporary_hive import STATE_FOLDER
from hive.demo.two_hives import NAMES
from hive.errors import Unavailable
from hive.runtimes.choose import choose

DEMO_MAX_S = 280.0


def hive(*arguments: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    environment = os.environ if path is None else {**os.environ, "PATH": path}
    command = [sys.executable, "-m", "hive", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEMO_MAX_S, env=environment, check=False)


@pytest.mark.system
def test_story_of_two_hives_is_in_both_logs(tmp_path: Path) -> None:
    try:
        choose()
        with network():
            pass
    except Unavailable as error:
        missing_tool(str(error))
    done = hive("demo", "--swarm", "--exit", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(line.startswith(NAMES) for line in done.stdout.splitlines()) == len(STEPS)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FOLDER]
    for name in NAMES:
        state = tmp_path / STATE_FOLDER / name
        assert hive("audit", "verify", "--state", str(state)).returncode == 0
        assert hive("projections", "check", "--state", str(state)).returncode == 0
    badge = tmp_path / STATE_FOLDER / "tokyo" / "agents" / "coder" / "state" / "badge.txt"
    assert badge.read_text() == "mauve\n"


def test_missing_program_error_says_what_to_install(tmp_path: Path) -> None:
    git = shutil.which("git")
    if git is None:
        missing_tool("git is not installed")
    (tmp_path / "git").symlink_to(git)
    done = hive("demo", "--swarm", "--exit", path=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "hive: ip is not installed: apt-get install iproute2\n")
