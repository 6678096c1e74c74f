"""Start of the dashboard: with the daemon, separately, on an occupied port; and the first login link."""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from system.hive_process import HiveProcess, eventually

from .conftest import Person

pytestmark = pytest.mark.system


@pytest.fixture
def alone() -> Iterator[HiveProcess]:
    one = HiveProcess()
    yield one
    one.close()


def test_first_start_prints_the_login_link_only_to_a_terminal(alone: HiveProcess) -> None:
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "hive",
        "up",
        "--runtime",
        "process",
        "--listen",
        "127.0.0.1:0",
        "--model-url",
        "http://127.0.0.1:9",
    ]
    alone.folder.joinpath("daemon.log").touch()
    alone.users.write_into(alone.paths.settings)
    with alone.output.open("ab") as log:
        daemon = subprocess.Popen(command, env=alone.environment(), cwd=alone.folder, stdout=theirs, stderr=log)
    os.close(theirs)
    said, deadline = "", time.monotonic() + 60
    while "/login#" not in said or not said.endswith("\n"):
        assert time.monotonic() < deadline, said
        if select.select([ours], [], [], 1)[0]:
            said += os.read(ours, 4096).decode()
    alone.ready = next(line for line in said.splitlines() if line.startswith("hive ready "))
    secret = re.search(r"/login#(\S+)", said)
    assert secret is not None
    eventually(lambda: _healthy(alone.url), "the dashboard answers")
    with Person(alone) as person:
        assert person.sign_in(secret[1]).status_code == 200
        assert person.get("/api/state").status_code == 200
    with Person(alone) as second:
        assert second.sign_in(secret[1]).status_code == 401
    assert secret[1] not in alone.output.read_text()
    with alone.reading() as reader:
        assert not [row for row in reader.rows(1) if secret[1] in row.data]
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    os.close(ours)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_occupied_port_does_not_stop_the_daemon(alone: HiveProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        alone.listen = f"127.0.0.1:{taken.getsockname()[1]}"
        alone.up()
        assert "dashboard=" not in alone.ready
        assert "cannot listen" in alone.output.read_text()
        assert "without a dashboard" in alone.try_run("operator", "link").stderr


def test_dashboard_command_serves_a_daemon_without_one(alone: HiveProcess) -> None:
    alone.up()
    token = alone.ask("operators", action="add", name="mara")["token"]
    command = [sys.executable, "-m", "hive", "dashboard", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=alone.environment(), stdout=subprocess.PIPE, text=True) as dashboard:
        assert dashboard.stdout is not None
        alone.ready = f"hive ready dashboard={dashboard.stdout.readline().split()[1]}"
        eventually(lambda: _healthy(alone.url), "the dashboard answers")
        with Person(alone) as person:
            assert person.sign_in(token).status_code == 200
            assert person.post("/pause/manager").status_code == 200
        dashboard.send_signal(signal.SIGINT)
        dashboard.wait(30)


def test_health_reports_a_missing_daemon_and_pages_retry(alone: HiveProcess) -> None:
    alone.listen = "127.0.0.1:0"
    alone.up()
    eventually(lambda: _healthy(alone.url), "the dashboard answers")
    url = alone.url
    with Person(alone) as person:
        person.sign_in(alone.ask("operators", action="add", name="mara")["token"])
        alone.paths.dashboard_socket.unlink()
        assert httpx.get(f"{url}/healthz").status_code == 503
        page = person.get("/", headers={"Accept": "text/html"})
        assert (page.status_code, "reloads every" in page.text) == (503, True)
        assert person.get("/api/state").status_code == 503
        assert person.get("/agent/manager/api/state").json() == {"reachable": False, "inbox": [], "recent": []}
