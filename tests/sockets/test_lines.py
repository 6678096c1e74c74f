"""Lines over real unix sockets: complete, bounded, in order, and correct when the peer disconnects."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hive.sockets.lines import LINE_MAX_BYTES, LINES_AHEAD_MAX, TOO_LONG, UNREAD_MAX_BYTES, LineConnection

DEADLINE_S = 30.0
"""Much longer than any test takes; only a defect reaches it."""
AHEAD_MAX_BYTES = 8 * 1024 * 1024
"""More than the kernel's buffers and one read of the loop hold."""
MANY = 20 * LINES_AHEAD_MAX

Serve = Callable[[LineConnection], Awaitable[None]]


class Client:
    """A client that sends and receives bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> bytes:
        return (await self.reader.readuntil()).removesuffix(b"\n")

    def vanish(self) -> None:
        self.writer.transport.abort()


Connect = Callable[[], Awaitable[Client]]


async def echo(connection: LineConnection) -> None:
    while (line := await connection.next_line()) is not None:
        if not await connection.reply(b"too long" if line == TOO_LONG else line):
            return


def over_a_socket(folder: Path, serve: Serve, story: Callable[[Connect], Coroutine[Any, Any, None]]) -> None:
    """Run clients against a server of line connections."""
    path = folder / "lines.sock"

    async def run() -> None:
        opened: set[LineConnection] = set()
        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(Client(*await asyncio.open_unix_connection(path, limit=2 * LINE_MAX_BYTES)))
            return clients[-1]

        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: LineConnection(serve, opened), path)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await story(connect)
                for client in clients:
                    client.vanish()
                while opened:  # noqa: ASYNC110 - no event reports the last one.
                    await asyncio.sleep(0)
        finally:
            server.close()

    asyncio.run(run())


def test_line_sent_byte_by_byte_is_one_line(tmp_path: Path) -> None:
    async def story(connect: Connect) -> None:
        client = await connect()
        for byte in b"whole\n":
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await client.line() == b"whole"

    over_a_socket(tmp_path, echo, story)


def test_line_split_over_two_writes_is_joined(tmp_path: Path) -> None:
    async def story(connect: Connect) -> None:
        client = await connect()
        await client.send(b"first\nsec")
        assert await client.line() == b"first"
        await client.send(b"ond\nthird\n")
        assert [await client.line(), await client.line()] == [b"second", b"third"]

    over_a_socket(tmp_path, echo, story)


def test_blank_lines_are_answered(tmp_path: Path) -> None:
    """The sender of a blank line waits for a reply."""

    async def story(connect: Connect) -> None:
        client = await connect()
        await client.send(b"\n \n\r\none\r\n\n")
        assert [await client.line() for _ in range(5)] == [b"", b"", b"", b"one", b""]
        await client.send(b"two\n")
        assert await client.line() == b"two"

    over_a_socket(tmp_path, echo, story)


@pytest.mark.parametrize(
    ("size", "taken"), [(LINE_MAX_BYTES, True), (LINE_MAX_BYTES + 1, False), (3 * LINE_MAX_BYTES, False)]
)
def test_line_over_the_limit_is_answered_and_the_connection_stays_open(tmp_path: Path, size: int, taken: bool) -> None:
    async def story(connect: Connect) -> None:
        client = await connect()
        line = b"x" * size
        sending = asyncio.create_task(client.send(b"before\n" + line + b"\nafter\n"))
        assert await client.line() == b"before"
        assert await client.line() == (line if taken else b"too long")
        assert await client.line() == b"after"
        await sending

    over_a_socket(tmp_path, echo, story)


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def story(connect: Connect) -> None:
        client = await connect()
        await client.send(b"".join(b"%d\n" % number for number in range(MANY)))
        assert [await client.line() for _ in range(MANY)] == [b"%d" % number for number in range(MANY)]

    over_a_socket(tmp_path, echo, story)


def test_server_stops_reading_from_a_peer_that_sends_ahead(tmp_path: Path) -> None:
    async def story(connect: Connect) -> None:
        goes_on = asyncio.Event()
        holds[0] = goes_on
        client = await connect()
        line = b"x" * 1_000 + b"\n"
        count = 2 * AHEAD_MAX_BYTES // len(line)
        sending = asyncio.create_task(client.send(line * count))
        unsent, before = client.writer.transport.get_write_buffer_size, -1
        while before != (before := unsent()):  # noqa: ASYNC110 - no event reports that sending has stopped.
            await asyncio.sleep(0.05)
        assert unsent() > AHEAD_MAX_BYTES
        goes_on.set()
        for _ in range(count):
            assert await client.line() == line.strip()
        await sending

    holds: dict[int, asyncio.Event] = {}

    async def wait_then_echo(connection: LineConnection) -> None:
        await holds[0].wait()
        await echo(connection)

    over_a_socket(tmp_path, wait_then_echo, story)


def test_half_closed_peer_gets_its_replies(tmp_path: Path) -> None:
    async def story(connect: Connect) -> None:
        client = await connect()
        client.writer.write(b"".join(b"%d\n" % number for number in range(MANY)) + b"no end")
        client.writer.write_eof()
        replies = (await client.reader.read()).split()
        assert replies == [b"%d" % number for number in range(MANY)], "an unfinished line is not a request"

    over_a_socket(tmp_path, echo, story)


def test_peer_that_never_reads_is_disconnected(tmp_path: Path) -> None:
    was_read: asyncio.Queue[bool] = asyncio.Queue()

    async def answer_at_length(connection: LineConnection) -> None:
        while await connection.next_line() is not None:
            was_read.put_nowait(await connection.reply(b"x" * (UNREAD_MAX_BYTES + LINE_MAX_BYTES)))

    async def story(connect: Connect) -> None:
        client = await connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stub has WriteTransport.
        await client.send(b"tell me everything\n")
        assert await was_read.get() is False
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await client.reader.read()) < UNREAD_MAX_BYTES

    over_a_socket(tmp_path, answer_at_length, story)


def test_reply_to_a_disconnected_peer_returns_false(tmp_path: Path) -> None:
    was_read: asyncio.Queue[bool] = asyncio.Queue()

    async def story(connect: Connect) -> None:
        client = await connect()
        await client.send(b"a question\n")
        client.vanish()
        assert await was_read.get() is False

    async def answer_once_it_is_gone(connection: LineConnection) -> None:
        gone = asyncio.Event()
        connection.on_gone = gone.set
        assert await connection.next_line() == b"a question"
        await gone.wait()
        was_read.put_nowait(await connection.reply(b"an answer"))

    over_a_socket(tmp_path, answer_once_it_is_gone, story)


def test_bug_in_one_connection_closes_only_that_connection(tmp_path: Path) -> None:
    async def fails_on_request(connection: LineConnection) -> None:
        while (line := await connection.next_line()) is not None:
            if line == b"fail":
                raise RuntimeError("a bug that a test asked for")
            await connection.reply(line)

    async def story(connect: Connect) -> None:
        one, other = await connect(), await connect()
        await one.send(b"fail\n")
        assert await one.reader.read() == b""
        await other.send(b"and you?\n")
        assert await other.line() == b"and you?"

    over_a_socket(tmp_path, fails_on_request, story)
