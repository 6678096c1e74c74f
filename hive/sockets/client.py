"""A synchronous client of the host socket, used by the command line, the demo and the tests."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from hive.clock import MS_PER_S, duration_text
from hive.errors import HiveError

PROTOCOL_VERSION: Final = 1
CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 1_800.0
"""A reply arrives when the act is done, and a build takes long. The daemon limits each act itself."""
REPLY_MAX_BYTES = 256 * 1024 * 1024
READ_BYTES = 256 * 1024
SOCKET_PATH_BYTES = 107
"""Maximum length of sun_path. A longer path is reached through its opened folder."""

Reply = dict[str, Any]


class Unreachable(HiveError):
    """No daemon answers. The message says why: not running, nothing listening, or no permission."""

    code = "unreachable"


class Declined(HiveError):
    """The daemon refused the request. The message is the daemon's; `reason_code` is its stable error code."""

    code = "refused"

    def __init__(self, message: str, reason_code: str = "refused"):
        super().__init__(message)
        self.reason_code = reason_code


class HostClient:
    """One connection to the host socket for sequential requests. Connects on the first request."""

    def __init__(self, path: Path, *, reply_timeout_s: float = REPLY_TIMEOUT_S):
        self._path = path
        self._reply_timeout_s = reply_timeout_s
        self._socket: socket.socket | None = None
        self._unread = bytearray()

    def ask(self, cmd: str, /, **fields: Any) -> Reply:
        """Send one request and return its reply without `version` and `ok`. Fields that are None are left out.

        Raises:
            Unreachable: no daemon runs, or it ended before it answered.
            Declined: the daemon refused the request.
        """
        self._send(cmd, fields)
        return self._reply()

    def follow(self, cmd: str, /, **fields: Any) -> Iterator[Reply]:
        """Send one request and yield its responses until the daemon ends. Use the connection for nothing else.

        Raises the same errors as `ask`. If the daemon ends, the iteration ends.
        """
        self._send(cmd, fields)
        yield self._reply()
        self._connected().settimeout(None)
        while line := self._line():
            yield _checked(line)

    def hang_up(self) -> None:
        """End a running `follow`. May be called from another thread, also before the connection is open."""
        with contextlib.suppress(OSError, HiveError):
            self._connected().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._unread.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = connect(self._path)
            self._socket.settimeout(self._reply_timeout_s)
        return self._socket

    def _send(self, cmd: str, fields: dict[str, Any]) -> None:
        given = {name: value for name, value in fields.items() if value is not None}
        line = msgspec.json.encode({"cmd": cmd, **given}) + b"\n"
        try:
            self._connected().sendall(line)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close()
            raise Unreachable(f"The daemon at {self._path} accepts no requests; check its log.") from None

    def _reply(self) -> Reply:
        try:
            line = self._line()
        except TimeoutError:
            self.close()
            raise Unreachable(
                f"The daemon did not answer within {duration_text(self._reply_timeout_s * MS_PER_S)}; check its log."
            ) from None
        if not line:
            raise Unreachable("The daemon ended before it answered; check its log and start it with `hive up`.")
        return _checked(line)

    def _line(self) -> bytes:
        """The next line without its line feed; empty if the daemon closed the connection."""
        connection = self._connected()
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            try:
                chunk = connection.recv(READ_BYTES)
            except ConnectionResetError:
                chunk = b""
            if not chunk or searched > REPLY_MAX_BYTES:
                self.close()
                return b""
            self._unread += chunk
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line


def connect(path: Path) -> socket.socket:
    """Return a connected stream socket. The path may have any length.

    Raises:
        Unreachable: the message says whether it is not running, not listening or not permitted.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # settimeout makes the socket non-blocking, and connect then fails at once on a full backlog.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", round(CONNECT_TIMEOUT_S), 0))
    try:
        _connect(connection, path)
    except OSError as error:
        connection.close()
        raise Unreachable(_why(path, error)) from None
    return connection


def _connect(connection: socket.socket, path: Path) -> None:
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        connection.connect(str(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _why(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return f"No daemon runs: there is no {path}. Start one with `hive up`, or name its run folder with --run."
        case ConnectionRefusedError():
            return f"Nothing listens on {path}: its daemon ended or is just starting. Start it with `hive up`."
        case PermissionError():
            return f"No permission for {path}: run this as the user of the daemon, or join the socket's group."
        case TimeoutError() | BlockingIOError():
            return f"The daemon at {path} accepts no connections; check its log."
        case _:
            return f"Cannot connect to {path}: {error.strerror or error}."


def _checked(line: bytes) -> Reply:
    try:
        reply = msgspec.json.decode(line)
    except msgspec.DecodeError:
        reply = None
    if not isinstance(reply, dict) or reply.get("version") != PROTOCOL_VERSION:
        raise Unreachable("The server on the host socket does not use version 1 of hive's protocol.")
    if reply.get("ok") is not True:
        raise Declined(
            str(reply.get("error", "The daemon refused without a reason.")), str(reply.get("code", "refused"))
        )
    return {name: value for name, value in reply.items() if name not in ("version", "ok")}
