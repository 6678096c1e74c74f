"""Client of the dashboard's own socket, where every request carries an operator's session."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final

import msgspec

from hive.errors import HiveError

CONNECT_TIMEOUT_S: Final = 5.0
REPLY_TIMEOUT_S: Final = 1_800.0
"""A reply arrives when the action is done, and a build may take long; the daemon bounds each action itself."""
LINE_MAX_BYTES: Final = 128 * 1024 * 1024

Reply = dict[str, Any]


class DaemonAway(HiveError):
    """The daemon does not answer on the socket."""

    code: ClassVar[str] = "unavailable"


class Declined(HiveError):
    """The daemon refused a request. The message is the daemon's; `reason` is the stable error code."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class Daemon:
    """The socket, relative to the working directory. Each request opens its own connection."""

    def __init__(self, path: str):
        self._path = path

    async def ask(self, cmd: str, /, **fields: Any) -> Reply:
        """Send one request and return its reply. Fields that are None are omitted.

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
        """Send one request and yield every response until the daemon disconnects. Raises the same errors as `ask`."""
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
    """Access to the daemon for one signed-in operator, for one HTTP request."""

    def __init__(self, daemon: Daemon, name: str, session: str, csrf: str, sessions: int, *, background: bool):
        self.name = name
        self.csrf = csrf
        self.sessions = sessions
        """The number of open sessions of this operator."""
        self._daemon = daemon
        self._credentials = {"session": session, "background": background or None}

    async def ask(self, cmd: str, /, **fields: Any) -> Reply:
        return await self._daemon.ask(cmd, **self._credentials, **fields)

    def follow(self, cmd: str, /, **fields: Any) -> AsyncIterator[Reply]:
        """Does not count as activity of the session, because no person sends these requests."""
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
