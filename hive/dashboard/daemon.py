"""Asks the daemon over the dashboard's own socket, where every request carries an operator's session."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final

import msgspec

from hive.errors import HiveError

CONNECT_TIMEOUT_S: Final = 5.0
REPLY_TIMEOUT_S: Final = 1_800.0
"""A reply comes when the act is done, and a build may take long; the daemon bounds each act itself."""
LINE_MAX_BYTES: Final = 128 * 1024 * 1024

Reply = dict[str, Any]


class DaemonAway(HiveError):
    """Nobody answers at the socket."""

    code: ClassVar[str] = "unavailable"


class Declined(HiveError):
    """The daemon said no, in its words; `reason` is the refusal's stable code."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class Daemon:
    """The socket, reached by its name in the folder the process works in. A connection for each request."""

    def __init__(self, path: str):
        self._path = path

    async def ask(self, cmd: str, /, **fields: Any) -> Reply:
        """One request and its reply. A field that is None is left out.

        Raises:
            Declined, DaemonAway.
        """
        reader, writer = await self._sent(cmd, fields)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                return _checked(await reader.readline())
        except (OSError, ValueError, TimeoutError) as error:
            raise DaemonAway("The daemon did not answer.") from error
        finally:
            writer.close()

    async def follow(self, cmd: str, /, **fields: Any) -> AsyncIterator[Reply]:
        """One request and every response to it, until the daemon hangs up. Raises as `ask`."""
        reader, writer = await self._sent(cmd, fields)
        try:
            while line := await reader.readline():
                yield _checked(line)
        except (OSError, ValueError) as error:
            raise DaemonAway("The daemon stopped answering.") from error
        finally:
            writer.close()

    async def _sent(self, cmd: str, fields: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_MAX_BYTES)
                writer.write(msgspec.json.encode({"cmd": cmd, **given}) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError) as error:
            raise DaemonAway(
                "The daemon does not answer. It may be starting; if not, start it with `hive up`."
            ) from error
        return reader, writer


class Operator:
    """One signed-in person's way to the daemon, for the length of a request."""

    def __init__(self, daemon: Daemon, name: str, session: str, csrf: str, sessions: int, *, background: bool):
        self.name = name
        self.csrf = csrf
        self.sessions = sessions
        """How many this person has open."""
        self._daemon = daemon
        self._credentials = {"session": session, "background": background or None}

    async def ask(self, cmd: str, /, **fields: Any) -> Reply:
        return await self._daemon.ask(cmd, **self._credentials, **fields)

    def follow(self, cmd: str, /, **fields: Any) -> AsyncIterator[Reply]:
        """Never keeps a session from going idle: no person asks."""
        return self._daemon.follow(cmd, **{**self._credentials, "background": True}, **fields)


def _checked(line: bytes) -> Reply:
    try:
        reply = msgspec.json.decode(line)
    except msgspec.DecodeError:
        raise DaemonAway("The daemon ended before it answered.") from None
    if not isinstance(reply, dict) or reply.get("ok") is not True:
        refusal = reply if isinstance(reply, dict) else {}
        raise Declined(str(refusal.get("error", "The daemon refused.")), str(refusal.get("code", "refused")))
    return reply
