"""Clients of the agents' real sockets: they park recvs, send, and time the replies, with blocking calls."""

import asyncio
import json
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders.serving import Reply, serve, timed
from benchmarks.payload import bodies
from benchmarks.seeding import names
from hive.names import EVERYONE, MANAGER
from hive.paths import Paths
from hive.sockets.client import connect

RECV = b'{"cmd":"recv","wait_seconds":180}\n'
PARKING_S = 0.005
"""Time for one recv to park before its message is sent."""
ALL_PARKING_S = 1.0
"""Time for hundreds of recvs to park."""


class Recvs:
    """One connection to each agent's socket, kept open."""

    def __init__(self, paths: Paths, agents: int):
        self._connections = {name: _Connection(connect(paths.agent_socket(name))) for name in names(agents)}
        self._others = [name for name in self._connections if name != MANAGER]
        self._bodies = bodies()

    async def one(self, count: int) -> Reply:
        """Time each send until the reply of the parked recv, repeatedly."""
        took = []
        sender, parked = (self._connections[name] for name in self._others[:2])
        for nth in range(count):
            line = self._send(self._others[1], nth)
            parked.connection.sendall(RECV)
            await asyncio.sleep(PARKING_S)
            began = time.perf_counter()
            sender.connection.sendall(line)
            reply = parked.reply()
            took.append(time.perf_counter() - began)
            sent = sender.reply()
            if [row["id"] for row in reply["messages"]] != sent["ids"]:
                raise SystemExit("The recv was answered with another message than the one that was to wake it.")
            parked.acknowledge(reply)
        return timed(took, sum(took))

    async def park(self, parked: int) -> Reply:
        """So many recvs, each of another agent."""
        for name in self._others[:parked]:
            self._connections[name].connection.sendall(RECV)
        await asyncio.sleep(ALL_PARKING_S)
        return {}

    async def everyone(self, parked: int) -> Reply:
        """One message to everyone, one commit: milliseconds until the last of the parked was answered."""
        began = time.perf_counter()
        manager = self._connections[MANAGER]
        manager.connection.sendall(self._send(EVERYONE, 0))
        waiting = {self._connections[name] for name in self._others[:parked]}
        replies: dict[_Connection, dict[str, Any]] = {}
        with selectors.DefaultSelector() as selector:
            for one in waiting:
                selector.register(one.connection, selectors.EVENT_READ, one)
            while len(replies) < len(waiting):
                for key, _ in selector.select():
                    replies[key.data] = key.data.reply()
                    selector.unregister(key.fileobj)
        ended = time.perf_counter()
        manager.reply()
        for one, reply in replies.items():
            one.acknowledge(reply)
        return {"ms": 1_000 * (ended - began)}

    def _send(self, to: str, nth: int) -> bytes:
        body = self._bodies[nth % len(self._bodies)]
        return json.dumps({"cmd": "send", "to": to, "body": body}).encode() + b"\n"


class _Connection:
    def __init__(self, connection: socket.socket):
        self.connection = connection
        self._lines = connection.makefile("rb")

    def reply(self) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(self._lines.readline())
        if reply["ok"] is not True:
            raise SystemExit(str(reply))
        return reply

    def acknowledge(self, taken: dict[str, Any]) -> None:
        ids = [row["id"] for row in taken["messages"]]
        self.connection.sendall(json.dumps({"cmd": "ack", "ids": ids}).encode() + b"\n")
        self.reply()


def main() -> None:
    state, agents = Path(sys.argv[1]), int(sys.argv[2])
    recvs = Recvs(Paths(state, state.parent / "run"), agents)
    asyncio.run(serve({"one": recvs.one, "park": recvs.park, "everyone": recvs.everyone}))


if __name__ == "__main__":
    main()
