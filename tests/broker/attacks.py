"""What one agent can do to slow down others: each attack runs until the process is killed.

`python attacks.py NAME SOCKET`: prints the port of a server of its own on loopback, waits for a line, begins, and
prints another line. Standard library only.
"""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Awaitable, Callable

CONNECTIONS = 200
TINY = b"1\r\nx\r\n" * 10_000
PIECE = b"x" * 65_536
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Attack:
    def __init__(self, path: str) -> None:
        self.path = path
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def door(self) -> Streams:
        """A connection of the agent to the broker. Its backlog may be full, which is the point of some attacks."""
        while True:
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                return await asyncio.open_unix_connection(self.path)
            await asyncio.sleep(0.01)

    async def serve(self) -> None:
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`/tiny` and `/endless` answer without end; every other request is read without end."""
        with contextlib.suppress(OSError):
            head = await reader.read(65_536)
            if b"/tiny" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                await repeat(writer, TINY)
            if b"/endless" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
                await repeat(writer, PIECE)
            while await reader.read(1 << 20):
                continue


async def repeat(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


async def read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 20):
        continue


def sends(
    text: Callable[[Attack], bytes], then: bytes = b"", *, reads: bool = True
) -> Callable[[Attack], Awaitable[None]]:
    """One connection: send the text, then `then` without end; read what comes, or wait until the broker closes."""

    async def one(attack: Attack) -> None:
        reader, writer = await attack.door()
        with contextlib.closing(writer):
            writer.write(text(attack))
            tasks = [repeat(writer, then)] if then else []
            tasks += [read_all(reader)] if reads else [asyncio.sleep(3600)]
            await asyncio.gather(*tasks)

    return one


async def churn(attack: Attack) -> None:
    _, writer = await attack.door()
    writer.close()


async def byte_by_byte(attack: Attack) -> None:
    _, writer = await attack.door()
    with contextlib.closing(writer):
        for byte in b"GET http://a.invalid/ HTTP/1.1\r\nX: " + b"y" * 30_000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)


async def names(attack: Attack) -> None:
    reader, writer = await attack.door()
    with contextlib.closing(writer):
        for number in itertools.count():
            writer.write(f"GET http://{attack.url[7:12]}{number}.example.invalid/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.read(65_536)


def post(path: str, *headers: str) -> Callable[[Attack], bytes]:
    lines = "".join(f"{one}\r\n" for one in ("Host: x", *headers))
    return lambda attack: f"POST {attack.url}{path} HTTP/1.1\r\n{lines}\r\n".encode()


def get(path: str) -> Callable[[Attack], bytes]:
    return lambda attack: f"GET {attack.url}{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def tunnel(attack: Attack) -> bytes:
    return f"CONNECT 127.0.0.1:{attack.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


MODEL = b"POST /model/anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = b"GET http://refused.example/ HTTP/1.1\r\nHost: x\r\n\r\n"
HEADERS = b"GET http://a.invalid/ HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 10_000 + b"\r\n"

ATTACKS: dict[str, Callable[[Attack], Awaitable[None]]] = {
    "connections opened and closed": churn,
    "silent connections": sends(lambda _: b""),
    "half a head": sends(lambda _: b"GET http://a.invalid/ HTTP/1.1\r\nX: "),
    "a head byte by byte": byte_by_byte,
    "ten thousand headers": sends(lambda _: HEADERS),
    "no HTTP": sends(lambda _: b"\x00" * 10_000),
    "refused tunnels": sends(lambda _: b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "refused requests in a row": sends(lambda _: REFUSED, REFUSED * 100),
    "refused SOCKS requests": sends(lambda _: b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50"),
    "names that do not exist": names,
    "uploads": sends(post("/", "Content-Length: 1000000000000"), PIECE),
    "uploads in tiny chunks": sends(post("/", "Transfer-Encoding: chunked"), TINY),
    "uploads that are refused": sends(
        lambda _: b"POST http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", TINY
    ),
    "downloads": sends(get("/endless")),
    "downloads in tiny chunks": sends(get("/tiny")),
    "downloads that nobody reads": sends(get("/endless"), reads=False),
    "tunnels": sends(tunnel, PIECE),
    "tunnels with one byte at a time": sends(tunnel, b"x"),
    "model requests in a row": sends(lambda _: MODEL, MODEL * 100),
}


async def say_begun() -> None:
    await asyncio.sleep(0.1)
    print(flush=True)  # noqa: T201


async def forever(attack: Attack, one: Callable[[Attack], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError):
            await one(attack)


async def main(name: str, path: str) -> None:
    attack = Attack(path)
    await attack.serve()
    print(attack.port, flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(say_begun(), *(forever(attack, ATTACKS[name]) for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
