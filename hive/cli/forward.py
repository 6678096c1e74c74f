"""`hive forward`: a port inside an agent's container, reached from this host under a name of its own."""

import asyncio
import contextlib
import os
import socket
from typing import Annotated, Final

import typer

from hive.cli import screen
from hive.cli.session import AgentArgument, Noun, Session
from hive.errors import NotFound, Unavailable
from hive.runtimes.network import FORWARD_SOCKET_NAME
from hive.settings import check_listen

noun = Noun("Lifecycle")

HEAD_MAX_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 1.0
"""A client that sends nothing at first waits for the server's greeting: it is no browser."""
CHUNK_BYTES: Final = 64 * 1024
METHODS: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ")


@noun.command("forward", example="hive forward coder 8000")
def forward(
    hive: Session,
    name: AgentArgument,
    port: Annotated[int, typer.Argument(metavar="PORT", help="The port inside, on 127.0.0.1.", min=1, max=65_535)],
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Loopback only. Default: the same port.")
    ] = None,
) -> None:
    """Reach a port inside an agent's container, until Ctrl-C."""
    (row,) = [one for one in hive.ask("agent_status")["agent_statuses"] if one["name"] == name] or [None]
    if row is None:
        raise NotFound(f'agent "{name}" is not managed by this hive')
    if not row["running"]:
        raise Unavailable(f"{name} is not running. Start it with `hive start {name}`.")
    record = hive.paths.record(name)
    if not (record / FORWARD_SOCKET_NAME).exists():
        raise Unavailable(f"{name} has no container: without isolation its ports are on this host already.")
    host, number = check_listen(listen or f"127.0.0.1:{port}", "--listen")
    try:
        folder = os.open(record, os.O_PATH | os.O_DIRECTORY)
        listener = socket.create_server(
            (host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except PermissionError as error:
        raise Unavailable(f"{record} belongs to another user. Run this as the user of the daemon.") from error
    except OSError as error:
        raise Unavailable(f"Cannot listen on {host}:{number}: {error.strerror}. Choose --listen HOST:PORT.") from error
    taken = listener.getsockname()[1]
    screen.say(f"forwarding http://{name}.localhost:{taken}")
    forwarding = _Forwarding(f"/proc/self/fd/{folder}/{FORWARD_SOCKET_NAME}", port, f"{name}.localhost".encode())
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(forwarding.serve(listener))


class _Forwarding:
    def __init__(self, path: str, port: int, name: bytes) -> None:
        self._path = path
        self._port = port
        self._name = name

    async def serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connection, sock=listener)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            first = await _first(reader)
            if not self._is_for_us(first):
                writer.write(_misdirected(self._name))
                await writer.drain()
                return
            inner_reader, inner = await asyncio.open_unix_connection(self._path)
            with contextlib.closing(inner):
                inner.write(f"{self._port}\n".encode() + first)
                await asyncio.gather(_copy(reader, inner), _copy(inner_reader, writer))

    def _is_for_us(self, first: bytes) -> bool:
        """Whether a browser may speak to the agent: only under the agent's name, so that no other cookie goes along."""
        if not first.startswith(METHODS):
            return True
        for line in first.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"host":
                host = value.strip().lower().rpartition(b":")[0] or value.strip().lower()
                return host == self._name or host.endswith(b"." + self._name)
        return False


async def _first(reader: asyncio.StreamReader) -> bytes:
    """What the client sends first; of HTTP, the whole head."""
    first = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            while (more := await reader.read(CHUNK_BYTES)) != b"":
                first += more
                if b"\r\n\r\n" in first or len(first) > HEAD_MAX_BYTES or not _may_be_http(first):
                    break
    return first


def _may_be_http(first: bytes) -> bool:
    return any(first.startswith(method) or method.startswith(first) for method in METHODS)


def _misdirected(name: bytes) -> bytes:
    body = b"hive forward: open this port as http://" + name + b":PORT, so that it shares no cookies.\n"
    head = b"HTTP/1.1 421 Misdirected Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: "
    return head + str(len(body)).encode() + b"\r\n\r\n" + body


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
