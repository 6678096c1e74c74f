"""The three errors for an unreachable daemon, and socket paths longer than the kernel's limit."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import hive.cli.agents  # noqa: F401  # Import before the child drops its privileges.
from hive.cli.main import main
from hive.paths import Paths
from hive.sockets.client import HostClient

from .conftest import Run
from .peer import serving

NOBODY = 65534
FOLDERS = """
import os, platformdirs
from hive.paths import default_paths
if os.geteuid() == 0:
    os.setresuid({uid}, {uid}, {uid})
print(default_paths().run)
"""


def test_no_daemon_is_exit_3(hive: Run) -> None:
    done = hive("status")
    assert done.returncode == 3
    assert done.stderr.startswith("hive: No daemon runs:")
    assert len(done.stderr.splitlines()) == 1


def test_missing_runtime_folder_prints_only_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that names the folder would print a warning once per process."""
    for variable in ("HIVE_STATE", "HIVE_RUN", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    command = [sys.executable, "-c", FOLDERS.format(uid=NOBODY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("/hive")
    assert done.stderr == ""


def test_stale_socket_is_exit_3(hive: Run, paths: Paths) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(paths.host_socket))
    left.close()
    done = hive("status")
    assert done.returncode == 3
    assert done.stderr.startswith("hive: Nothing listens on")


def test_no_permission_is_exit_3() -> None:
    with tempfile.TemporaryDirectory(prefix="hive-test-") as folder:
        path = Path(folder) / "host.sock"
        Path(folder).chmod(0o755)
        with serving(path, {}):
            path.chmod(0o000)
            code, said = _as_nobody(["status", "--run", folder, "--state", folder])
    assert code == 3
    assert said.startswith("hive: No permission for")


def _as_nobody(arguments: list[str]) -> tuple[int, str]:
    """Run the command in an unprivileged child and return its stderr."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            sys.stderr = os.fdopen(write, "w")
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresuid(NOBODY, NOBODY, NOBODY)
            code = main(arguments)
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def test_daemon_that_exits_before_its_reply_is_exit_3(hive: Run, paths: Paths) -> None:
    with serving(paths.host_socket, {"kill": lambda _: []}):
        done = hive("kill", "x")
    assert done.returncode == 3
    assert "ended before it answered" in done.stderr


def test_reply_that_is_not_json_is_exit_3(hive: Run, paths: Paths) -> None:
    with serving(paths.host_socket, {"kill": {"version": 2}}):
        done = hive("kill", "x")
    assert done.returncode == 3
    assert "version 1" in done.stderr


def test_long_socket_paths_work(hive: Run, tmp_path: Path) -> None:
    run = tmp_path / ("long" * 30) / ("er" * 60)
    run.mkdir(parents=True)
    with serving(run / "host.sock", {"list": {"agents": ["coder"]}}), HostClient(run / "host.sock") as client:
        assert client.ask("list") == {"agents": ["coder"]}
        assert client.ask("list") == {"agents": ["coder"]}
    assert hive("status", "--run", str(run / "absent")).stderr.startswith("hive: No daemon runs")


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_large_replies_are_read(paths: Paths, size: int) -> None:
    with serving(paths.host_socket, {"diff": {"diff": "x" * size}}), HostClient(paths.host_socket) as client:
        assert len(client.ask("diff", id=1)["diff"]) == size
