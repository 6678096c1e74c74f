"""SOCKS5 without authentication, CONNECT only: for ssh, databases and other clients that speak no HTTP."""

import asyncio
import ipaddress
import struct
from typing import Final

from hive import hosts
from hive.broker.agent import Agent, Failed, Refused
from hive.broker.pace import Pace
from hive.broker.streams import HEAD_TIMEOUT_S, copy_both_ways
from hive.errors import BadRequest

VERSION: Final = b"\x05"
NO_AUTHENTICATION: Final = 0
NONE_ACCEPTABLE: Final = b"\x05\xff"
CONNECT: Final = 1
IPV4: Final = 1
GRANTED, NOT_ALLOWED, UNREACHABLE, BAD_COMMAND, BAD_ADDRESS = 0, 2, 4, 7, 8


class _Input:
    """What was read with the first byte, then the stream."""

    def __init__(self, first: bytes, reader: asyncio.StreamReader, pace: Pace) -> None:
        self.rest = first
        self._pace = pace
        self._reader = reader

    async def take(self, count: int) -> bytes:
        while len(self.rest) < count:
            data = await self._reader.read(1024)
            await self._pace.step()
            if not data:
                raise ConnectionResetError
            self.rest += data
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


async def serve_socks(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, agent: Agent) -> None:
    """Serve one connection. Raises OSError, TimeoutError."""
    given = _Input(first, reader, agent.pace)
    async with asyncio.timeout(HEAD_TIMEOUT_S):
        _, methods = await given.take(2)
        if NO_AUTHENTICATION not in await given.take(methods):
            writer.write(NONE_ACCEPTABLE)
            return
        writer.write(VERSION + b"\x00")
        _, command, _, kind = await given.take(4)
        host = await _host(given, kind)
        (port,) = struct.unpack("!H", await given.take(2))
    if command != CONNECT:
        _reply(writer, BAD_COMMAND)
        return
    try:
        connection = await agent.connect(hosts.canonical(host), port)
    except BadRequest:
        _reply(writer, BAD_ADDRESS)
    except Refused:
        _reply(writer, NOT_ALLOWED)
    except Failed:
        _reply(writer, UNREACHABLE)
    else:
        _reply(writer, GRANTED)
        await copy_both_ways((reader, writer), connection, agent.pace, (given.rest, b""))
        connection[1].close()


async def _host(given: _Input, kind: int) -> str:
    match kind:
        case 1:
            return str(ipaddress.IPv4Address(await given.take(4)))
        case 3:
            (length,) = await given.take(1)
            return (await given.take(length)).decode("ascii", "replace")
        case 4:
            return str(ipaddress.IPv6Address(await given.take(16)))
        case _:
            raise ConnectionResetError


def _reply(writer: asyncio.StreamWriter, code: int) -> None:
    writer.write(bytes([5, code, 0, IPV4, 0, 0, 0, 0, 0, 0]))
