"""A broker process with the tests in the daemon's place, and servers of the tests' own."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from hive.broker import wire

DEADLINE_S = 30.0
BROKER_UID = 65_502
KEY = "sk-ant-the-operators-own-key-0123456789"

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str) -> Found:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)
    return found


class BrokerLab:
    """One broker for any number of agents."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hive-broker-")).resolve()
        self.folder.chmod(0o755)
        self.channel, theirs = socket.socketpair()
        user = [f"--uid={BROKER_UID}"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hive.broker", f"--fd={theirs.fileno()}", *user], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.reports: list[wire.FromBroker] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        reader = wire.FromBrokerReader(self.channel.dup())
        while (messages := reader.read()) is not None:
            self.reports += messages

    def agent(self, name: str, folder: Path | None = None, **policy: Any) -> Path:
        """Set a policy and serve a socket; its path."""
        self.policy(name, **policy)
        path = (folder or self.folder) / ("net.sock" if folder else f"{name}.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0o666)
            listener.listen(512)
            wire.send(self.channel, wire.Listen(agent=name), listener)
        return path

    def policy(self, name: str, *, mode: wire.Mode = "open", **more: Any) -> None:
        wire.send(self.channel, wire.Policy(agent=name, mode=mode, **more))

    def used(self, name: str) -> list[wire.Used]:
        return [one for one in self.reports if isinstance(one, wire.Used) and one.agent == name]

    def asked(self, name: str) -> list[tuple[str, int]]:
        return [(one.host, one.port) for one in self.reports if isinstance(one, wire.Asked) and one.agent == name]

    def changes(self) -> list[int]:
        return [one.number for one in self.reports if isinstance(one, wire.Changed)]

    def close(self) -> None:
        self.channel.shutdown(socket.SHUT_RDWR)
        assert self.process.wait(DEADLINE_S) == 0
        self.channel.close()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)


def anthropic(url: str, key: str | None = KEY) -> wire.Provider:
    return wire.Provider(name="anthropic", url=url, shape="anthropic", key=key)


class Client:
    """Speaks to an agent's socket as the forwarder does."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))

    def send(self, data: bytes) -> "Client":
        self.socket.sendall(data)
        return self

    def head(self) -> bytes:
        """Up to the end of a response's head."""
        data = b""
        while not data.endswith(b"\r\n\r\n") and (more := self.socket.recv(1)):
            data += more
        return data

    def all(self) -> bytes:
        """Up to the end of the connection."""
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        return data

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exchange(path: Path, request: bytes) -> bytes:
    """One request on a connection of its own; everything that comes back."""
    with Client(path) as client:
        client.send(request)
        client.socket.shutdown(socket.SHUT_WR)
        return client.all()


def get(path: Path, url: str, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in ("Host: x", "Connection: close", *headers))
    return exchange(path, f"GET {url} HTTP/1.1\r\n{lines}\r\n".encode())


class Web:
    """A server on loopback that records requests and answers by path."""

    def __init__(self, answer: Callable[["Handler"], None] | None = None) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        web = self

        class Bound(Handler):
            def handle_one(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.body = self._chunks() if self.headers["transfer-encoding"] else self.rfile.read(length)
                headers = {name.lower(): value for name, value in self.headers.items()}
                web.seen.append((f"{self.command} {self.path}", headers, body))
                if answer is not None:
                    answer(self)
                else:
                    self.reply(f"{self.command} {self.path}".encode())

        self._server = ThreadingHTTPServer(("", 0), Bound)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.entry = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Otherwise the kernel holds a small body back for 40 ms."""
    body = b""

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def reply(self, body: bytes, status: int = 200, kind: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.handle_one()

    do_POST = do_HEAD = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Tests look at `seen`."""
