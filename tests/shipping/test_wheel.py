"""The wheel, installed where no checkout is near, does the main job from any folder."""

import sys
import zipfile
from pathlib import Path

import pytest

from hive import __version__

from .conftest import ROOT, run

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
