"""The proxy: modes, entries, addresses, tunnels, WebSockets, event streams and SOCKS5."""

import base64
import json
import socket
import struct
import threading
from pathlib import Path

import pytest

from hive.broker.wire import Tries

from .lab import BrokerLab, Client, Handler, Web, eventually, exchange, get


def test_listed_address_is_reached_with_its_own_host_header(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("listed", mode="listed", allow=(web.entry,))
    assert get(path, f"{web.url}/a?b=c").endswith(b"GET /a?b=c")
    assert web.seen[0][1]["host"] == web.entry, "the address counts, not what the client wrote as Host"


@pytest.mark.parametrize(
    ("mode", "status"), [("none", b"403"), ("listed", b"403"), ("ask", b"403"), ("open", b"502")], ids=str
)
def test_unlisted_host_by_mode(lab: BrokerLab, mode: str, status: bytes) -> None:
    path = lab.agent(f"mode-{mode}", mode=mode)
    said = get(path, "http://no-such-host.invalid/")
    assert said.split()[1] == status
    assert (b"request_egress(" in said) == (mode in ("listed", "ask"))


def test_hosts_of_a_login_are_open_in_every_mode_unless_denied(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("logs-in", mode="none", login=("a.invalid", "b.invalid"), deny=("b.invalid",))
    assert [get(path, f"http://{host}.invalid/").split()[1] for host in "abc"] == [b"502", b"403", b"403"]
    inner = lab.agent("logs-in-nowhere", mode="none", login=("localhost",))
    assert get(inner, f"http://localhost:{web.port}/").split()[1] == b"403", "a private address must be listed itself"


def test_try_under_ask_is_reported_once_and_deny_overrides_allow(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("asks", mode="ask", allow=("*.invalid",), deny=("b.invalid",))
    for _ in range(3):
        assert b"The operator is asked" in get(path, "http://docs.example:81/")
    assert get(path, "http://a.invalid/").split()[1] == b"502"
    assert get(path, "http://b.invalid/").split()[1] == b"403"
    eventually(lambda: lab.asked("asks"), "the try is reported")
    assert lab.asked("asks") == [("docs.example", 81)], "an entry that is denied is not asked for"
    tried = eventually(
        lambda: [one for report in lab.reports if isinstance(report, Tries) for one in report.tries if one.count == 3],
        "the tries are counted",
    )
    assert (tried[0].host, tried[0].outcome) == ("docs.example", "asked")


def test_new_policy_holds_at_once_on_an_open_connection(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("changes", mode="listed")
    with Client(path) as client:
        request = f"GET {web.url}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        assert b" 403 " in client.send(request).head()
        lab.policy("changes", mode="listed", allow=(web.entry,))
        eventually(lambda: b" 200 " in get(path, web.url + "/"), "the new policy")
        lab.policy("changes", mode="listed")
        eventually(lambda: b" 403 " in get(path, web.url + "/"), "the old policy again")


REFUSED_ADDRESSES = (
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2001:db8::1]",
    "localhost",
    "localhost.",
    "LOCALHOST",
)
ODD_SPELLINGS = (
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1.",
    "0x7f.1",
    "[fe80::1%25lo]",
    "127。0。0。1",
)


def test_private_addresses_are_refused_in_every_spelling(lab: BrokerLab) -> None:
    path = lab.agent("private", mode="open")
    for host in REFUSED_ADDRESSES:
        said = get(path, f"http://{host}:9/")
        assert said.split()[1] == b"403", (host, said)
        tunnel = exchange(path, f"CONNECT {host}:9 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert tunnel.split()[1] == b"403", (host, tunnel)
    for host in ODD_SPELLINGS:
        for request in (f"GET http://{host}:9/", f"CONNECT {host}:9"):
            said = exchange(path, f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert said.split()[1] in (b"400", b"403"), (request, said)


def test_own_address_of_the_host_is_refused(lab: BrokerLab) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        own = probe.getsockname()[0]
    assert get(lab.agent("own", mode="open"), f"http://{own}:9/").split()[1] == b"403"


def test_tunnel_carries_bytes_both_ways(lab: BrokerLab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        path = lab.agent("tunnels", mode="listed", allow=(f"127.0.0.1:{port}",))
        with Client(path) as client:
            assert b" 200 " in client.send(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).head()
            client.send(b"x" * 300_000)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.all() == b"x" * 300_000


def _echo(server: socket.socket) -> None:
    one, _ = server.accept()
    with one:
        while data := one.recv(65536):
            one.sendall(data)


def test_socks5_reaches_what_is_listed_and_nothing_else(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("socks", mode="listed", allow=(web.entry,))
    address = b"\x01" + socket.inet_aton("127.0.0.1")
    name = b"\x03\x09localhost"
    codes = []
    for target, port in ((address, web.port), (address, 9), (name, web.port)):
        with Client(path) as client:
            client.send(b"\x05\x01\x00\x05\x01\x00" + target + struct.pack("!H", port))
            assert client.socket.recv(2) == b"\x05\x00"
            codes.append(client.socket.recv(10)[1])
            if codes[-1] == 0:
                client.send(b"GET /socks HTTP/1.0\r\n\r\n")
                assert client.all().endswith(b"GET /socks")
    assert codes == [0, 2, 2]
    with Client(path) as client:
        assert client.send(b"\x05\x01\x02").socket.recv(2) == b"\x05\xff", "no way in without `no authentication`"


def test_server_sent_events_arrive_one_by_one(lab: BrokerLab) -> None:
    go = threading.Event()

    def stream(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for text in (b"data: one\n\n", b"data: two\n\n"):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            handler.wfile.flush()
            assert go.wait(30)
        handler.wfile.write(b"0\r\n\r\n")

    with Web(stream) as web, Client(lab.agent("events", mode="listed", allow=(web.entry,))) as client:
        client.send(f"GET {web.url}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()).head()
        got = b""
        while b"data: one\n\n" not in got:
            got += client.socket.recv(100)
        assert b"two" not in got, "the first event arrived before the second was sent"
        go.set()
        assert b"data: two\n\n" in client.all()


def test_websocket_passes(lab: BrokerLab) -> None:
    def upgrade(handler: Handler) -> None:
        handler.send_response(101)
        handler.send_header("Upgrade", "websocket")
        handler.send_header("Connection", "Upgrade")
        handler.end_headers()
        handler.wfile.write(b"\x81\x02hi")
        handler.wfile.flush()
        assert handler.rfile.read(4) == b"\x81\x02yo"
        handler.close_connection = True

    key = base64.b64encode(b"0123456789abcdef").decode()
    with Web(upgrade) as web, Client(lab.agent("sockets", mode="listed", allow=(web.entry,))) as client:
        lines = f"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        assert b" 101 " in client.send(f"GET {web.url}/ HTTP/1.1\r\n{lines}\r\n".encode()).head()
        assert client.socket.recv(4) == b"\x81\x02hi"
        client.send(b"\x81\x02yo")


def test_redirect_is_the_clients_and_its_target_is_checked(lab: BrokerLab, tmp_path: Path) -> None:
    with Web() as hidden, Web(lambda one: one.reply(b"", 302, Location=hidden.url)) as web:
        path = lab.agent("redirected", mode="open", allow=(web.entry,))
        said = get(path, web.url)
        assert f"location: {hidden.url}".encode() in said.lower()
        assert get(path, hidden.url).split()[1] == b"403"
        assert hidden.seen == []


def test_bodies_pass_in_both_framings(lab: BrokerLab, web: Web) -> None:
    path = lab.agent("bodies", mode="listed", allow=(web.entry,))
    body = json.dumps({"a": "b" * 1000}).encode()
    lines = f"Host: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n"
    head = f"POST {web.url}/up HTTP/1.1\r\n{lines}\r\n"
    with Client(path) as client:
        assert b" 100 " in client.send(head.encode()).head()
        assert client.send(body).all().endswith(b"POST /up")
    assert web.seen[-1][2] == body
