"""A hostile client of one agent's socket, and a client of other agents' sockets that times its sends."""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

from benchmarks.contenders.serving import Reply, serve, timed
from benchmarks.seeding import names
from hive.paths import Paths
from hive.sockets.client import connect

REPLY_MAX_BYTES = 64 * 1024 * 1024
PAUSE_S = 0.005
"""Between two timed sends: a neighbour is no flood itself."""
BIG, BEYOND = "x" * 250_000, "y" * 900_000
MIXTURE = [
    {"cmd": "send", "to": "operator", "body": BIG},
    {"cmd": "send", "to": "operator", "body": BEYOND},
    {"cmd": "send", "to": "operator", "body": "small"},
    {"cmd": "ask_operator", "question": "Left or right?", "ttl_seconds": 1},
    {"cmd": "set_status", "text": "flooding"},
    {"cmd": "live", "lines": [{"type": "text", "text": BEYOND}]},
    {"cmd": "recent", "limit": 200},
    {"cmd": "whoami"},
]


class Flooder:
    """The first agent is loud; the others are its neighbours."""

    def __init__(self, paths: Paths, agents: int):
        self._paths = paths
        self._loud, *self._quiet = [name for name in names(agents) if name != "manager"]
        self._lines = [json.dumps(request).encode() + b"\n" for request in MIXTURE]
        self._tasks: list[asyncio.Task[None]] = []
        self._began = 0.0

    async def begin(self, connections: int) -> Reply:
        """Flood until `end`."""
        self._began = time.monotonic()
        self._tasks = [asyncio.create_task(self._flood(nth)) for nth in range(connections)]
        return {}

    async def end(self) -> Reply:
        """How long it flooded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return {"seconds": time.monotonic() - self._began}

    async def sends(self, count: int) -> Reply:
        """Time sends of the neighbours, one after another."""
        return await asyncio.to_thread(self._sends, count)

    def _sends(self, count: int) -> Reply:
        line = b'{"cmd":"send","to":"operator","body":"still here"}\n'
        took, opened = list[float](), [connect(self._paths.agent_socket(name)) for name in self._quiet]
        for nth in range(count):
            one = opened[nth % len(opened)]
            began = time.perf_counter()
            one.sendall(line)
            reply = json.loads(one.recv(1 << 16))
            took.append(time.perf_counter() - began)
            if reply["ok"] is not True:
                raise SystemExit(str(reply))
            time.sleep(PAUSE_S)
        for one in opened:
            one.close()
        return timed(took, sum(took))

    async def _flood(self, nth: int) -> None:
        path = str(self._paths.agent_socket(self._loud))
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_MAX_BYTES)
                try:
                    while True:
                        writer.write(self._lines[nth % len(self._lines)])
                        await writer.drain()
                        await reader.readuntil()
                        nth += 1
                finally:
                    writer.transport.abort()


def main() -> None:
    state, agents = Path(sys.argv[1]), int(sys.argv[2])
    flooder = Flooder(Paths(state, state.parent / "run"), agents)
    asyncio.run(serve({"begin": flooder.begin, "end": flooder.end, "sends": flooder.sends}))


if __name__ == "__main__":
    main()
