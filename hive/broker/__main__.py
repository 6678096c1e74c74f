"""The broker's process: loads everything, gives up its rights, serves until the daemon closes its channel."""

import argparse
import asyncio
import ctypes
import gc
import os
import resource
import signal
import socket
import ssl
import sys
from typing import Final

import structlog

from hive.broker.addresses import Resolve, SystemResolver
from hive.broker.agent import Agent
from hive.broker.client import serve
from hive.broker.files import Files
from hive.broker.origin import Origins, client_tls
from hive.broker.server import Broker
from hive.broker.wire import Policy, Provider

PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end."""
    parser = argparse.ArgumentParser(prog="hive.broker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--uid", type=int)
    given = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's; the broker ends after it.
    channel = socket.socket(fileno=given.fd)
    tls = client_tls()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    asyncio.run(_serve(channel, tls, given.uid))
    return 0


async def _serve(channel: socket.socket, tls: ssl.SSLContext, uid: int | None) -> None:
    resolve = SystemResolver()
    asyncio.get_running_loop().set_default_executor(resolve.threads)
    await _warm_up(resolve, tls)
    if uid is not None:
        _become(uid)
    # Whoever runs as the same user, an agent too where hive is not root, must not read keys from this memory.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    gc.freeze()
    await Broker(channel, resolve, tls).run()


async def _warm_up(resolve: Resolve, tls: ssl.SSLContext) -> None:
    """Import everything that a request needs: Python's files may be out of reach for the uid to come."""
    agent = Agent("warm-up", lambda _: None, resolve, Files(lambda _: None))
    provider = Provider(name="anthropic", url="http://127.0.0.1:1", shape="anthropic", key="none")
    agent.set_policy(Policy(agent=agent.name, mode="open", providers=(provider,)))
    for request in (
        b"GET http://localhost/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"POST /model/anthropic/v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n",
        b"\x05\x01\x00\x05\x01\x00\x03\x09localhost\x00\x50",
        b"no HTTP\r\n\r\n",
    ):
        near, far = socket.socketpair()
        with near:
            near.sendall(request)
            near.shutdown(socket.SHUT_WR)
            await serve(await asyncio.open_unix_connection(sock=far), agent, Origins(tls, agent.pace))


def _become(uid: int) -> None:
    """Give up every right for good; the channel stays."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
