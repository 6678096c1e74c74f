"""The import contracts in `pyproject.toml` hold, and they reject forbidden imports."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = Path(sys.executable).parent / "lint-imports"


def linted(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-cache"], cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )


def test_layer_contracts_hold() -> None:
    result = linted(ROOT)
    assert result.returncode == 0, result.stdout


def test_layer_contracts_are_exhaustive() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract for contract in contracts if contract["type"] == "layers"]
    assert layers["exhaustive"] is True


def copied(to: Path) -> Path:
    """A copy of the sources and the contracts."""
    shutil.copytree(ROOT / "hive", to / "hive", ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def test_unmodified_copy_passes(tmp_path: Path) -> None:
    result = linted(copied(tmp_path))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("hive/weather/__init__.py", '"""A package without a layer."""'),
        ("hive/events/wrong.py", "from hive.deciders import decide"),
        ("hive/projections/wrong.py", "from hive.deciders import decide"),
        ("hive/deciders/wrong.py", "import time"),
        ("hive/deciders/wrong.py", "from hive.actors.journal import Journal"),
        ("hive/deciders/wrong.py", "import random"),
        ("hive/actors/wrong.py", "from hive.sockets.server import Sockets"),
        ("hive/sockets/wrong.py", "from hive.cli.main import app"),
        ("hive/harness/wrong.py", "from hive.projections.store import Store"),
        ("hive/harness/wrong.py", "from hive.actors.journal import Journal"),
        ("hive/dashboard/wrong.py", "from hive.actors.journal import Journal"),
        ("hive/dashboard/wrong.py", "from hive.deciders import decide"),
        ("hive/scripted_model/wrong.py", "from hive.events import AnyEvent"),
        ("hive/names.py", "from hive.events import AnyEvent"),
    ],
)
def test_forbidden_import_fails(tmp_path: Path, path: str, line: str) -> None:
    wrong = copied(tmp_path) / path
    wrong.parent.mkdir(exist_ok=True)
    with wrong.open("a") as file:
        file.write(f"\n{line}\n")
    result = linted(tmp_path)
    assert result.returncode != 0
    assert "BROKEN" in result.stdout or "missing layer" in result.stdout.lower() or "weather" in result.stdout
