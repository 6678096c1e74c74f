"""One connection on an agent's socket. Answers requests in order, parks recv, loses no message on disconnect."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog

from hive.deciders import messages
from hive.errors import BadRequest, HiveError
from hive.events import base
from hive.events.base import MessageId
from hive.names import AgentName
from hive.sockets import views
from hive.sockets.lines import TOO_LONG, LineConnection
from hive.sockets.requests import Id, Limit, Request, RequestDecoder, Seconds, error_reply, ok_reply
from hive.sockets.services import Services

log = structlog.get_logger()

RECV_WAIT_MAX_S: Final = 180.0
"""Maximum time that a recv parks."""
TOO_LONG_TEXT: Final = "A request is at most 1 MiB; put a large text into a file and send its path."

Reply = dict[str, Any]


class Verb(msgspec.Struct, frozen=True):
    """A verb of the protocol: its request type and its handler."""

    request: type[Request]
    handle: Callable[["AgentSession", Any], Awaitable[Reply]]


class Recv(Request, frozen=True, kw_only=True):
    wait_seconds: Seconds | None = None
    """Absent or 0 returns at once."""
    max: Limit | None = None
    holding: tuple[Id, ...] | None = None
    """Messages the harness is working on. Other messages delivered to it were lost in transit and are redelivered."""


class AgentSession:
    """The socket identifies the agent. No field of a request can change that."""

    def __init__(
        self,
        name: AgentName,
        connection: LineConnection,
        services: Services,
        verbs: dict[str, Verb],
        decoder: RequestDecoder,
    ):
        self.name = name
        self.by = base.agent(name)
        self.services = services
        self.incarnation: str | None = None
        self.connection = connection
        self._verbs = verbs
        self._decoder = decoder

    async def serve(self) -> None:
        """Answer requests until the peer disconnects."""
        with self.services.hub.presence.connected(self.name, self.connection):
            while (line := await self.connection.next_line()) is not None:
                reply, given = await self._answer(line)
                if not await self.connection.reply(reply):
                    await self._give_back(given)
                    return

    async def _answer(self, line: bytes) -> tuple[bytes, tuple[MessageId, ...]]:
        if line == TOO_LONG:
            return error_reply(BadRequest(TOO_LONG_TEXT)), ()
        try:
            cmd, request = self._decoder.decode(line)
            if isinstance(request, Recv):
                return await self._recv(request)
            return ok_reply(await self._verbs[cmd].handle(self, request)), ()
        except HiveError as error:
            return error_reply(error), ()
        except Exception as bug:  # Answer with an internal error and keep the connection.
            log.exception("socket.request_failed", agent=self.name)
            return error_reply(bug), ()

    async def _recv(self, request: Recv) -> tuple[bytes, tuple[MessageId, ...]]:
        take = messages.Recv(
            by=self.by,
            agent=self.name,
            limit=1 if request.max is None else request.max,
            incarnation=self.incarnation,
            holding=None if request.holding is None else tuple(map(MessageId, request.holding)),
        )
        with self.services.hub.receiving.parked(self.name) as woken:
            self.connection.on_gone = woken.set
            taken, remaining, paused = (await self.services.journal.ask(take)).answer
            was_paused = paused
            wait_s = min(request.wait_seconds or 0, RECV_WAIT_MAX_S)
            deadline = asyncio.get_running_loop().time() + wait_s
            while not taken and (was_paused or not paused) and await self._wait(woken, deadline):
                taken, remaining, paused = (await self.services.journal.ask(take)).answer
        reply = {"messages": [views.message(message) for message in taken], "remaining": remaining, "paused": paused}
        return ok_reply(reply), tuple(message.id for message in taken)

    async def wait_for_wake(self, woken: asyncio.Event, wait_s: float) -> bool:
        """Park until woken. Returns False on timeout or when the peer has disconnected."""
        self.connection.on_gone = woken.set
        return await self._wait(woken, asyncio.get_running_loop().time() + min(wait_s, RECV_WAIT_MAX_S))

    async def _wait(self, woken: asyncio.Event, deadline: float) -> bool:
        if self.connection.gone or deadline <= asyncio.get_running_loop().time():
            return False
        try:
            async with asyncio.timeout_at(deadline):
                await woken.wait()
        except TimeoutError:
            return False
        woken.clear()
        return not self.connection.gone

    async def _give_back(self, given: tuple[MessageId, ...]) -> None:
        """Requeue messages whose reply the peer did not read."""
        if given:
            await self.services.journal.ask(messages.Requeue(by=self.by, agent=self.name, ids=given, reason="lost"))
