"""The unit that `hive service install` writes passes systemd's check; hosts without systemd get an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from missing_tool import missing_tool

from hive.errors import NotFound, Unavailable
from hive.paths import Paths
from hive.systemd import Service

VERIFY_MAX_S = 60.0


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "a state" / "100%", tmp_path / "run")


@pytest.mark.parametrize("user", [False, True])
def test_systemd_accepts_the_unit(paths: Paths, tmp_path: Path, user: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        missing_tool("systemd-analyze is not installed; it checks the unit")
    unit = tmp_path / "hive.service"
    unit.write_text(Service(paths, user=user).text())
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=VERIFY_MAX_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_runs_this_installation_on_the_named_folders(paths: Paths) -> None:
    (start,) = [line for line in Service(paths, user=False).text().splitlines() if line.startswith("ExecStart=")]
    words = f'--state "{paths.state}" --run {paths.run}'.replace("%", "%%")
    assert start == f"ExecStart={sys.executable} -I -m hive up {words}"


def test_daemon_ends_alone_and_says_when_it_is_ready(paths: Paths) -> None:
    for user in (False, True):
        lines = Service(paths, user=user).text().splitlines()
        assert {"Type=notify", "KillMode=process", "Restart=on-failure"} <= set(lines)


def test_absent_service_is_named(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(NotFound, match="the service is not installed"):
        Service(paths, user=True).status()


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here and would install the service")
def test_refused_installation_leaves_nothing(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    service = Service(paths, user=True)
    with pytest.raises(Unavailable, match="systemctl"):
        service.install()
    assert not service.unit.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may install a system service")
def test_system_service_needs_root(paths: Paths) -> None:
    with pytest.raises(Unavailable, match="--user"):
        Service(paths, user=False).install()
