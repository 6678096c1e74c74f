"""The demo as a newcomer runs it: a process, with nothing faked but the paid model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hive.demo.stage import STATE_FOLDER
from hive.demo.story import BEATS
from hive.errors import Unavailable
from hive.runtimes.choose import choose

pytestmark = pytest.mark.timeout(600)
"""Whichever test comes first tells the demo."""

DEMO_MAX_S = 480.0
COMMAND_MAX_S = 120.0
"""Far more than anything here takes; only a defect waits for it."""


def hive(*arguments: str, timeout: float = COMMAND_MAX_S) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hive", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> "tuple[subprocess.CompletedProcess[str], Path]":
    """The account of one demo, and the folder where its state was kept."""
    try:
        choose()
    except Unavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    keep = tmp_path_factory.mktemp("demo")
    return hive("demo", "--exit", "--keep", str(keep), timeout=DEMO_MAX_S), keep


@pytest.mark.system
def test_every_step_of_the_story_is_found(told: "tuple[subprocess.CompletedProcess[str], Path]") -> None:
    done, _ = told
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every step is in the log" in done.stdout
    assert sum(beat.type in done.stdout for beat in BEATS) == len(BEATS)


@pytest.mark.system
def test_exactly_one_state_folder_is_kept_and_its_log_holds(
    told: "tuple[subprocess.CompletedProcess[str], Path]",
) -> None:
    _, keep = told
    assert [path.name for path in keep.iterdir()] == [STATE_FOLDER]
    state = keep / STATE_FOLDER
    assert not list(state.glob("*-wal"))
    assert hive("audit", "verify", "--state", str(state)).returncode == 0
    assert hive("projections", "check", "--state", str(state)).returncode == 0


@pytest.mark.system
def test_its_turns_were_turns_of_the_real_cli(told: "tuple[subprocess.CompletedProcess[str], Path]") -> None:
    _, keep = told
    state = keep / STATE_FOLDER
    transcripts = list((state / "agents" / "coder" / "state" / ".claude" / "projects").rglob("*.jsonl"))
    assert transcripts and all(path.stat().st_size for path in transcripts)
    log = hive("log", "--state", str(state), "--json", "--type", "TurnEnded", "--agent", "coder").stdout.splitlines()
    turns = [json.loads(line)["data"] for line in log]
    assert turns and all(turn["input_tokens"] for turn in turns)
    assert json.loads(turns[0]["tool_calls_json"])["Bash"] == 1
    assert (state / "agents" / "coder" / "state" / "badge.txt").read_text() == "mauve\n"


def test_a_folder_that_has_a_demo_already_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / STATE_FOLDER).mkdir()
    done = hive("demo", "--exit", "--keep", str(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "remove it" in done.stderr


def test_without_bubblewrap_it_says_what_to_install(tmp_path: Path) -> None:
    """The daemon's own words, as one sentence."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    (tmp_path / "git").symlink_to(git)
    done = subprocess.run(
        [sys.executable, "-m", "hive", "demo", "--exit"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("hive: No sandboxed runtime works on this host. bubblewrap is not installed.")


def test_without_git_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "hive", "demo", "--exit"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path / "bin")},
        check=False,
    )
    assert shutil.which("git", path=str(tmp_path / "bin")) is None
    assert (done.returncode, done.stderr.strip()) == (1, "hive: git is not installed: apt-get install git")
