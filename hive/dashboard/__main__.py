"""The dashboard process: receives its listening socket, loads everything, drops privileges, then serves."""

import argparse
import asyncio
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, cast

import structlog
import uvicorn

from hive.dashboard.app import built
from hive.dashboard.daemon import Daemon
from hive.dashboard.guard import App, Guard, ListenAddress

CONCURRENT_MAX: Final = 512
KEEP_ALIVE_S: Final = 60
SHUTDOWN_S: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
SOCKET_NAME: Final = "hive.sock"


def main(arguments: list[str] | None = None) -> int:
    """Serve until the daemon closes standard input or a signal arrives."""
    parser = argparse.ArgumentParser(prog="hive.dashboard")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--domain")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--agents-from-uid", type=int)
    given = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    listener = socket.socket(fileno=given.fd)
    os.chdir(given.folder)  # A relative socket path is short and needs no access to the parent directories.
    listen = ListenAddress(listener.getsockname()[1], given.domain, given.agents_from_uid)
    asyncio.run(_serve(listen, listener, given.uid))
    return 0


async def _serve(listen: ListenAddress, listener: socket.socket, uid: int | None) -> None:
    daemon = Daemon(SOCKET_NAME)
    inner = cast(App, built(listen, daemon))
    app = Guard(inner, daemon, listen)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=CONCURRENT_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    config.load()
    await _warmed_up(inner)
    if uid is not None:
        _become(uid)
    server = uvicorn.Server(config)
    if not sys.stdin.isatty():
        asyncio.get_running_loop().add_reader(0, _end_with_daemon, server)
    await server.serve(sockets=[listener])


def _end_with_daemon(server: uvicorn.Server) -> None:
    """The daemon holds the other end of standard input and never writes; end of file means that it has exited."""
    if os.read(0, 1) == b"":
        asyncio.get_running_loop().remove_reader(0)
        server.should_exit = True


async def _warmed_up(app: App) -> None:
    """Import and read everything that a request needs, because the later uid may not be able to read the files."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: object) -> None:
        return

    for path in ("/login", "/healthz", "/static/hive.css"):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"warm.up")],
            "client": ("", 0),
            "server": ("", 0),
            "state": {},
        }
        await app(scope, receive, send)


def _become(uid: int) -> None:
    """Drop all privileges permanently; the listening socket and the working directory stay open."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
