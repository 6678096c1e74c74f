"""hive as a service of a booted Debian: installed, upgraded under running agents, crashed, rebooted and removed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import os_image
import pytest
from missing_tool import missing_tool
from system.hive_process import eventually

from hive import __version__
from hive.runtimes import os_tree

from .conftest import build_wheel, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COMMAND_MAX_S = 120.0
"""Far more than a command takes; only a defect waits for it."""
NEWER = "9.9.9"
NO_MODEL = "http://127.0.0.1:9"
"""The discard port: agents need no login and no turn succeeds."""


class Machine:
    """A Debian of its own, booted by systemd-nspawn from a copy of the test image."""

    def __init__(self, tree: Path, binds: list[Path]):
        self._command = ["systemd-nspawn", "--quiet", "--boot", f"--directory={tree}", "--private-network"]
        self._command += ["--register=no", "--keep-unit", "--console=read-only", "--capability=all"]
        self._command += [f"--bind={path}" for path in binds]
        self.boot()

    def boot(self) -> None:
        """Start it and wait until its systemd has started everything."""
        self._nspawn = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._leader, "the container has a first process")
        eventually(
            lambda: self.try_run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"), "up"
        )

    def reboot(self) -> None:
        self.try_run("systemctl", "poweroff", "--no-block")
        self._nspawn.wait(COMMAND_MAX_S)
        self.boot()

    def off(self) -> None:
        self._nspawn.send_signal(signal.SIGKILL)
        self._nspawn.wait()

    def try_run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command inside, whatever comes of it."""
        enter = [
            "nsenter",
            f"--target={self._leader()}",
            "--all",
            "--",
            "env",
            "-i",
            "PATH=/opt/hive/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=COMMAND_MAX_S, check=False)

    def run(self, *command: str) -> str:
        done = self.try_run(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def data(self, *command: str) -> Any:
        return json.loads(self.run(*command, "--json"))

    def _leader(self) -> int:
        """The first process inside, as the host sees it; 0 before there is one."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
            for child in children:
                if (
                    "systemd" in Path(f"/proc/{child}/comm").read_text()
                    and Path(f"/proc/{child}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
                ):
                    return int(child)
        return 0


@pytest.fixture
def machine(wheel: Path, tmp_path: Path) -> Iterator[Machine]:
    if (why := os_tree.host_lacks("nspawn")) is not None:
        missing_tool(why)
    os_image.ensure()
    if not os_image.FOLDER.exists():
        missing_tool("mmdebstrap is not installed; it makes the system that is booted")
    tree, home = tmp_path / "tree", tmp_path / "tree" / "opt" / "hive"
    run("cp", "-a", "--reflink=auto", os_image.FOLDER, tree, cwd=tmp_path)
    shutil.copy2(shutil.which("bwrap") or "", tree / "usr/bin/bwrap")
    (tree / "etc/machine-id").write_text("")
    venv.create(home, symlinks=True)
    packages = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install(home, wheel)
    _at_its_place(home)
    (tree / "var/lib/hive").mkdir()
    (tree / "var/lib/hive/hive.toml").write_text(f'[claude]\nbase_url = "{NO_MODEL}"\n')
    booted = Machine(tree, [Path(sys.base_prefix), Path(sysconfig.get_path("purelib"))])
    try:
        yield booted
    finally:
        booted.off()


def install(home: Path, wheel: Path) -> None:
    command = [sys.executable, "-m", "pip", f"--python={home}/bin/python", "install", "--no-index", "--no-deps"]
    run(*command, "--force-reinstall", wheel, cwd=home)


def _at_its_place(home: Path) -> None:
    """Scripts name the interpreter by the path that the environment has inside."""
    for script in (home / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            script.write_text(script.read_text().replace(str(home), "/opt/hive"))


def test_service_lives_through_upgrade_crash_and_reboot(machine: Machine, tmp_path: Path) -> None:
    installed = machine.data("hive", "service", "install")
    assert installed["unit"] == "/etc/systemd/system/hive.service"
    status = machine.data("hive", "service", "status")
    assert (status["enabled"], status["active"]) == ("enabled", "active")
    assert {"hive-dashboard", "hive-broker"} <= {line.split(":")[0] for line in machine.run("getent", "passwd").split()}

    machine.run("hive", "spawn", "coder")
    before = runs(machine)
    assert set(before) == {"manager", "coder"}

    # A newer wheel under running agents.
    home = tmp_path / "tree" / "opt" / "hive"
    install(home, build_wheel(tmp_path / "newer", version=NEWER))
    _at_its_place(home)
    assert machine.run("hive", "--version").strip() == NEWER != __version__
    machine.run("systemctl", "restart", "hive")
    assert runs(machine) == before
    (booted,) = [row for row in machine_log(machine, "Booted") if row["data"]["hive_version"] == NEWER]
    assert booted

    # A crash of the daemon.
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "hive")
    eventually(lambda: machine.try_run("hive", "status").returncode == 0, "systemd starts the daemon again")
    assert machine.data("hive", "service", "status")["restarts"] >= 1
    assert runs(machine) == before

    machine.reboot()
    eventually(lambda: machine.try_run("hive", "status").returncode == 0, "the daemon starts at boot")
    eventually(lambda: set(runs(machine)) == set(before), "the agents that should run are started")
    assert not set(runs(machine).values()) & set(before.values())

    removed = machine.data("hive", "service", "uninstall")
    assert removed["state"] == "/var/lib/hive"
    assert not (tmp_path / "tree/etc/systemd/system/hive.service").exists()
    assert "hive" not in machine.run("getent", "passwd")
    assert "hive" not in machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").replace("hive/bin", "")
    assert machine.try_run("hive", "service", "status").returncode == 1
    assert machine.run("hive", "audit", "verify")


def runs(machine: Machine) -> dict[str, str]:
    """The incarnation of each agent that runs."""
    started = {row["data"]["agent"]: row["data"]["incarnation"] for row in machine_log(machine, "Started")}
    running = {row["name"] for row in machine.data("hive", "agents") if row["running"]}
    return {name: incarnation for name, incarnation in started.items() if name in running}


def machine_log(machine: Machine, type_: str) -> list[dict[str, Any]]:
    lines = machine.run("hive", "log", "--type", type_, "--json").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(autouse=True)
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root boots a system")
