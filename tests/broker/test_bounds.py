"""What one agent floods the broker with costs the others little, and memory stays bounded."""

import contextlib
import json
import socket
import statistics
import threading
import time
from pathlib import Path

from .lab import BrokerLab, Client, Handler, Web, anthropic, eventually, exchange

CONNECTIONS = 10_000
REQUESTS = 40
BODY = json.dumps({"model": "m", "messages": []}).encode()


def median_s(path: Path) -> float:
    request = (
        b"POST /model/anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )
    took = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        assert b" 200 " in exchange(path, request % len(BODY) + BODY)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def rss_mib(lab: BrokerLab) -> float:
    pages = Path(f"/proc/{lab.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096 / 1024**2


def test_ten_thousand_connections_of_one_agent_leave_the_others_their_turns(lab: BrokerLab, web: Web) -> None:
    calm = lab.agent("calm", providers=(anthropic(web.url),))
    flood = lab.agent("flood", mode="listed", allow=(web.entry,))
    alone, before = median_s(calm), rss_mib(lab)
    stop = threading.Event()
    floods = [threading.Thread(target=_flood, args=(flood, stop, kind)) for kind in range(4)]
    for one in floods:
        one.start()
    try:
        together = median_s(calm)
    finally:
        stop.set()
        for one in floods:
            one.join()
    assert rss_mib(lab) - before < 64
    assert together < 25 * alone, (together, alone)


def _flood(path: Path, stop: threading.Event, kind: int) -> None:
    """Open connections without end: silent ones, half heads, refused requests, garbage."""
    text = (
        b"",
        b"GET http://127.0.0.1:1/ HTTP/1.1\r\nX: ",
        b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
        b"\x00" * 1000,
    )[kind]
    opened: list[socket.socket] = []
    for _ in range(CONNECTIONS // 4):
        if stop.is_set():
            break
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        try:
            one.connect(str(path))
            one.send(text)
        except OSError:
            one.close()
            time.sleep(0.001)  # The backlog is full, which is the point of it.
            continue
        opened.append(one)
        if len(opened) > 200:
            opened.pop(0).close()
    for one in opened:
        one.close()


def test_slow_reader_holds_up_itself_alone(lab: BrokerLab) -> None:
    piece = b"x" * 65536

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(piece) * 4096))
        handler.end_headers()
        try:
            for _ in range(4096):
                handler.wfile.write(piece)
        except OSError:
            handler.close_connection = True

    with Web(endless) as web, Web() as other:
        path = lab.agent("slow", mode="listed", allow=(web.entry,))
        calm = lab.agent("beside", providers=(anthropic(other.url),))
        before = rss_mib(lab)
        readers = [Client(path) for _ in range(20)]
        for reader in readers:
            reader.send(f"GET {web.url}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()).head()
        eventually(lambda: len(web.seen) == 20, "every answer has begun")
        assert median_s(calm) > 0
        assert rss_mib(lab) - before < 64
        for reader in readers:
            reader.close()


def test_head_over_its_limit_is_refused(lab: BrokerLab) -> None:
    path = lab.agent("heads", mode="open")
    with Client(path) as client, contextlib.suppress(BrokenPipeError):
        client.send(b"GET http://a.invalid/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 90_000)
        client.send(b"y" * 90_000)
        client.socket.shutdown(socket.SHUT_WR)
        said = client.all()
        assert said == b"" or said.split()[1] == b"431", said
