"""No access and no decision without a session; events record the operator and the way."""

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from system.hive_process import HiveProcess, Lines, eventually

from hive.dashboard.guard import COOKIE

from .conftest import PAGES, Person

pytestmark = pytest.mark.system

ANYBODYS_PYTHON = "/usr/bin/python3"
"""The interpreter of the test may be in a folder that other users cannot read."""
AS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(ANYBODYS_PYTHON).exists(),
    reason="only root gives the dashboard and agents users of their own; /usr/bin/python3 plays them",
)
OPEN = {"/login", "/healthz"}
MORE_PATHS = (
    "/schema",
    "/api/stream",
    "/agent/manager/stream",
    "/metrics",
    "/no-such-page",
    "/static",
    "/schema/openapi.json",
)


def routes(mara: Person) -> list[tuple[str, str]]:
    """Every method and path of the OpenAPI schema."""
    described = mara.get("/schema").raise_for_status().json()["paths"]
    found = [(method.upper(), path) for path, methods in described.items() for method in methods]
    assert len(found) > 40
    filled = [(method, path.replace("{id}", "1").replace("{seq}", "1")) for method, path in found]
    for word, value in (("{name}", "manager"), ("{act}", "start"), ("{subject}", "agent")):
        filled = [(method, path.replace(word, value)) for method, path in filled]
    assert not [path for _, path in filled if "{" in path]
    return filled


def test_every_route_requires_a_session(mara: Person, stranger: Person) -> None:
    for method, path in [*routes(mara), *(("GET", path) for path in (*PAGES, *MORE_PATHS))]:
        if path in OPEN:
            continue
        assert stranger.request(method, path).status_code == 401, (method, path)
        page = stranger.request(method, path, headers={"Accept": "text/html"})
        if method == "GET":
            assert (page.status_code, page.headers["location"][:12]) == (303, "/login?next="), path
        else:
            assert page.status_code == 401, path


def test_forged_or_ended_session_is_refused(hive: HiveProcess, token: str) -> None:
    with Person(hive) as person:
        person.sign_in(token).raise_for_status()
        replayed = person.cookies[COOKIE]
        assert person.get("/api/state").status_code == 200
        assert person.post("/logout").status_code == 200
    for value in (replayed, "x", "", replayed[:-1], "a" * 5_000, "%00", "\xe2\x98\x83"):
        cookie = f"{COOKIE}={value}".encode("latin-1")
        assert httpx.get(f"{hive.url}/api/state", headers={b"Cookie": cookie}).status_code == 401, value


def test_sign_out_everywhere_ends_other_sessions_and_streams(hive: HiveProcess) -> None:
    token = hive.ask("operators", action="add", name="noor")["token"]
    with Person(hive) as here, Person(hive) as there:
        here.sign_in(token).raise_for_status()
        there.sign_in(token).raise_for_status()
        with there.stream("GET", "/api/stream") as stream:
            assert here.post("/logout", data={"everywhere": "true"}).status_code == 200
            for _ in stream.iter_lines():  # The loop ends with the stream, or fails by the client's timeout.
                pass
        assert there.get("/api/state").status_code == 401


def test_revoked_token_is_refused_and_ends_its_sessions(hive: HiveProcess) -> None:
    token = hive.ask("operators", action="add", name="ex")["token"]
    with Person(hive) as ex:
        ex.sign_in(token).raise_for_status()
        hive.ask("operators", action="revoke", name="ex")
        eventually(lambda: ex.get("/api/state").status_code == 401, "signed out")
        assert ex.sign_in(token).status_code == 401


def test_cross_site_forms_are_refused(hive: HiveProcess, mara: Person) -> None:
    def spawn(**headers: str) -> int:
        kept = {name: value for name, value in mara.headers.items() if name.lower() not in ("origin", "x-csrf-token")}
        given = {"Origin": hive.url, "X-CSRF-Token": mara.headers["X-CSRF-Token"], **headers}
        given = {name: value for name, value in given.items() if value}
        return httpx.post(
            f"{hive.url}/spawn", data={"name": "sneak"}, headers={**kept, **given}, cookies=dict(mara.cookies)
        ).status_code

    port = hive.url.rpartition(":")[2]
    for origin in (
        "",
        "null",
        "http://evil.example",
        f"http://127.0.0.1:{int(port) + 1}",
        f"http://localhost:{port}",
        f"https://127.0.0.1:{port}",
    ):
        assert spawn(Origin=origin) == 403, origin
    for csrf in ("", "x", "0" * 64, mara.headers["X-CSRF-Token"][:-1]):
        assert spawn(**{"X-CSRF-Token": csrf}) == 403, csrf
    for site in ("cross-site", "same-site", "none"):
        assert spawn(**{"Sec-Fetch-Site": site}) == 403, site
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{int(port) + 1}"):
        assert spawn(Host=host) == 403, host
    assert "sneak" not in hive.ask("list")["agents"]


@pytest.mark.parametrize("path", ["/", "/login", "/healthz", "/static/hive.js", "/api/state"])
def test_unknown_host_header_is_refused(hive: HiveProcess, mara: Person, path: str) -> None:
    assert mara.get(path, headers={"Host": "rebound.example"}).status_code == 403


def test_two_host_headers_are_refused(hive: HiveProcess) -> None:
    port = int(hive.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(100).split()[1] in (b"400", b"403")


def test_cookies_and_headers_are_strict(hive: HiveProcess, token: str) -> None:
    with Person(hive) as person:
        cookie = person.sign_in(token).headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in cookie.split(";")}
        for path in ("/", "/login", "/api/state", "/static/hive.js", "/no-such-page", "/agent/ghost/"):
            headers = person.get(path, headers={"Origin": "http://evil.example"}).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert not [name for name in headers if name.startswith("access-control")]
        assert person.get("/").headers["cache-control"] == "no-store"


def test_pages_have_no_inline_script_or_style(mara: Person) -> None:
    for path in (*PAGES, "/agent/manager/", "/login"):
        text = mara.get(path, headers={"Accept": "text/html"}).text
        assert "<script>" not in text
        assert " style=" not in text
        assert " onclick" not in text
        assert "//" not in text.replace(f"{mara.base_url}", "").replace("https://ntfy.example/", ""), path


def test_login_redirects_only_to_own_pages(hive: HiveProcess, token: str) -> None:
    with Person(hive) as person:
        for onward in ("//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/\t/evil"):
            reply = person.post("/login", data={"token": token, "next": onward})
            assert reply.json()["next"] == "/", onward
        assert (
            person.post("/login", data={"token": token, "next": "/audit?type=Killed"}).json()["next"]
            == "/audit?type=Killed"
        )


def test_login_link_opens_one_session_for_its_creator(hive: HiveProcess, stranger: Person) -> None:
    url = hive.run("operator", "link").strip()
    secret = url.partition("#")[2]
    assert url == f"{hive.url}/login#{secret}"
    assert stranger.sign_in(secret).status_code == 200
    assert stranger.get("/api/session").json()["name"] == hive.ask("login_link")["name"]
    with Person(hive) as second:
        assert second.sign_in(secret).status_code == 401
    assert secret not in hive.output.read_text()
    assert not hive.events(data=secret)


def test_decisions_record_operator_and_way(hive: HiveProcess, mara: Person) -> None:
    id = mara.post("/request-spawn", data={"name": "asked"}).json()["id"]
    assert mara.post(f"/deny/{id}", data={"note": "not yet"}).status_code == 200
    resolved = hive.event("ApprovalResolved", id=id)
    assert (resolved["by"], resolved["note"]) == ("operator:mara way=dashboard", "not yet")
    assert mara.post(f"/approve/{id}").status_code == 409


def test_dashboard_socket_requires_a_session(hive: HiveProcess) -> None:
    with Lines(hive.paths.dashboard_socket) as dashboard:
        for cmd in ("state", "list", "spawn", "approve", "operators", "events", "who"):
            for session in ({}, {"session": None}, {"session": "x"}):
                reply = dashboard.say(cmd, **{"name": "sneak", "id": 1, "from": 1, **session})
                assert (reply["ok"], reply["code"]) == (False, "signed_out"), cmd
        for cmd in ("shutdown", "login_link", "rebuild_projections"):
            assert "unknown cmd" in dashboard.say(cmd)["error"]
        assert dashboard.say("state", session=5)["code"] == "bad_request"
        assert dashboard.say("health")["ok"] is True


@AS_ROOT
def test_dashboard_uid_cannot_reach_other_files(hive: HiveProcess) -> None:
    (pid,) = dashboards(hive)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    uid = int(status["Uid"].split()[0])
    assert uid != 0
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(uid)}
    assert status["Groups"].split() == []
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    look = (
        "import socket,sys\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        open(path).close() if path.endswith('.db') or path.endswith('.json')"
        " else socket.socket(socket.AF_UNIX).connect(path)\n"
        "        print('in', path)\n"
        "    except OSError: pass\n"
    )
    hive.folder.chmod(0o755)
    paths = (hive.paths.host_socket, hive.paths.agent_socket("manager"), hive.paths.events, hive.paths.sessions)
    command = [ANYBODYS_PYTHON, "-c", look, *map(str, paths)]
    done = subprocess.run(command, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=True)
    hive.folder.chmod(0o700)
    assert done.stdout == ""


def dashboards(hive: HiveProcess) -> list[int]:
    """The dashboard processes of this hive: one, or none during a restart."""
    found = []
    for pid in hive.processes():
        with contextlib.suppress(OSError):
            if "hive.dashboard" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


@AS_ROOT
def test_agent_uid_is_refused_even_with_a_stolen_session(hive: HiveProcess, mara: Person) -> None:
    ask = (
        "import sys,urllib.request,urllib.error\n"
        "request = urllib.request.Request(sys.argv[1], headers={'Cookie': sys.argv[2]})\n"
        "try: print(urllib.request.urlopen(request).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    command = [ANYBODYS_PYTHON, "-c", ask, f"{hive.url}/api/state", f"{COOKIE}={mara.cookies[COOKIE]}"]
    first = hive.users.first_uid
    for uid, answer in ((0, "200"), (first, "403"), (first + 7, "403")):
        done = subprocess.run(command, user=uid, group=uid, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == answer, uid


@AS_ROOT
def test_agent_uid_cannot_hide_by_port_reuse_or_closed_connections(hive: HiveProcess, mara: Person) -> None:
    """The client uses another user's port on another loopback address, or closes before the uid lookup."""
    send = (
        "import socket,sys\n"
        "own, port, to, waits, request = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]\n"
        "with socket.socket() as one:\n"
        "    one.bind((own, port))\n"
        "    one.connect(('127.0.0.1', to))\n"
        "    one.sendall(request.encode())\n"
        "    if waits == 'yes': print(one.recv(1000).split()[1].decode())\n"
    )
    to, agent = int(hive.url.rpartition(":")[2]), hive.users.first_uid + 3
    body = f"csrf={mara.headers['X-CSRF-Token']}"
    kind = "application/x-www-form-urlencoded"
    request = (
        f"POST /resume/manager HTTP/1.1\r\nHost: 127.0.0.1:{to}\r\nOrigin: {hive.url}\r\nContent-Type: {kind}\r\n"
        f"Cookie: {COOKIE}={mara.cookies[COOKIE]}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    )
    with socket.create_connection(("127.0.0.1", to)) as somebody:
        port = somebody.getsockname()[1]
        for own, borrowed, waits in (("127.0.0.2", port, "yes"), ("127.0.0.3", port, "no"), ("127.0.0.1", 0, "no")):
            command = [ANYBODYS_PYTHON, "-c", send, own, str(borrowed), str(to), waits, request]
            done = subprocess.run(command, user=agent, group=agent, capture_output=True, text=True, check=True)
            assert done.stdout.strip() == ("403" if waits == "yes" else "")
    assert mara.get("/api/state").status_code == 200  # Requests are processed in order, so the earlier ones are done.
    assert not hive.events("Resumed", agent="manager")
    assert mara.post("/resume/manager").status_code == 200
    assert mara.post("/pause/manager").status_code == 200


def test_crashed_dashboard_restarts_and_keeps_sessions(hive: HiveProcess, mara: Person) -> None:
    (pid,) = dashboards(hive)
    os.kill(pid, 9)

    def answers() -> bool:
        try:
            return mara.get("/api/state").status_code == 200
        except httpx.TransportError:  # The connection to the killed process.
            return False

    eventually(answers, "the next dashboard answers")


def test_wrong_tokens_are_limited(hive: HiveProcess) -> None:
    with Person(hive) as person:
        answers = [person.sign_in(f"wrong-{number}").status_code for number in range(15)]
    assert answers[0] == 401
    assert answers[-1] == 429


def test_dashboard_exits_with_the_daemon() -> None:
    hive = HiveProcess(dashboard=True).up()
    try:
        pids = eventually(lambda: dashboards(hive), "it runs")
        hive.kill()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "it has died, too")
    finally:
        hive.close()
