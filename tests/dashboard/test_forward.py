"""`hive forward` in a real browser that is signed in to the dashboard: neither side gets the other's cookies."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from system.hive_process import DEADLINE_S, HiveProcess, eventually
from system.sandboxed_hive import sandboxed_hive
from system.test_broker import turn

from hive.dashboard.guard import COOKIE
from hive.scripted_model import ScriptedModel

from .conftest import answers

pytestmark = pytest.mark.system

SERVER = """
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Set-Cookie", "theirs=1; Path=/")
        self.end_headers()
        self.wfile.write(f"host {self.headers['host']} cookies {self.headers['cookie']}".encode())
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Echo).serve_forever()
"""


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as one:
        yield one


@pytest.fixture(scope="module")
def hive(model: ScriptedModel) -> Iterator[HiveProcess]:
    with sandboxed_hive({}, model_url=model.url, dashboard=True) as one:
        eventually(lambda: answers(one), "the dashboard answers")
        yield one


def test_forwarded_page_and_dashboard_share_no_cookies(
    hive: HiveProcess, model: ScriptedModel, browser: Browser
) -> None:
    (hive.paths.agent_state("coder") / "server.py").write_text(SERVER)
    turn(hive, model, "(setsid python3 /state/server.py >/dev/null 2>&1 &) && sleep 0.1")
    token = hive.ask("operators", action="add", name="mara")["token"]
    command = [sys.executable, "-m", "hive", "forward", "coder", "8000", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=hive.environment(), stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None
        url = forward.stdout.readline().removeprefix("forwarding ").strip()
        port = int(url.rpartition(":")[2])
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{hive.url}/login")
        page.get_by_label("Operator token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{hive.url}/")

        page.goto(url)
        assert page.inner_text("body") == f"host coder.localhost:{port} cookies None"
        page.reload()
        assert page.inner_text("body") == f"host coder.localhost:{port} cookies theirs=1"
        refused = page.goto(f"http://127.0.0.1:{port}/")
        assert refused is not None
        assert refused.status == 421, "under this name the browser sends the dashboard's cookie along"
        assert COOKIE not in page.inner_text("body")
        assert [one["name"] for one in context.cookies(hive.url)] == [COOKIE]
        signed_in = page.goto(f"{hive.url}/agent/coder/")
        assert signed_in is not None
        assert signed_in.status == 200
        context.close()

        forward.send_signal(signal.SIGINT)
        assert forward.wait(DEADLINE_S) == 0
    with socket.socket() as one:
        assert one.connect_ex(("127.0.0.1", port)) != 0, "the port is closed"


def test_agent_has_no_way_to_open_a_port(hive: HiveProcess, model: ScriptedModel) -> None:
    with hive.agent("coder") as agent:
        for verb in ("forward", "open_port", "listen"):
            assert "unknown" in agent.say(verb, port=8000)["error"]
    assert turn(hive, model, "find / -name forward.sock 2>/dev/null | wc -l") == "0"
    assert (hive.paths.record("coder") / "forward.sock").exists()
