"""The broker in a real hive: real CLI turns whose key, network and budget are outside of the sandbox."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from broker.git_server import bare_repository, serve_git

from hive.scripted_model import ScriptedModel, call, say

from .hive_process import DEADLINE_S, HiveProcess, eventually
from .sandboxed_hive import sandboxed_hive, write
from .test_agent_walls import ordinary

pytestmark = pytest.mark.system

KEY = "sk-ant-top-secret-hive-dummy-coder"
"""The scripted model takes the end for the agent's name; the start is what must not be found inside."""
SEARCH = """
import os, urllib.request
needle = "terces-pot-tna-ks"[::-1].encode()
found, looked = [], 0
def look(name, data):
    global looked
    looked += 1
    if needle in data:
        found.append(name)
for name, value in os.environ.items():
    look("$" + name, value.encode())
for top in ("/proc", "/state", "/config", "/run", "/etc", "/tmp", "/work", "/dev/shm"):
    for folder, folders, files in os.walk(top):
        if top == "/proc":
            folders[:] = [one for one in folders if one.isdecimal() or folder.count("/") > 1 and one == "fd"]
            files = [one for one in files if one in ("environ", "cmdline", "maps", "status")]
        for file in files:
            path = os.path.join(folder, file)
            try:
                if os.path.isfile(path) and "search.py" not in path:
                    with open(path, "rb") as opened:
                        look(path, opened.read(1 << 24))
            except OSError:
                pass
base = os.environ["ANTHROPIC_BASE_URL"]
for path in ("", "/v1/models", "/v1/messages", "/v1/files", "/../../host/x/"):
    try:
        reply = urllib.request.urlopen(urllib.request.Request(base + path, method="GET"), timeout=20)
    except urllib.error.HTTPError as error:
        reply = error
    look(path, str(reply.headers).encode() + reply.read())
print("looked at many" if looked > 100 else looked, found)
"""


class _Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"reached")

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextlib.contextmanager
def web() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as one:
        yield one


@pytest.fixture(scope="module", params=["root", "ordinary user"])
def hive(request: pytest.FixtureRequest, model: ScriptedModel) -> Iterator[HiveProcess]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root runs a hive as root")
    settings = f'[claude]\nbase_url = "{model.url}"\napi_key_file = "anthropic.key"\n'
    with tempfile.TemporaryDirectory(prefix="hive-user-") as home:
        python, user = ordinary(Path(home)) if request.param == "ordinary user" else (sys.executable, None)
        with sandboxed_hive({"anthropic.key": KEY, "hive.toml": settings}, python=python, user=user) as one:
            yield one


def turn(hive: HiveProcess, model: ScriptedModel, *commands: str, as_: str = "", agent: str = "coder") -> str:
    """One turn that runs shell commands; what the last one printed. `as_`: for whom the model takes the agent."""
    steps = [*(call("Bash", command=command, description="try") for command in commands), say("done")]
    model.play(as_ or "coder", steps)
    first, before = hive.head() + 1, _newest_line(hive, agent)
    hive.ask("send", to=agent, body="go")
    ended = hive.event("TurnEnded", first=first, agent=agent)
    assert ended["result_kind"] == "ok", ended
    lines = eventually(
        lambda: _newest_line(hive, agent) != before and _lines_of(hive, agent, len(commands)), "the live stream"
    )
    return str(lines[-1]["text"]).strip()


def _newest_line(hive: HiveProcess, agent: str) -> object:
    return (hive.ask("live", name=agent)["lines"] or [None])[-1]


def _lines_of(hive: HiveProcess, agent: str, count: int) -> list[dict[str, object]]:
    """The results of the newest turn, once its end was streamed."""
    lines = hive.ask("live", name=agent)["lines"]
    starts = [index for index, line in enumerate(lines) if line["type"] == "turn_started"]
    if not starts or lines[-1]["type"] != "turn_ended":
        return []
    results = [line for line in lines[starts[-1] :] if line["type"] == "tool_result"]
    return results if len(results) == count else []


def test_key_is_nowhere_inside(hive: HiveProcess, model: ScriptedModel) -> None:
    (hive.paths.agent_state("coder") / "search.py").write_text(SEARCH)
    assert turn(hive, model, "python3 /state/search.py") == "looked at many []"
    assert all(KEY[:16] not in json.dumps(row) for row in hive.events())


def test_turn_is_metered_outside_and_rotated_key_is_used_without_a_restart(
    hive: HiveProcess, model: ScriptedModel
) -> None:
    first = hive.head() + 1
    turn(hive, model, "true")
    used = hive.event("ModelUsed", first=first, agent="coder")
    ended = hive.event("TurnEnded", first=first, agent="coder")
    tokens = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
    assert {name: used[name] for name in tokens} == {name: ended[name] for name in tokens}
    assert (used["model"], used["requests"] >= 2, used["errors"]) == (ended["model"], True, 0)
    for name in ("rotated", "coder"):
        write(hive, "anthropic.key", KEY.replace("coder", name))
        turn(hive, model, "true", as_=name)


def test_key_of_the_file_is_used_from_the_next_request_however_it_was_written(
    hive: HiveProcess, model: ScriptedModel
) -> None:
    path = hive.paths.state / "anthropic.key"
    for nth in range(30):
        write(hive, "anthropic.key", KEY.replace("coder", f"in-place-{nth}"))
        assert _asks_as(hive, model) == f"in-place-{nth}"
        write(hive, "anthropic.key.next", KEY.replace("coder", f"replaced-{nth}"))
        path.with_name("anthropic.key.next").rename(path)
        assert _asks_as(hive, model) == f"replaced-{nth}"
    settings = hive.paths.settings.read_text()
    write(hive, "second.key", KEY.replace("coder", "second"))
    write(hive, "hive.toml", settings.replace("anthropic.key", "second.key"))
    assert _asks_as(hive, model) == "second"
    write(hive, "second.key", KEY.replace("coder", "coder"))
    assert _asks_as(hive, model) == "coder"
    path.unlink()
    path.symlink_to("second.key")
    write(hive, "hive.toml", settings)
    write(hive, "second.key", KEY.replace("coder", "linked"))
    assert _asks_as(hive, model) == "linked"
    path.unlink()
    write(hive, "anthropic.key", KEY)
    assert _asks_as(hive, model) == "coder"


def _asks_as(hive: HiveProcess, model: ScriptedModel) -> str:
    """Whose key the broker adds to a request on the agent's socket now."""
    head = b"POST /model/anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    body = b'{"model": "m", "messages": [{"role": "user", "content": "probe"}]}'
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(hive.paths.agent_net_socket("coder")))
        one.sendall(head % len(body) + body)
        while one.recv(65536):
            continue
    return model.requests[-1].agent


def test_unlisted_host_is_asked_for_and_reached_once_approved(hive: HiveProcess, model: ScriptedModel) -> None:
    with web() as port:
        fetch = f"no_proxy= NO_PROXY= curl -s http://127.0.0.1:{port}/"
        assert "The operator is asked" in turn(hive, model, fetch)
        request = hive.event("ApprovalRequested", kind="egress", port=port)
        assert (request["agent"], request["host"]) == ("coder", "127.0.0.1")
        first = hive.head() + 1
        model.play("coder", [say("I go on.")])
        hive.run("approve", str(request["id"]))
        hive.event("TurnEnded", first=first, agent="coder")
        assert any("approval_resolved" in json.dumps(row) for row in hive.events("MessageDelivered", "MessageSent"))
        assert turn(hive, model, fetch) == "reached"
        hive.run("egress", "deny", f"127.0.0.1:{port}", "--agent", "coder")
        assert "may not connect" in turn(hive, model, fetch)


def test_web_fetch_of_the_cli_asks_for_its_own_host_alone(hive: HiveProcess, model: ScriptedModel) -> None:
    first = hive.head() + 1
    model.play("coder", [call("WebFetch", url="https://docs.example/x", prompt="What is it?"), say("done")])
    hive.ask("send", to="coder", body="go")
    assert hive.event("TurnEnded", first=first, agent="coder")["result_kind"] == "ok"
    hive.event("ApprovalRequested", first=first, kind="egress", host="docs.example", port=443)
    assert len(hive.events("ApprovalRequested", first=first, kind="egress")) == 1


def test_broker_that_is_killed_is_replaced_without_a_lost_turn(hive: HiveProcess, model: ScriptedModel) -> None:
    assert hive.daemon is not None
    children = Path(f"/proc/{hive.daemon.pid}/task/{hive.daemon.pid}/children")
    before = _broker(children)
    os.kill(before, signal.SIGKILL)
    turn(hive, model, "true")
    assert eventually(lambda: _broker(children), "another broker") != before


def _broker(children: Path) -> int:
    pids = [int(pid) for file in children.parent.parent.glob("*/children") for pid in file.read_text().split()]
    for pid in pids:
        with contextlib.suppress(OSError):
            if b"hive.broker\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return 0


def test_port_inside_is_forwarded_under_a_name_of_its_own(hive: HiveProcess, model: ScriptedModel) -> None:
    serve = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && cd /tmp/www && "
    serve += "(setsid python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 &) && sleep 0.1"
    turn(hive, model, serve)
    command = [sys.executable, "-m", "hive", "forward", "coder", "8000", "--listen", "127.0.0.1:0"]
    forward = subprocess.Popen(command, env=hive.environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        line = forward.stdout.readline().strip()
        assert line.startswith("forwarding http://coder.localhost:"), line
        port = int(line.rpartition(":")[2])
        name = f"coder.localhost:{port}"
        assert eventually(lambda: _get(port, name)[1] == b"hello\n", "the page")
        assert _get(port, f"127.0.0.1:{port}")[0] == 421, "a browser would send the cookies of 127.0.0.1 along"
    finally:
        forward.send_signal(signal.SIGINT)
        assert forward.wait(DEADLINE_S) == 0


def _get(port: int, host: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", "/", headers={"Host": host})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def test_build_command_has_network_credential_and_variables_of_its_agent(hive: HiveProcess, tmp_path: Path) -> None:
    settings = hive.paths.settings.read_text()
    with serve_git(bare_repository(tmp_path), "forge-secret") as git:
        write(hive, "forge.token", "forge-secret")
        table = f'[credentials."forge.example"]\nfile = "forge.token"\nuser = "agent"\nurl = "{git.url}"\n'
        write(hive, "hive.toml", settings + table)
        hive.spawn("maker")
        build = "git clone -q $PROJECT clone; git -C clone remote -v > remotes; env > variables; curl -s $INDEX > index"
        variables = (
            '[environment]\nPROJECT = "git@forge.example:group/project.git"\nINDEX = "https://forge.example/x"\n'
        )
        hive.configure("maker", f"build = '{build}'\n{variables}")
        hive.run("restart", "maker")
    built = hive.paths.generations("maker") / hive.event("Started", agent="maker", reason="restart")["revision"]
    assert "/group/project.git (fetch)" in (built / "remotes").read_text()
    assert "forge-secret" not in (built / "variables").read_text()
    assert "/host/forge.example/x" in (built / "variables").read_text()
    assert "GET /x" in git.seen[-1][0]
    write(hive, "hive.toml", settings)


def test_budget_that_is_used_up_ends_the_turn_under_way(hive: HiveProcess, model: ScriptedModel) -> None:
    hive.spawn("spender")
    hive.configure("spender", "[limits]\nbudget_hours = 1\nbudget_tokens = 1\n")
    hive.run("restart", "spender")
    model.play("coder", [*(call("Bash", command="true", description="try") for _ in range(20)), say("done")])
    first = hive.head() + 1
    hive.ask("send", to="spender", body="go")
    hive.ask("set_paused", name="spender", paused=False)
    ended = hive.event("TurnEnded", first=first, agent="spender")
    assert ended["result_kind"] == "budget", ended
    assert model.steps_left("coder") > 15, "the model was not asked again"
    hive.event("BudgetReached", first=first, agent="spender")
    hive.event("MessageRequeued", first=first)
    hive.check_files()


class _Recorder(_Web):
    """Records every request that arrives, also one that another hides."""

    seen: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815


@contextlib.contextmanager
def recorder() -> Iterator[tuple[int, list[str]]]:
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Recorder,), {"seen": seen}))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_address[1], seen
    server.shutdown()
    server.server_close()


def test_none_of_the_ways_out_works(hive: HiveProcess, model: ScriptedModel) -> None:
    state = hive.paths.agent_state("coder")
    with (
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as trap,
        socket.socket(socket.AF_UNIX) as abstract,
        recorder() as (listed, seen),
    ):
        trap.settimeout(0.1)
        abstract.bind(f"\0hive-test-{os.getpid()}")
        abstract.listen()
        hive.run("egress", "allow", f"127.0.0.1:{listed}")
        known = ("/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/containerd.sock")
        targets = {
            "port": trap.getsockname()[1],
            "own": _own_address(),
            "listed": f"127.0.0.1:{listed}",
            "abstract": f"hive-test-{os.getpid()}",
            "sockets": [*known, *map(str, hive.paths.run.rglob("*.sock"))],
        }
        (state / "targets.json").write_text(json.dumps(targets))
        (state / "hostile.py").write_text(Path(__file__).with_name("hostile.py").read_text())
        turn(hive, model, "python3 hostile.py targets.json report.json")
        report = json.loads((state / "report.json").read_text())
        (state / "report.json").unlink()
        with pytest.raises(TimeoutError):
            trap.accept()
    assert report["through"] == []
    assert len(report["tried"]) > 140
    assert "/length-and-chunks" in seen, "the listed server was reached"
    assert [path for path in seen if path.startswith("/smuggled")] == []
    assert turn(hive, model, "echo still here") == "still here"


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
