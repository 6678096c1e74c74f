"""The contract and isolation tests, run as an ordinary user."""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from missing_tool import missing_tool

import hive

UID = 65501
HERE = Path(__file__).parent


@pytest.fixture
def as_user(tmp_path_factory: pytest.TempPathFactory):
    """How to run Python as an unprivileged user: this interpreter, or the system's if it has the same version."""
    if os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    with tempfile.TemporaryDirectory(prefix="hive-user-") as home:
        os.chown(home, UID, UID)
        path = os.pathsep.join((str(Path(hive.__file__).parent.parent), sysconfig.get_path("purelib")))
        more = {
            "user": UID,
            "group": UID,
            "extra_groups": [],
            "cwd": home,
            "env": {
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": home,
                "TMPDIR": home,
                "PYTHONPATH": path,
                "PYTHONDONTWRITEBYTECODE": "1",
                "CI": os.environ.get("CI", ""),
            },
            "capture_output": True,
            "text": True,
        }
        for python in (sys.executable, "/usr/bin/python3"):
            check = f"import hive.runtimes.choose, pytest, sys; assert sys.version_info[:2] == {sys.version_info[:2]}"
            try:
                if subprocess.run([python, "-c", check], check=False, **more).returncode == 0:
                    yield python, more
                    return
            except OSError:
                continue
    missing = "no interpreter and packages that an ordinary user may read"
    if str(HERE).startswith("/root"):
        pytest.skip(missing)
    missing_tool(missing)


def test_contract_and_isolation_pass_as_ordinary_user(as_user):
    python, more = as_user
    done = subprocess.run(
        [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            str(HERE.parent.parent / "pyproject.toml"),
            "-rs",
            str(HERE / "test_contract.py"),
            str(HERE / "test_isolation.py"),
            str(HERE / "test_limits.py"),
            str(HERE / "test_ownership.py"),
        ],
        check=False,
        **more,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout.splitlines()[-1] or "%]" in done.stdout
    assert "bubblewrap is not installed" not in done.stdout
