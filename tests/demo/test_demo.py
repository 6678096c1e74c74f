"""`hive demo` as a process. Only the paid model is replaced."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from missing_tool import missing_tool

from hive.demo.steps import STEPS
from hive.demo.temporary_hive import STATE_FOLDER
from hive.errors import Unavailable
from hive.runtimes.choose import choose

pytestmark = pytest.mark.timeout(600)
"""The first test runs the demo."""

DEMO_MAX_S = 480.0
COMMAND_MAX_S = 120.0
"""Generous; only a defect takes this long."""


SCRIPT = Path(sys.executable).parent / "hive"


def hive(
    *arguments: str, timeout: float = COMMAND_MAX_S, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, timeout=timeout, check=False, cwd=folder
    )


def plant_another_hive(folder: Path) -> Path:
    """A package named `hive` that reports its import; returns the path of the report."""
    package, imported = folder / "hive", folder / "imported"
    package.mkdir()
    package.joinpath("__init__.py").write_text(f"open({str(imported)!r}, 'a').close(); raise SystemExit(1)")
    return imported


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> "tuple[subprocess.CompletedProcess[str], Path]":
    """The output of one demo, run beside another package named `hive`, and the folder of its kept state."""
    try:
        choose()
    except Unavailable as error:
        missing_tool(str(error))
    keep, folder = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("working-directory")
    imported = plant_another_hive(folder)
    done = hive("demo", "--exit", "--keep", str(keep), timeout=DEMO_MAX_S, folder=folder)
    assert not imported.exists(), done.stdout + done.stderr
    return done, keep


@pytest.mark.system
def test_demo_finds_every_step_in_the_log(finished_demo: "tuple[subprocess.CompletedProcess[str], Path]") -> None:
    done, _ = finished_demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every step is in the log" in done.stdout
    assert sum(step.type in done.stdout for step in STEPS) == len(STEPS)


@pytest.mark.system
def test_keep_leaves_one_valid_state_folder(
    finished_demo: "tuple[subprocess.CompletedProcess[str], Path]",
) -> None:
    _, keep = finished_demo
    assert [path.name for path in keep.iterdir()] == [STATE_FOLDER]
    state = keep / STATE_FOLDER
    assert not list(state.glob("*-wal"))
    assert hive("audit", "verify", "--state", str(state)).returncode == 0
    assert hive("projections", "check", "--state", str(state)).returncode == 0


@pytest.mark.system
def test_turns_are_taken_by_the_real_cli(finished_demo: "tuple[subprocess.CompletedProcess[str], Path]") -> None:
    _, keep = finished_demo
    state = keep / STATE_FOLDER
    transcripts = list((state / "agents" / "coder" / "state" / ".claude" / "projects").rglob("*.jsonl"))
    assert transcripts and all(path.stat().st_size for path in transcripts)
    log = hive("log", "--state", str(state), "--json", "--type", "TurnEnded", "--agent", "coder").stdout.splitlines()
    turns = [json.loads(line)["data"] for line in log]
    assert turns and all(turn["input_tokens"] for turn in turns)
    assert json.loads(turns[0]["tool_calls_json"])["Bash"] == 1
    assert (state / "agents" / "coder" / "state" / "badge.txt").read_text() == "mauve\n"


def test_existing_state_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / STATE_FOLDER).mkdir()
    done = hive("demo", "--exit", "--keep", str(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "Remove it" in done.stderr


def test_missing_bubblewrap_error_says_what_to_install(tmp_path: Path) -> None:
    """The demo prints the daemon's own error in one line."""
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


def test_missing_git_error_says_what_to_install(tmp_path: Path) -> None:
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
