"""One connection on an agent's socket. Answers requests in order, parks recv, loses no message on disconnect."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog

from hive.deciders import messages
from hive.deciders.messages import FAILED_DELIVERIES_MAX, RECV_MAX
from hive.errors import BadRequest, HiveError, WireUnsupported
from hive.events import base
from hive.events.base import MessageId
from hive.names import EVERYONE, AgentName
from hive.projections.messages import InboxMessage
from hive.sockets import views
from hive.sockets.lines import TOO_LONG, LineConnection
from hive.sockets.requests import Id, Limit, Request, RequestDecoder, Seconds, error_reply, ok_reply, peek
from hive.sockets.services import Services
from hive.sockets.shares import Cost

log = structlog.get_logger()

RECV_WAIT_MAX_S: Final = 180.0
"""Maximum time that a recv parks."""
TOO_LONG_TEXT: Final = "A request is at most 1 MiB; put a large text into a file and send its path."

DELIVERY_EVENTS: Final = 2
"""Paid with each delivery: itself, and the ack or requeue that ends it, so that neither is ever refused."""
OUTCOMES: Final = frozenset({"turn_ended"})
"""What the harness may still write on a full disk, besides acks and requeues."""
DEATH_EVENTS: Final = 3
"""Paid with a delivery that may be the last: the message is dead, and the operator and the sender are told."""

Reply = dict[str, Any]


class Verb(msgspec.Struct, frozen=True):
    """A verb of the protocol: its request type and its handler."""

    request: type[Request]
    handle: Callable[["AgentSession", Any], Awaitable[Reply]]
    cost: Cost
    """Required: what has no price is not limited."""


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
        self.unsupported: WireUnsupported | None = None
        """Set after a hello with a version of the protocol that this daemon does not speak."""
        self.connection = connection
        self.share = services.shares.of(name)
        self._verbs = verbs
        self._decoder = decoder

    async def serve(self) -> None:
        """Answer requests until the peer disconnects."""
        if not self.connection.is_counted:
            await self.connection.reply(error_reply(self.share.refusal("connections", "This connection", 1.0)))
            return
        with self.services.hub.presence.connected(self.name, self.connection):
            while (line := await self.connection.next_line()) is not None:
                reply, given = await self._answer(line)
                if not await self.connection.reply(reply):
                    await self._give_back(given)
                    return
                if line == TOO_LONG:
                    await self.connection.rest_over()
                    return

    async def _answer(self, line: bytes) -> tuple[bytes, tuple[MessageId, ...]]:
        if line == TOO_LONG:
            return error_reply(BadRequest(TOO_LONG_TEXT)), ()
        if self.unsupported is not None:
            return error_reply(self.unsupported), ()
        own, size = self.connection.is_own, len(line)
        try:
            if (verb := self._verbs.get(peek(line) or "")) is not None:
                self.share.check(peek(line) or "", verb.cost, size, own=own)
            cmd, request = self._decoder.decode(line)
            cost = self._verbs[cmd].cost
            if cost.events and not (own and cmd in OUTCOMES):
                self.services.room.refuse_low(cmd)
            self.share.take(
                cmd, cost, size, own=own, copies=self._copies(request), keyed=getattr(request, "key", None) is not None
            )
            if isinstance(request, Recv):
                reply, given = await self._recv(request)
            elif cost.reads:
                reply, given = await self._read(cmd, request, own), ()
            else:
                reply, given = ok_reply(await self._verbs[cmd].handle(self, request)), ()
        except HiveError as error:
            return error_reply(error), ()
        except Exception as bug:  # Answer with an internal error and keep the connection.
            log.exception("socket.request_failed", agent=self.name)
            return error_reply(bug), ()
        if not (own and cost.harness):
            self.share.replied(len(reply))
        return reply, given

    def _copies(self, request: Any) -> int:
        """Messages that a request writes beyond one."""
        return max(0, self.services.shares.agents - 2) if getattr(request, "to", None) == EVERYONE else 0

    async def _read(self, cmd: str, request: Any, own: bool) -> bytes:
        """One large reply at a time; whoever waited finds out what those before it have used."""
        async with self.share.reading:
            verb = self._verbs[cmd]
            self.share.check(cmd, verb.cost, 0, own=own)
            return ok_reply(await verb.handle(self, request))

    async def _recv(self, request: Recv) -> tuple[bytes, tuple[MessageId, ...]]:
        own, now = self.connection.is_own, asyncio.get_running_loop().time
        deadline = now() + min(request.wait_seconds or 0, RECV_WAIT_MAX_S)
        with self.services.hub.receiving.parked(self.name) as woken:
            self.connection.on_gone = woken.set
            taken, remaining, paused, was_paused = list[InboxMessage](), 0, False, None
            while True:
                limit = self.share.affordable(DELIVERY_EVENTS, min(max(request.max or 1, 1), RECV_MAX), own=own)
                if limit > 0:
                    taken, remaining, paused = await self._taken(request, limit)
                    was_paused = paused if was_paused is None else was_paused
                    if taken or (paused and not was_paused) or not await self._wait(woken, deadline):
                        break
                    continue
                wait_s = self.share.wait_s(DELIVERY_EVENTS, own=own)
                if was_paused is None and now() + wait_s > deadline:
                    raise self.share.refusal("events", "recv", wait_s)
                await self._wait(woken, min(deadline, now() + wait_s))
                if self.connection.gone or now() >= deadline:
                    break
        reply = {"messages": [views.message(message) for message in taken], "remaining": remaining, "paused": paused}
        return ok_reply(reply), tuple(message.id for message in taken)

    async def _taken(self, request: Recv, limit: int) -> tuple[list[InboxMessage], int, bool]:
        """Take messages and pay for their deliveries, and for the end of each."""
        self.services.room.refuse_low("recv")
        self.share.charge(limit * DELIVERY_EVENTS)
        used = 0
        try:
            take = messages.Recv(
                by=self.by,
                agent=self.name,
                limit=limit,
                incarnation=self.incarnation,
                holding=None if request.holding is None else tuple(map(MessageId, request.holding)),
            )
            taken, remaining, paused = (await self.services.journal.ask(take)).answer
            dying = sum(message.failures >= FAILED_DELIVERIES_MAX - 1 for message in taken)
            used = len(taken) * DELIVERY_EVENTS + dying * DEATH_EVENTS
            return taken, remaining, paused
        finally:
            self.share.charge(used - limit * DELIVERY_EVENTS)

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
