"""Checks every request before the application sees it: Host, Origin, session and CSRF token. Wraps the application."""

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from hive.dashboard.daemon import Daemon, DaemonAway, Declined, Operator

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE: Final = "hive_session"
COOKIE_MAX_AGE_S: Final = 7 * 24 * 3_600
BODY_MAX_BYTES: Final = 2 * 1024 * 1024
"""Maximum size of a form; the daemon's limit for a line is 1 MiB."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS: Final = frozenset({"/login", "/healthz", "/favicon.ico"})
OPEN_PREFIX: Final = "/static/"
AGENT_UIDS: Final = 65_536
"""The number of uids reserved for agents, from the first agent's uid; higher uids are people."""
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
SOCKET_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
        "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class ListenAddress(msgspec.Struct, frozen=True):
    """The address on which the dashboard listens, and which clients it accepts."""

    port: int
    domain: str | None
    agents_from_uid: int | None
    """The first uid of the agents' range; under root, connections from that range are refused."""

    def hosts(self) -> frozenset[str]:
        """Every accepted value of the `Host` header."""
        local = {f"{name}:{self.port}" for name in LOOPBACK_NAMES}
        if self.port == 80:
            local |= set(LOOPBACK_NAMES)
        return frozenset(local if self.domain is None else {*local, self.domain.lower()})


class Guard:
    """The outermost ASGI application. Puts the signed-in `Operator` into the scope."""

    def __init__(self, app: App, daemon: Daemon, listen: ListenAddress):
        self._app = app
        self._daemon = daemon
        self._listen = listen
        self._hosts = listen.hosts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = _Request(scope)
        send = _with_headers(send, request)
        refusal = self._stranger(request)
        if refusal is not None:
            await _plain(send, 403, refusal)
            return
        body = b""
        if request.method not in SAFE_METHODS:
            found = await _body(receive)
            if found is None:
                await _plain(send, 413, f"The form is too large; the limit is {BODY_MAX_BYTES} bytes.")
                return
            body = found
            receive = _replayed(body, receive)
        scope.setdefault("state", {})["source"] = self._source(request)
        if await self._signed_in(request, scope, body, send):
            await self._app(scope, receive, send)

    def _stranger(self, request: "_Request") -> str | None:
        """Why the request is refused before its session is checked, or None."""
        if request.host not in self._hosts:
            return "The Host header does not match this dashboard. Use the address that `hive up` printed."
        if self._listen.agents_from_uid is not None and self._is_agent(request, self._listen.agents_from_uid):
            return "Agents may not use the dashboard."
        if request.method not in SAFE_METHODS and not self._is_own_origin(request):
            return "The form was not sent from a page of this dashboard."
        return None

    def _is_agent(self, request: "_Request", first: int) -> bool:
        """Whether an agent's uid sent this; an unknown uid counts as an agent."""
        uid = self._peer_uid(request)
        return uid is None or first <= uid < first + AGENT_UIDS

    def _is_own_origin(self, request: "_Request") -> bool:
        origin = urlsplit(request.header(b"origin"))
        site = request.header(b"sec-fetch-site")
        if site not in ("", "same-origin"):
            return False
        secure = self._listen.domain is not None and request.host == self._listen.domain.lower()
        return origin.netloc == request.host and origin.scheme == ("https" if secure else "http")

    async def _signed_in(self, request: "_Request", scope: Scope, body: bytes, send: Send) -> bool:
        """Whether the application may handle the request; otherwise this method has replied."""
        if request.path in OPEN_PATHS or request.path.startswith(OPEN_PREFIX):
            return True
        if request.path == "/metrics" and request.header(b"authorization").startswith("Bearer "):
            return True
        session = request.cookie(COOKIE)
        if session is None:
            await _ask_to_sign_in(send, request)
            return False
        background = request.header(b"x-hive-background") != ""
        try:
            who = await self._daemon.ask("who", session=session, background=background or None)
        except Declined:
            await _ask_to_sign_in(send, request)
            return False
        except DaemonAway as error:
            await _away(send, request, str(error))
            return False
        csrf = csrf_token(session)
        if request.method not in SAFE_METHODS and not hmac.compare_digest(_given_csrf(request, body), csrf):
            await _plain(
                send, 403, "The form does not belong to your session. Reload the page and send the form again."
            )
            return False
        scope["state"]["operator"] = Operator(
            self._daemon, who["name"], session, csrf, who["sessions"], background=background
        )
        return True

    def _source(self, request: "_Request") -> str:
        """Identifies the client for the limit on wrong tokens: by the kernel's data if possible, never by a header."""
        uid = self._peer_uid(request)
        return f"{request.client[0]}" + ("" if uid is None else f" uid={uid}")

    def _peer_uid(self, request: "_Request") -> int | None:
        """The uid at the other end of a loopback connection."""
        address, port = request.client
        try:
            if not ipaddress.ip_address(address).is_loopback:
                return None
        except ValueError:
            return None
        return uid_of_connection(address, port, self._listen.port)


def uid_of_connection(address: str, port: int, to_port: int) -> int | None:
    """The uid that owns the other end of a loopback TCP connection, from the kernel's table; None if it is closed.

    Compares address and port: 127.0.0.2 and 127.0.0.1 may use the same port for different users.
    """
    ends = {f"{written}:{port:04X}" for written in _as_in_table(address)}
    for table in SOCKET_TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, _, _, _, _, uid, _, inode = line.split()[:10]
            if local in ends and int(remote.rpartition(":")[2], 16) == to_port:
                return (
                    None if inode == "0" else int(uid)
                )  # The kernel lists a socket closed right after sending as root's.
    return None


def _as_in_table(address: str) -> list[str]:
    """An address as `/proc/net/tcp` and `tcp6` write it: words of the host's byte order in hex."""
    packed = ipaddress.ip_address(address).packed
    forms = [packed] if len(packed) == 16 else [packed, bytes(10) + b"\xff\xff" + packed]
    return ["".join(form[at : at + 4][::-1].hex().upper() for at in range(0, len(form), 4)) for form in forms]


def csrf_token(session: str) -> str:
    """The CSRF token of a session; it reveals nothing about the session."""
    return hashlib.sha256(b"hive form\0" + session.encode(errors="surrogatepass")).hexdigest()


class _Request:
    """The parts of the ASGI scope that the guard uses."""

    def __init__(self, scope: Scope):
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.client: tuple[str, int] = tuple(scope.get("client") or ("", 0))
        self._headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.host = self.header(b"host").lower()
        self.wants_page = self.method == "GET" and "text/html" in self.header(b"accept")

    def header(self, name: bytes) -> str:
        """The header's value; empty if it is absent or sent more than once."""
        values = [value for key, value in self._headers if key.lower() == name]
        return values[0].decode("latin-1") if len(values) == 1 else ""

    def cookie(self, name: str) -> str | None:
        for part in self.header(b"cookie").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name and value:
                return value
        return None


async def _body(receive: Receive) -> bytes | None:
    chunks, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_MAX_BYTES:
            return None
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _given_csrf(request: _Request, body: bytes) -> str:
    header = request.header(b"x-csrf-token")
    if header or "application/x-www-form-urlencoded" not in request.header(b"content-type"):
        return header.encode("ascii", "replace").decode()
    fields = parse_qs(body.decode("latin-1"), max_num_fields=1_000) if b"csrf=" in body else {}
    return fields.get("csrf", [""])[0].encode("ascii", "replace").decode()


def _with_headers(send: Send, request: _Request) -> Send:
    kept = b"public, max-age=86400, immutable" if request.path.startswith(OPEN_PREFIX) else b"no-store"

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message["headers"] = [*message.get("headers", ()), *added, (b"cache-control", kept)]
        await send(message)

    return sent


async def _ask_to_sign_in(send: Send, request: _Request) -> None:
    if not request.wants_page:
        await _plain(send, 401, "Sign in first: POST /login with an operator's token.")
        return
    path = request.path + (f"?{request.query.decode('latin-1')}" if request.query else "")
    await send(
        {
            "type": "http.response.start",
            "status": 303,
            "headers": [(b"location", f"/login?next={quote(path, safe='/')}".encode())],
        }
    )
    await send({"type": "http.response.body", "body": b""})


async def _away(send: Send, request: _Request, why: str) -> None:
    if request.path.endswith("/api/state") and request.path.startswith("/agent/"):
        await _json(send, 200, {"reachable": False, "inbox": [], "recent": []})
    elif request.wants_page:
        page = (
            "<!doctype html><html lang=en><meta charset=utf-8><title>hive</title><meta http-equiv=refresh content=3>"
            "<link rel=stylesheet href=/static/hive.css><body class=away><main><h1>The daemon does not answer</h1>"
            "<p>It may be starting. Otherwise start it with <code>hive up</code>.</p>"
            "<p>This page reloads every three seconds.</p></main>"
        )
        await _answer(send, 503, b"text/html; charset=utf-8", page.encode())
    else:
        await _plain(send, 503, why)


async def _plain(send: Send, status: int, why: str) -> None:
    await _json(send, status, {"ok": False, "error": why})


async def _json(send: Send, status: int, data: dict[str, Any]) -> None:
    await _answer(send, status, b"application/json", msgspec.json.encode(data))


async def _answer(send: Send, status: int, media_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
