"""The broker against direct connections: time to the first byte, and 64 agents streaming at once against one."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Round, at_most
from benchmarks.sections import Setting
from hive.broker import wire
from hive.scripted_model import ScriptedModel, say

TITLE = "Broker"
REQUESTS = 100
STREAMS = 64
BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}], "tools": []}).encode()
TEXT = "word " * 2_000
"""One streamed answer: some hundred events."""

FIGURES = [
    Figure("milliseconds added to the first byte of a model's answer", "added_ms", "one", at_most(2.0), "ms"),
    Figure(
        "first byte of a model's answer through the broker, against direct", "through_ms", "direct_ms", at_most(4.0)
    ),
    Figure("64 agents streaming at once through the broker, against the same directly", "many_s", "many_direct_s"),
    Figure(
        "64 agents streaming at once, each answer, against one stream alone 64 times",
        "many_s",
        "one_64_s",
        at_most(1.5),
    ),
]


class _Unix(http.client.HTTPConnection):
    """An HTTP connection to a socket of the broker's."""

    def __init__(self, path: Path) -> None:
        super().__init__("127.0.0.1")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _Broker:
    def __init__(self, folder: Path, url: str) -> None:
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "hive.broker", f"--fd={theirs.fileno()}"]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        threading.Thread(target=self._drain, daemon=True).start()
        self.paths = [self._serve(folder, f"agent-{nth}", url) for nth in range(STREAMS)]

    def _serve(self, folder: Path, name: str, url: str) -> Path:
        provider = wire.Provider(name="anthropic", url=url, shape="anthropic", key=f"hive-dummy-{name}")
        wire.send(self._channel, wire.Policy(agent=name, mode="none", providers=(provider,)))
        path = folder / f"{name}.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            wire.send(self._channel, wire.Listen(agent=name), listener)
        return path

    def _drain(self) -> None:
        reader = wire.FromBrokerReader(self._channel.dup())
        while reader.read() is not None:
            continue

    def close(self) -> None:
        self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        self._process.wait()


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    with ScriptedModel({f"agent-{nth}": lambda _: say(TEXT) for nth in range(STREAMS)}) as model:
        broker = _Broker(setting.folder, model.url)
        host, _, port = model.url.removeprefix("http://").partition(":")

        def direct(nth: int) -> http.client.HTTPConnection:
            return http.client.HTTPConnection(host, int(port))

        def through(nth: int) -> http.client.HTTPConnection:
            return _Unix(broker.paths[nth])

        def measured() -> Round:
            count = setting.scale.of(REQUESTS)
            direct_ms = _first_byte_ms(direct(0), "", count)
            through_ms = _first_byte_ms(through(0), "/model/anthropic", count)
            one_s = min(_stream_s(through(0), "/model/anthropic", 0) for _ in range(3))
            return {
                "one": 1.0,
                "direct_ms": direct_ms,
                "through_ms": through_ms,
                "added_ms": through_ms - direct_ms,
                "one_64_s": one_s * STREAMS,
                "many_s": _all_at_once_s(through, "/model/anthropic"),
                "many_direct_s": _all_at_once_s(direct, ""),
            }

        try:
            yield measured
        finally:
            broker.close()


def _ask(connection: http.client.HTTPConnection, base: str, nth: int) -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/json", "x-api-key": f"hive-dummy-agent-{nth}"}
    connection.request("POST", f"{base}/v1/messages", BODY, headers)
    return connection.getresponse()


def _first_byte_ms(connection: http.client.HTTPConnection, base: str, count: int) -> float:
    """On one connection that stays open, as the CLI's does."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        reply = _ask(connection, base, 0)
        reply.read(1)
        took.append((time.perf_counter() - began) * 1000)
        reply.read()
    connection.close()
    return median(took)


def _stream_s(connection: http.client.HTTPConnection, base: str, nth: int) -> float:
    began = time.perf_counter()
    reply = _ask(connection, base, nth)
    assert reply.status == 200
    reply.read()
    connection.close()
    return time.perf_counter() - began


def _all_at_once_s(connect: Callable[[int], http.client.HTTPConnection], base: str) -> float:
    threads = [threading.Thread(target=_stream_s, args=(connect(nth), base, nth)) for nth in range(STREAMS)]
    began = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return time.perf_counter() - began
