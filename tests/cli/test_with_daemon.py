"""The command line against a real daemon, without turns."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hive.paths import Paths
from hive.runtimes.record import Record

from .conftest import PATIENCE_S, Run

pytestmark = pytest.mark.system

NO_MODEL = "http://127.0.0.1:9"
"""The discard port: no agent takes a turn in these tests."""


@pytest.fixture
def daemon(environment: dict[str, str], paths: Paths, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with (tmp_path / "daemon.log").open("w") as log:
        command = ["up", "--runtime", "process", "--no-dashboard", "--model-url", NO_MODEL]
        process = subprocess.Popen(
            [sys.executable, "-m", "hive", *command], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert ready.startswith("hive ready "), (tmp_path / "daemon.log").read_text()
    yield process
    if process.poll() is None:
        subprocess.run([sys.executable, "-m", "hive", "down"], env=environment, check=False, timeout=PATIENCE_S)
        process.send_signal(signal.SIGKILL)
    process.wait()
    for record in (paths.run / "records").glob("*"):
        Record(record).kill()  # An agent outlives the daemon.


def data(hive: Run, *arguments: str) -> Any:
    done = hive(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), arguments
    return json.loads(done.stdout)


def test_commands_against_a_real_daemon(daemon: subprocess.Popen[str], hive: Run, paths: Paths, tmp_path: Path) -> None:
    second = hive("up", "--runtime", "process", "--no-dashboard")
    assert second.returncode == 1
    assert "already runs" in second.stderr.splitlines()[-1]

    data(hive, "spawn", "coder")
    data(hive, "pause", "coder")
    (id,) = data(hive, "send", "coder", "hello")["ids"]
    rows = {row["name"]: row for row in data(hive, "agents")}
    assert set(rows) == {"coder", "manager"}
    assert (rows["coder"]["paused"], rows["coder"]["waiting"]) == (True, 1)
    assert [row["body"] for row in data(hive, "inbox", "--agent", "coder")] == ["hello"]

    approval = data(hive, "request-spawn", "helper", "--description", "for tests")["id"]
    assert [row["id"] for row in data(hive, "status")["approvals"]] == [approval]
    assert f"hive approve {approval}" in hive("status").stdout
    data(hive, "deny", str(approval), "--note", "no need")
    again = hive("deny", str(approval))
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)
    assert data(hive, "approvals")[-1]["note"] == "no need"

    (tmp_path / "project").mkdir()
    data(hive, "stop", "coder")
    data(hive, "mount", "coder", str(tmp_path / "project"), "--ro")
    assert [row["folder"] for row in data(hive, "mounts", "coder")] == ["project"]
    data(hive, "unmount", "coder", str(tmp_path / "project"))
    assert "agent.toml" in {file["path"] for file in data(hive, "config", "coder")["files"]}
    assert data(hive, "operator", "add", "mara")["token"]
    assert [row["name"] for row in data(hive, "operator", "list")] == ["mara"]
    assert hive("logs", "coder").returncode == 0
    assert hive("kill", "ghost").returncode == 1

    assert hive("audit", "verify").returncode == 0
    assert hive("projections", "check").returncode == 0
    data(hive, "projections", "rebuild")
    assert hive("projections", "check").returncode == 0
    assert [row["type"] for row in data(hive, "audit", "why", "message", str(id))] == ["MessageSent"]
    assert "ApprovalResolved" in {row["type"] for row in data(hive, "audit", "why", "approval", str(approval))}
    assert "unknown" not in hive("doctor").stdout

    data(hive, "destroy", "coder", "--yes")
    assert [row["name"] for row in data(hive, "status")["tombstones"]] == ["coder"]

    assert hive("down").returncode == 0
    assert daemon.wait(PATIENCE_S) == 0
    assert [path.name for path in paths.state.iterdir() if path.name.endswith(("-wal", "-shm"))] == []
    assert hive("status").returncode == 3
    assert hive("audit", "verify").returncode == 0
    assert hive("projections", "check").returncode == 0
    logged = [json.loads(line) for line in hive("log", "--from", "1", "--json").stdout.splitlines()]
    assert [row["seq"] for row in logged] == list(range(1, len(logged) + 1))
    assert {"Booted", "Spawned", "Paused", "MessageSent", "Destroyed", "ShutDown"} <= {row["type"] for row in logged}


@pytest.mark.parametrize(
    ("arguments", "environment_", "said"),
    [
        (["--runtime", "process", "--listen", "192.0.2.1:7000"], {}, "--listen must be on loopback"),
        (["--runtime", "auto"], {"PATH": ""}, "No sandboxed runtime works on this host"),
        (["--runtime", "process"], {"HIVE_RUN": "/dev/null/run"}, "/dev/null/run: Not a directory."),
    ],
)
def test_refused_start_leaves_no_files(
    hive: Run, tmp_path: Path, arguments: list[str], environment_: dict[str, str], said: str
) -> None:
    new = tmp_path / "new"
    done = hive("up", *arguments, **{"HIVE_STATE": f"{new}/state", "HIVE_RUN": f"{new}/run", **environment_})
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert said in done.stderr
    assert not new.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[runtme]", "unknown key runtme; did you mean runtime?"),
        ("[runtime]\nfirst_uid = 'x'", "Expected `int`, got `str` - at `$.runtime.first_uid`."),
        ("[", "is not TOML"),
        ("[dashboard]\nlisten = '192.0.2.1:7000'", "dashboard.listen must be on loopback"),
    ],
)
def test_up_names_the_error_of_a_bad_hive_toml(hive: Run, paths: Paths, text: str, said: str) -> None:
    paths.settings.write_text(text)
    done = hive("up", "--runtime", "process")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(f"hive: {paths.settings}")
    assert said in done.stderr
    assert [path.name for path in paths.state.iterdir()] == [paths.settings.name]


def test_interrupted_daemon_closes_its_files(daemon: subprocess.Popen[str], hive: Run, paths: Paths) -> None:
    assert data(hive, "down", "--keep-agents") == {}
    assert daemon.wait(PATIENCE_S) == 0
    assert not paths.events.with_name("events.db-wal").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--listen=nowhere",
        "--listen=127.0.0.1:",
        "--listen=127.0.0.1:70000",
        "--listen=:7000",
        "--listen=[::1",
        "--model-url=nope",
        "--model-url=http://",
        "--model-url=http://x:y",
    ],
)
def test_malformed_address_is_a_usage_error(hive: Run, tmp_path: Path, option: str) -> None:
    state = tmp_path / "new"
    done = hive("up", "--runtime", "process", option, HIVE_STATE=str(state))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert f"{option.partition('=')[0]} must be" in done.stderr
    assert not state.exists()
