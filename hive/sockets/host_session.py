"""One connection on the host socket: the operator's requests in order, each decision with who made it."""

import pwd
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog

from hive.errors import BadRequest, HiveError
from hive.events.base import By
from hive.sockets.agent_session import TOO_LONG_TEXT
from hive.sockets.lines import TOO_LONG, LineConnection
from hive.sockets.requests import Request, Vocabulary, granted, refused
from hive.sockets.services import Services
from hive.sockets.sessions import OperatorSession

log = structlog.get_logger()

VERSION: Final = 1
"""Of the protocol that existing clients speak."""

Reply = dict[str, Any]


class HostVerb(msgspec.Struct, frozen=True):
    """One word of the protocol. A verb that goes on replying writes by itself and returns None."""

    request: type[Request]
    handle: Callable[["HostSession", Any], Awaitable[Reply | None]]


class HostSession:
    """Who may connect is the operator, by the socket's mode; who it was is the kernel's word."""

    def __init__(self, connection: LineConnection, services: Services, verbs: dict[str, HostVerb], words: Vocabulary):
        self.services = services
        self.connection = connection
        uid = connection.peer.uid
        self.by = By("operator", user_name(uid), uid=uid, way="host")
        self.signed_in: OperatorSession | None = None
        """On the dashboard's socket, whose session the request carries."""
        self.forget_session: Callable[[], None] = lambda: None
        self._verbs = verbs
        self._words = words

    async def serve(self) -> None:
        """Answer until the peer goes."""
        try:
            while (line := await self.connection.next_line()) is not None:
                reply = await self._answer(line)
                if reply is not None and not await self.connection.reply(reply):
                    return
        finally:
            self.forget_session()

    async def admit(self, cmd: str, line: bytes) -> None:
        """Whoever may connect to the host socket may ask anything."""

    async def say(self, data: Reply) -> bool:
        """One response of a verb that goes on; False when nobody listens any more."""
        return await self.connection.reply(granted(data, version=VERSION))

    async def _answer(self, line: bytes) -> bytes | None:
        if line == TOO_LONG:
            return refused(BadRequest(TOO_LONG_TEXT), version=VERSION)
        try:
            cmd, request = self._words.decode(line)
            await self.admit(cmd, line)
            data = await self._verbs[cmd].handle(self, request)
        except HiveError as error:
            return refused(error, version=VERSION)
        except Exception as bug:  # Its request is answered, and the connection goes on.
            log.exception("socket.request_failed", by=str(self.by))
            return refused(bug, version=VERSION)
        return None if data is None else granted(data, version=VERSION)


def user_name(uid: int) -> str:
    """Of a host user; its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
