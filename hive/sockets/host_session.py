"""One connection on the host socket. Answers the operator's requests in order and records who made each decision."""

import pwd
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog

from hive.errors import BadRequest, HiveError
from hive.events.base import By
from hive.sockets.agent_session import TOO_LONG_TEXT
from hive.sockets.lines import TOO_LONG, LineConnection
from hive.sockets.requests import Request, RequestDecoder, error_reply, ok_reply
from hive.sockets.services import Services
from hive.sockets.sessions import OperatorSession

log = structlog.get_logger()

VERSION: Final = 1
"""Version of the host protocol."""

Reply = dict[str, Any]


class HostVerb(msgspec.Struct, frozen=True):
    """A verb of the protocol. A verb that streams responses writes them itself and returns None."""

    request: type[Request]
    handle: Callable[["HostSession", Any], Awaitable[Reply | None]]


class HostSession:
    """The socket's mode decides who may connect. SO_PEERCRED identifies the operator."""

    def __init__(
        self, connection: LineConnection, services: Services, verbs: dict[str, HostVerb], decoder: RequestDecoder
    ):
        self.services = services
        self.connection = connection
        uid = connection.peer.uid
        self.by = By("operator", user_name(uid), uid=uid, way="host")
        self.signed_in: OperatorSession | None = None
        """The operator's session that the request carries. Set on the dashboard's socket only."""
        self.forget_session: Callable[[], None] = lambda: None
        self._verbs = verbs
        self._decoder = decoder

    async def serve(self) -> None:
        """Answer requests until the peer disconnects."""
        try:
            while (line := await self.connection.next_line()) is not None:
                reply = await self._answer(line)
                if reply is not None and not await self.connection.reply(reply):
                    return
        finally:
            self.forget_session()

    async def authorize(self, cmd: str, line: bytes) -> None:
        """Check that the caller may send this request. The host socket allows every request."""

    async def respond(self, data: Reply) -> bool:
        """Write one response of a stream. Returns False when the peer has disconnected."""
        return await self.connection.reply(ok_reply(data, version=VERSION))

    async def _answer(self, line: bytes) -> bytes | None:
        if line == TOO_LONG:
            return error_reply(BadRequest(TOO_LONG_TEXT), version=VERSION)
        try:
            cmd, request = self._decoder.decode(line)
            await self.authorize(cmd, line)
            data = await self._verbs[cmd].handle(self, request)
        except HiveError as error:
            return error_reply(error, version=VERSION)
        except Exception as bug:  # Answer with an internal error and keep the connection.
            log.exception("socket.request_failed", by=str(self.by))
            return error_reply(bug, version=VERSION)
        return None if data is None else ok_reply(data, version=VERSION)


def user_name(uid: int) -> str:
    """The name of a host user, or its uid if it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
