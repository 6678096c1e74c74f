"""The loopback Messages API, used by `hive demo` and the tests with the real CLI. It cannot access hive's state."""

import collections
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from hive.scripted_model import wire
from hive.scripted_model.answers import Fault, Hang, Reply
from hive.scripted_model.conversation import Kind
from hive.scripted_model.script import AnyScript, Player, Script, as_script

LOOPBACK = "127.0.0.1"
RECORDED_REQUESTS = 1_000
MAX_BODY_BYTES = 64 * 1024 * 1024
DUMMY_KEY = re.compile(r"hive-dummy-([a-z0-9-]{1,64})")
"""The dummy key that `hive up --model-url` sets identifies the agent; it is not a secret."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was answered."""

    agent: str
    kind: Kind
    at_ms: int
    """Unix milliseconds at which it arrived."""
    status: int
    body: dict[str, Any]


class ScriptedModel:
    """A Messages API on loopback that replays a script per agent. A context manager that serves in a thread."""

    def __init__(self, scripts: Mapping[str, AnyScript] | None = None, *, port: int = 0) -> None:
        self._scripts: dict[str, Script] = {name: as_script(script) for name, script in (scripts or {}).items()}
        self._players: dict[str, Player] = {}
        self._prompt_tokens: dict[str, int] = {}
        self._lock = threading.Lock()
        self._requests: collections.deque[Recorded] = collections.deque(maxlen=RECORDED_REQUESTS)
        self._closing = threading.Event()
        self._server = _Server((LOOPBACK, port), self)
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="scripted-model", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        """Serve on the calling thread until the process ends."""
        self._server.serve_forever()

    @property
    def requests(self) -> list[Recorded]:
        """The newest requests, oldest first."""
        with self._lock:
            return list(self._requests)

    def turns(self, agent: str) -> list[Recorded]:
        """The requests of one agent's turns."""
        return [request for request in self.requests if request.agent == agent and request.kind == "turn"]

    def play(self, agent: str, script: AnyScript) -> None:
        """Set an agent's script and start at its first step."""
        with self._lock:
            self._scripts[agent] = as_script(script)
            self._players.pop(agent, None)

    def steps_left(self, agent: str) -> int:
        """How many steps of an agent's script remain."""
        return self._player(agent).steps_left

    def answer(self, agent: str, request: dict[str, Any]) -> Reply | Fault | Hang:
        """Decide what to answer and record the request."""
        at_ms = time.time_ns() // 1_000_000
        kind, answer = self._player(agent).answer(request)
        status = answer.status if isinstance(answer, Fault) else 200
        with self._lock:
            self._requests.append(Recorded(agent=agent, kind=kind, at_ms=at_ms, status=status, body=request))
        return answer

    def cached_tokens(self, agent: str, prompt_tokens: int) -> int:
        """How many tokens of this prompt the agent's last request contained: the API's cache reads."""
        with self._lock:
            before = self._prompt_tokens.get(agent, 0)
            self._prompt_tokens[agent] = prompt_tokens
        return before if before <= prompt_tokens else 0

    def wait(self, seconds: float) -> None:
        """Sleep, but wake when the server stops."""
        self._closing.wait(seconds)

    def _player(self, agent: str) -> Player:
        with self._lock:
            if agent not in self._players:
                self._players[agent] = Player(agent, self._scripts.get(agent, Script()))
            return self._players[agent]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], model: ScriptedModel) -> None:
        super().__init__(address, _Handler)
        self.model = model

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnected clients: tests kill agents on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """`/requests` serves benchmarks in another process; any other path returns an empty reply."""
        if urlsplit(self.path).path == "/requests":
            recorded = [
                {"agent": one.agent, "kind": one.kind, "at_ms": one.at_ms, "status": one.status}
                for one in self.server.model.requests
            ]
            self._json(200, recorded)
        else:
            self._json(404, wire.error(Fault(status=404, kind="not_found_error", message="not found")))

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self._fault(Fault(status=413, kind="request_too_large", message="request too large"))
            return
        raw = self.rfile.read(length)
        path = urlsplit(self.path).path
        if path not in ("/v1/messages", "/v1/messages/count_tokens"):
            self._json(404, wire.error(Fault(status=404, kind="not_found_error", message="not found")))
            return
        try:
            request = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError as error:
            self._fault(Fault(status=400, kind="invalid_request_error", message=str(error)))
            return
        if path.endswith("/count_tokens"):
            self._json(200, {"input_tokens": wire.tokens_of(request.get("messages"))})
        else:
            self._answer(request)

    def _answer(self, request: dict[str, Any]) -> None:
        agent = self._agent()
        match self.server.model.answer(agent, request):
            case Fault() as fault:
                self._fault(fault)
            case Hang(seconds=seconds):
                self.server.model.wait(seconds)
                self._hang_up()
            case Reply() as reply:
                self._reply(agent, request, reply)

    def _agent(self) -> str:
        key = self.headers.get("x-api-key") or self.headers.get("authorization") or ""
        found = DUMMY_KEY.search(key)
        return found[1] if found else ""

    def _reply(self, agent: str, request: dict[str, Any], reply: Reply) -> None:
        model = self.server.model
        prompt_tokens = wire.tokens_of([request.get("system"), request.get("tools"), request.get("messages")])
        cached = model.cached_tokens(agent, prompt_tokens) if request.get("tools") else 0
        usage = wire.usage_of(reply, prompt_tokens, cached)
        whole = wire.message(reply, str(request.get("model", "scripted")), usage)
        model.wait(reply.wait_s)
        if not request.get("stream"):
            self._json(200, whole)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("cache-control", "no-cache")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for sent, event in enumerate(wire.events(whole)):
            if sent == reply.drop_after_events:
                self._hang_up()
                return
            model.wait(reply.pause_s)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self) -> None:
        """Close the connection without the final chunk."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _fault(self, fault: Fault) -> None:
        self._json(fault.status, wire.error(fault), fault.headers)

    def _json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests are recorded in `requests`."""
