"""One wheel and one environment that it is installed into, for every test of this folder."""

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_MAX_S = 300.0
"""Far more than a build or an installation takes; only a defect waits for it."""


def run(*command: str | Path, cwd: Path, timeout: float = BUILD_MAX_S, **environment: str) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment or None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(folder: Path, version: str | None = None) -> Path:
    """The wheel of this checkout, of the files that git tracks; with another version if one is given."""
    source, dist = folder / "source", folder / "dist"
    for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    if version is not None:
        module = source / "hive" / "__init__.py"
        module.write_text(re.sub(r'(?<=__version__ = ")[^"]+', version, module.read_text()))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, source, cwd=source)
    (built,) = dist.glob("hive-*.whl")
    return built


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel and its dependencies, and without a checkout.

    The dependencies are those of the environment that runs the tests: no registry is asked. Its editable hive is not
    among them, since a `.pth` file adds folders and runs no hooks of theirs.
    """
    home = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(home, with_pip=True)
    bin = home / "bin"
    run(bin / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel, cwd=home)
    packages = Path(
        run(bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip()
    )
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bin
