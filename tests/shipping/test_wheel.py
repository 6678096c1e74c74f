"""The wheel, installed where no checkout is near, does the main job from any folder."""

import os
import sys
import zipfile
from pathlib import Path

import pytest
from missing_tool import missing_tool

from hive import __version__
from hive.errors import Unavailable
from hive.runtimes.choose import choose

from .conftest import ROOT, run

DEMO_MAX_S = 480.0
"""Far more than the demo takes; only a defect waits for it."""

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def test_wheel_passes_the_checks_of_the_index(wheel: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, cwd=wheel.parent)


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"hive", f"hive-{__version__}.dist-info"}
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hive").rglob("*.html")}
    assert data <= set(names)


def test_installed_version_is_that_of_the_package(installed: Path) -> None:
    assert run(installed / "hive", "--version", cwd=Path("/")) == f"{__version__}\n"
    where = run(installed / "python", "-c", "import hive; print(hive.__file__)", cwd=Path("/"))
    assert where.startswith(str(installed.parent))


def test_demo_runs_beside_another_package_named_hive(installed: Path, tmp_path: Path) -> None:
    try:
        choose()
    except Unavailable as error:
        missing_tool(str(error))
    (tmp_path / "hive").mkdir()
    (tmp_path / "hive" / "__init__.py").write_text("raise SystemExit('the wrong hive was imported')\n")
    (tmp_path / "hive.py").write_text("raise SystemExit('the wrong hive was imported')\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HIVE_", "PYTHON"))}
    account = run(installed / "hive", "demo", "--exit", cwd=tmp_path, timeout=DEMO_MAX_S, **environment)
    assert "Every step is in the log" in account
