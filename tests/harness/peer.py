"""A small in-memory implementation of the daemon's side of the agent socket."""

import collections
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DEADLINE_S = 60.0
REFUSED_NAME = "nobody"


class Peer:
    """Serves one agent socket. `down` and `up` simulate a daemon restart: connections close, state is kept."""

    def __init__(self, path: Path, *, name: str = "coder", manager: bool = False) -> None:
        self.path = path
        self.name = name
        self.manager = manager
        self.changed = threading.Condition()
        self.waiting: collections.deque[dict[str, Any]] = collections.deque()
        self.in_flight: dict[int, dict[str, Any]] = {}
        self.acked: list[int] = []
        self.requeued: list[tuple[list[int], str]] = []
        self.requests: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.controls: collections.deque[dict[str, Any]] = collections.deque()
        self.lose_control_replies = 0
        """Drop this many replies that contain a control."""
        self.paused = False
        self.parked = 0
        """How many requests are parked in recv."""
        self.wire_refusal: str | None = None
        """Set: every hello is refused, as by a daemon of another version."""
        self._answers: dict[str, dict[str, Any]] = {}
        self._next_id = 0
        self._incarnation: str | None = None
        self._server: _Server | None = None
        self.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = _Server(str(self.path), self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()
        with self.changed:
            self.changed.notify_all()

    def put(self, body: str, *, sender: str = "operator") -> int:
        """Add a message to the inbox."""
        with self.changed:
            self._next_id += 1
            row = {"id": self._next_id, "at": "2026-01-31T09:30:00.000Z", "from": sender, "body": body}
            self.waiting.append(row)
            self.changed.notify_all()
            return self._next_id

    def control(self, action: str, value: str | None = None) -> None:
        with self.changed:
            self._next_id += 1
            self.controls.append(
                {"id": f"control-{self._next_id}", "action": action} | ({} if value is None else {"value": value})
            )
            self.changed.notify_all()

    def pause(self, paused: bool) -> None:
        with self.changed:
            self.paused = paused
            self.changed.notify_all()

    def wait_for(self, what: Callable[[], Any], *, seconds: float = DEADLINE_S) -> Any:
        """Wait until `what` is true; on a timeout fail with the requests so far."""
        with self.changed:
            if not self.changed.wait_for(what, timeout=seconds):
                seen = [{k: v for k, v in one.items() if k != "lines"} for one in self.requests[-30:]]
                raise AssertionError(f"condition not met within {seconds} s; last requests: {seen}; {self.lines[-5:]}")
            return what()

    def got(self, cmd: str) -> list[dict[str, Any]]:
        """The requests with this `cmd` so far."""
        return [request for request in self.requests if request.get("cmd") == cmd]

    def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for this many ended turns and return them."""
        self.wait_for(lambda: len(self.got("turn_ended")) >= count)
        return self.got("turn_ended")

    def seen(self, type: str) -> list[dict[str, Any]]:
        """The live lines of this type so far."""
        return [line for line in self.lines if line["type"] == type]

    def answer(self, request: dict[str, Any], alive: Callable[[], bool]) -> dict[str, Any]:
        key = request.get("key")
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
            if key in self._answers:
                return self._answers[key]
            if request["cmd"] == "hello" and self.wire_refusal is not None:
                return {"ok": False, "error": self.wire_refusal, "code": "wire_unsupported"}
            reply = self._decide(request, alive)
            if key is not None:
                self._answers[key] = reply
            self.changed.notify_all()
            return reply

    def _decide(self, request: dict[str, Any], alive: Callable[[], bool]) -> dict[str, Any]:
        match request["cmd"]:
            case "hello":
                if self._incarnation not in (None, request["incarnation"]):
                    self._give_back(list(self.in_flight))
                self._incarnation = request["incarnation"]
            case "recv":
                return self._recv(request, alive)
            case "next_control":
                return self._next_control(request, alive)
            case "ack":
                for id in request["ids"]:
                    self.in_flight.pop(id, None)
                    self.acked.append(id)
            case "requeue":
                self._give_back(request["ids"])
                self.requeued.append((request["ids"], request["reason"]))
            case "whoami":
                return {"ok": True, "name": self.name, "manager": self.manager, "paused": self.paused, "wanted": True}
            case "send" if request["to"] == REFUSED_NAME:
                return {"ok": False, "error": f'There is no agent "{REFUSED_NAME}".'}
            case "send" | "ask" | "ask_operator" | "remind" | "request_spawn":
                self._next_id += 1
                return {"ok": True, "id": self._next_id}
            case "open_threads":
                return {"ok": True, "threads": [{"id": 1}]}
            case "count_pending_reminders":
                return {"ok": True, "count": 2}
            case "recent":
                return {"ok": True, "messages": list(self.waiting)}
            case "live":
                self.lines.extend(request["lines"])
        return {"ok": True}

    def loses(self, reply: dict[str, Any]) -> bool:
        with self.changed:
            lost = "control" in reply and self.lose_control_replies > 0
            self.lose_control_replies -= lost
            return lost

    def _give_back(self, ids: list[int]) -> None:
        rows = [self.in_flight.pop(id) for id in ids if id in self.in_flight]
        self.waiting.extendleft(reversed([row | {"redelivered": True} for row in rows]))

    def _next_control(self, request: dict[str, Any], alive: Callable[[], bool]) -> dict[str, Any]:
        if self.controls and self.controls[0]["id"] == request["done"]:
            self.controls.popleft()
        self.changed.wait_for(
            lambda: self.controls or self.paused != request["paused"] or not alive(), timeout=request["wait_seconds"]
        )
        found = {"control": self.controls[0]} if self.controls else {}
        return {"ok": True, "paused": self.paused, **found}

    def _recv(self, request: dict[str, Any], alive: Callable[[], bool]) -> dict[str, Any]:
        if "holding" in request:
            self._give_back([id for id in self.in_flight if id not in request["holding"]])
        self.parked += 1
        self.changed.wait_for(
            lambda: self.waiting or self.paused or not alive(), timeout=request.get("wait_seconds", 0)
        )
        self.parked -= 1
        taken = []
        while alive() and self.waiting and len(taken) < request.get("max", 1):
            row = self.waiting.popleft()
            self.in_flight[row["id"]] = row
            taken.append(row)
        return {"ok": True, "messages": taken, "remaining": len(self.waiting), "paused": self.paused}


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, peer: Peer) -> None:
        self.peer = peer
        self.open: set[socket.socket] = set()
        super().__init__(path, _Handler)

    def hang_up(self) -> None:
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        deadline = time.monotonic() + DEADLINE_S
        while self.open and time.monotonic() < deadline:
            with self.peer.changed:
                self.peer.changed.notify_all()
            time.sleep(0.01)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections closed by a killed harness."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.server.open.add(self.request)
        try:
            for line in self.rfile:
                reply = self.server.peer.answer(json.loads(line), self._alive)
                if self.server.peer.loses(reply):
                    return
                self.wfile.write(json.dumps(reply).encode() + b"\n")
        finally:
            self.server.open.discard(self.request)

    def _alive(self) -> bool:
        try:
            return bool(self.request.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False
