"""From inside an agent's sandbox: the dashboard's port is on another network, and its files are not there."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from missing_tool import missing_tool
from system.hive_process import HiveProcess, eventually
from system.test_agent_walls import ordinary

from hive.dashboard.guard import COOKIE
from hive.runtimes.bubblewrap import BubblewrapRuntime
from hive.scripted_model import ScriptedModel, call, say

from .conftest import Person, answers

pytestmark = pytest.mark.system

PROBE = """
import json, socket, sys, urllib.error, urllib.request
url, paths, cookie = json.loads(open("targets.json").read())
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given): return None
opener = urllib.request.build_opener(Stay)
def status(path, data=None, **headers):
    try:
        return opener.open(urllib.request.Request(url + path, data, headers), timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return type(error.reason).__name__
def opens(path):
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path).close()
    except OSError:
        return False
    return True
found = {
    "read": status("/api/state"),
    "page": status("/", Accept="text/html"),
    "approve": status("/approve/1", b"", Origin=url),
    "guess": status("/login", b"token=guess", Origin=url, **{"Content-Type": "application/x-www-form-urlencoded"}),
    "stolen": status("/api/state", Cookie=cookie),
    "opened": [path for path in paths if opens(path)],
}
with open("report.new", "w") as file:
    json.dump(found, file)
import os; os.rename("report.new", "report.json")
"""


@pytest.fixture(params=["root", "ordinary user"])
def hive(request: pytest.FixtureRequest) -> Iterator[HiveProcess]:
    """A bubblewrap hive of root, whose agents have their own uids, and one of an ordinary user, whose agents do not."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root runs a hive as root")
    if why := BubblewrapRuntime().unavailable_reason():
        missing_tool(why)
    with tempfile.TemporaryDirectory(prefix="hive-user-") as home, ScriptedModel() as model:
        python, user = ordinary(Path(home)) if request.param == "ordinary user" else (sys.executable, None)
        model.play("prober", [call("Bash", command="python3 probe.py", description="look around"), say("done")])
        one = HiveProcess(runtime="bubblewrap", model_url=model.url, python=python, user=user, dashboard=True)
        try:
            one.up()
            one.ask("set_paused", name="manager", paused=True)
            eventually(lambda: answers(one), "the dashboard answers")
            yield one
        finally:
            one.close()


def test_agent_cannot_use_the_dashboard(hive: HiveProcess) -> None:
    token = hive.ask("operators", action="add", name="mara")["token"]
    with hive.agent("manager") as manager:
        assert manager.ask("request_spawn", name="minion")["id"] == 1
    hive.spawn("prober", paused=True)
    state = hive.paths.agent_state("prober")
    with Person(hive) as mara:
        mara.sign_in(token).raise_for_status()
        stolen = f"{COOKIE}={mara.cookies[COOKIE]}"
        paths = [*hive.paths.run.rglob("*.sock"), hive.paths.sessions, hive.paths.events]
        hidden = [str(path) for path in paths if path != hive.paths.agent_socket("prober")]
        assert len(hidden) >= 4
        (state / "probe.py").write_text(PROBE)
        (state / "targets.json").write_text(json.dumps([hive.url, hidden, stolen]))
        hive.ask("set_paused", name="prober", paused=False)
        hive.ask("send", to="prober", body="look around")
        found = eventually(lambda: _report(state / "report.json"), "the prober reports")
        (approval,) = mara.get("/api/state").json()["state"]["approvals"]
    tries = ("read", "page", "approve", "guess", "stolen")
    assert found == {**dict.fromkeys(tries, "ConnectionRefusedError"), "opened": []}
    assert approval["status"] == "pending"


def _report(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None
