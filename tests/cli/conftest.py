"""Runs the real command line as a process with its own folders."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hive.paths import Paths

PATIENCE_S = 120.0
"""Far longer than any command takes; reached only by a defect."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "state", tmp_path / "run")
    paths.state.mkdir()
    paths.run.mkdir()
    return paths


@pytest.fixture
def environment(paths: Paths) -> dict[str, str]:
    quiet = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**quiet, "HIVE_STATE": str(paths.state), "HIVE_RUN": str(paths.run), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def hive(environment: dict[str, str]) -> Run:
    """Run `hive ARGUMENTS…` with pipes."""

    def run(*arguments: str, input: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hive", *arguments],
            env={**environment, **more},
            input=input,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run
