"""One connection of an agent: HTTP proxy, SOCKS5 or a path of the broker's own. Who it is, the socket says."""

import asyncio
import contextlib
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from hive import hosts
from hive.broker.agent import Agent, Failed, Refused
from hive.broker.credentials import PREFIX as HOST_PREFIX
from hive.broker.credentials import serve_host
from hive.broker.models import PREFIX as MODEL_PREFIX
from hive.broker.models import serve_model
from hive.broker.origin import Origins
from hive.broker.relay import Unwatched, UpstreamGone, relay
from hive.broker.socks import VERSION as SOCKS_VERSION
from hive.broker.socks import serve_socks
from hive.broker.streams import BUFFER_BYTES, HEAD_TIMEOUT_S, Gone, Headers, HttpStream, copy_both_ways, end_to_end
from hive.errors import BadRequest

FIRST_BYTE_TIMEOUT_S: Final = 300.0
"""Clients open connections ahead of their requests."""
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
ABOUT: Final = (
    "hive: this is the agent's way out. It is an HTTP and SOCKS5 proxy, and serves model APIs under /model/ and hosts "
    "with a credential of the operator's under /host/.\n"
)


class BadTarget(Exception):
    """The request names no destination that a proxy can use; `str()` says why."""


async def serve(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], agent: Agent, origins: Origins) -> None:
    """Serve one connection to its end. Never raises for what the client or a server does."""
    reader, writer = connection
    client = HttpStream(h11.SERVER, reader, writer, agent.pace)
    try:
        await agent.pace.request()
        async with asyncio.timeout(FIRST_BYTE_TIMEOUT_S):
            first = await reader.read(BUFFER_BYTES)
        if first[:1] == SOCKS_VERSION:
            await agent.files.current()
            await serve_socks(first, reader, writer, agent)
            return
        client.http.receive_data(first)
        if first:
            await _serve_requests(client, agent, origins)
    except h11.RemoteProtocolError as error:
        await _say_bad_request(client, error)
    except (Gone, h11.LocalProtocolError, OSError, TimeoutError):
        pass
    finally:
        client.close()


async def _serve_requests(client: HttpStream, agent: Agent, origins: Origins) -> None:
    while True:
        request = await client.request()
        if request is None:
            return
        await agent.pace.request()
        await agent.files.current()
        if request.method == b"CONNECT":
            await _tunnel(client, request, agent)
            return
        try:
            await _serve_one(client, request, agent, origins)
        except BadTarget as error:
            await client.discard_body()
            await client.respond(400, [TEXT], f"hive: {error}\n".encode())
        if client.http.our_state is not h11.DONE or client.http.their_state is not h11.DONE:
            return
        client.http.start_next_cycle()


async def _serve_one(client: HttpStream, request: h11.Request, agent: Agent, origins: Origins) -> None:
    try:
        target = request.target.decode("ascii")
    except UnicodeDecodeError:
        raise BadTarget("a request target is ASCII.") from None
    if target.startswith(MODEL_PREFIX):
        await serve_model(client, request, target, agent, origins)
    elif target.startswith(HOST_PREFIX):
        await serve_host(client, request, target, agent, origins)
    elif target.startswith("/"):
        await client.discard_body()
        await client.respond(200 if target == "/" else 404, [TEXT], ABOUT.encode())
    else:
        await _proxy(client, request, target, agent)


async def _proxy(client: HttpStream, request: h11.Request, target: str, agent: Agent) -> None:
    """A request in absolute form. What it says in `Host` does not count."""
    parts = _split(target)
    host, port = _destination(parts.hostname, parts.port or 80)
    connection = await _connected(client, agent, host, port)
    if connection is None:
        return
    upstream = HttpStream(h11.CLIENT, *connection, agent.pace)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port == 80 else f"{shown}:{port}"
    headers = [(b"host", authority.encode()), *end_to_end(list(request.headers), b"host")]
    if upgrade := [(name, value) for name, value in request.headers if name == b"upgrade"]:
        headers += [*upgrade, (b"connection", b"upgrade")]
    onward = h11.Request(method=request.method, target=path.encode("ascii"), headers=headers)
    try:
        await relay(client, upstream, onward, Unwatched(), _as_they_are)
    except UpstreamGone:
        await client.discard_body()
        await client.respond(502, [TEXT], f"hive: {host}:{port} closed the connection.\n".encode())
    finally:
        upstream.close()


def _as_they_are(headers: Headers) -> Headers:
    return headers


def _split(target: str) -> SplitResult:
    try:
        parts = urlsplit(target)
        _ = parts.port
    except ValueError:
        raise BadTarget("the address cannot be read.") from None
    if parts.scheme == "https":
        raise BadTarget("for https addresses use CONNECT.")
    if parts.scheme != "http" or not parts.hostname:
        raise BadTarget("a proxy request names an http:// address.")
    if "@" in parts.netloc:
        raise BadTarget("an address holds no user name; send an Authorization header.")
    return parts


def _destination(host: str | None, port: int) -> tuple[str, int]:
    if "%" in (host or ""):
        raise BadTarget("an address names no interface.")
    try:
        return hosts.canonical(host or ""), port
    except BadRequest as error:
        raise BadTarget(str(error)) from None


async def _tunnel(client: HttpStream, request: h11.Request, agent: Agent) -> None:
    """CONNECT: copy bytes to and from the destination."""
    try:
        host, port = _authority(request.target.decode("ascii", "replace"))
    except BadTarget as error:
        await client.respond(400, [TEXT], f"hive: {error}\n".encode())
        return
    connection = await _connected(client, agent, host, port)
    if connection is None:
        return
    await client.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
    await copy_both_ways((client.reader, client.writer), connection, agent.pace, (client.http.trailing_data[0], b""))
    connection[1].close()


def _authority(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise BadTarget("CONNECT names host:port.")
    return _destination(host, int(port))


async def _connected(
    client: HttpStream, agent: Agent, host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    """A connection; None where the client was told why there is none."""
    try:
        return await agent.connect(host, port)
    except Refused as error:
        status, reason = 403, str(error)
    except Failed as error:
        status, reason = 502, str(error)
    await client.discard_body()
    # curl and git show a reason phrase, and no body of a refused CONNECT.
    phrase = f"Refused by hive: {host}:{port}" if status == 403 else "hive cannot reach it"
    await client.respond(status, [TEXT, (b"x-hive-reason", reason.encode())], f"{reason}\n".encode(), phrase.encode())
    return None


async def _say_bad_request(client: HttpStream, error: h11.RemoteProtocolError) -> None:
    """The rest of the connection cannot be trusted to be what it seems; it is closed."""
    if client.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    with contextlib.suppress(Gone, h11.ProtocolError):
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            await client.respond(
                error.error_status_hint, [TEXT, (b"connection", b"close")], b"hive: this is no valid HTTP.\n"
            )
