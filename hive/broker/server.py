"""The broker's event loop: takes agents' sockets and policies from the daemon, serves them, reports back."""

import asyncio
import contextlib
import socket
import ssl
import sys
from typing import Final

import structlog

from hive.broker.addresses import Resolve
from hive.broker.agent import CONNECTIONS_MAX, Agent
from hive.broker.client import serve
from hive.broker.files import Files
from hive.broker.origin import Origins
from hive.broker.streams import PULL_BYTES
from hive.broker.wire import Forget, FromBroker, FromDaemon, Listen, Policy, Settled, ToBroker, Watch, encoded

log = structlog.get_logger()

FLUSH_S: Final = 0.5
"""How often the newest tries are reported."""
UNSENT_MAX_BYTES: Final = 64 * 1024 * 1024
"""Reports that the daemon has not taken; beyond, the broker ends rather than lose what was metered."""


class _Served:
    """One agent's sockets and connections."""

    def __init__(self, agent: Agent, tls: ssl.SSLContext) -> None:
        self.agent = agent
        self._origins = Origins(tls, agent.pace)
        self._listeners: list[socket.socket] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._accepts = True

    def listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listeners.append(listener)
        if self._accepts:
            self._watch(listener)

    def _watch(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        task = asyncio.ensure_future(self._serve(connection))
        self._connections.add(task)
        task.add_done_callback(self._ended)
        if len(self._connections) >= CONNECTIONS_MAX:
            self._accepts = False
            for one in self._listeners:
                asyncio.get_running_loop().remove_reader(one.fileno())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("broker.connection_failed", agent=self.agent.name, error=repr(bug))
        if not self._accepts and len(self._connections) < CONNECTIONS_MAX:
            self._accepts = True
            for one in self._listeners:
                self._watch(one)

    async def _serve(self, connection: socket.socket) -> None:
        streams = await asyncio.open_unix_connection(sock=connection, limit=PULL_BYTES)
        await serve(streams, self.agent, self._origins)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        for task in list(self._connections):
            task.cancel()
        self._origins.close()


class Broker:
    """Serves until the daemon closes the channel."""

    def __init__(self, channel: socket.socket, resolve: Resolve, tls: ssl.SSLContext) -> None:
        self._channel = channel
        self._incoming = FromDaemon(channel)
        self._resolve = resolve
        self._tls = tls
        self._agents: dict[str, _Served] = {}
        self._files = Files(self._report)
        self._unsent = bytearray()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._channel.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._read)
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._ended.wait()
            for served in self._agents.values():
                served.agent.flush_tries()
        for served in self._agents.values():
            served.close()
        self._files.close()

    def _read(self) -> None:
        messages = self._incoming.read()
        if messages is None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._ended.set()
            return
        for message, descriptor in messages:
            self._take(message, descriptor)

    def _take(self, message: ToBroker, descriptor: int | None) -> None:
        match message:
            case Policy(agent=name):
                self._served(name).agent.set_policy(message)
            case Listen(agent=name) if descriptor is not None:
                self._served(name).listen(socket.socket(fileno=descriptor))
            case Watch(names=names) if descriptor is not None:
                self._files.watch(descriptor, names)
            case Settled(number=number):
                self._files.settle(number)
            case Forget(agent=name):
                if (served := self._agents.pop(name, None)) is not None:
                    served.close()
            case _:
                pass

    def _served(self, name: str) -> _Served:
        if name not in self._agents:
            self._agents[name] = _Served(Agent(name, self._report, self._resolve, self._files), self._tls)
        return self._agents[name]

    def _report(self, message: FromBroker) -> None:
        self._unsent += encoded(message)
        self._write()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._ended.set()
            return
        del self._unsent[:sent]
        if len(self._unsent) > UNSENT_MAX_BYTES:
            sys.exit("hive broker: the daemon takes no reports.")
        if self._unsent:
            loop.add_writer(self._channel.fileno(), self._write)
        else:
            loop.remove_writer(self._channel.fileno())
