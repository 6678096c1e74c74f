"""A Redis stream with `appendfsync always`: XADD returns once it is on disk. Runs with the peers' interpreter."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import redis.asyncio
from redis.exceptions import RedisError

from benchmarks.contenders.serving import Reply, produce, serve
from benchmarks.payload import as_json, bodies
from benchmarks.ports import free_port

START_S = 10.0
STEP_S = 0.1


async def _connected(port: int) -> "redis.asyncio.Redis":
    client = redis.asyncio.Redis(host="127.0.0.1", port=port, max_connections=512)
    deadline = asyncio.get_running_loop().time() + START_S
    while True:
        try:
            await client.ping()
        except (OSError, RedisError):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(STEP_S)
        else:
            return client


async def _run(folder: Path, program: str, libraries: str) -> None:
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "always"]
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    server = subprocess.Popen([program, *options], stdout=(folder / "redis.log").open("w"), env=environment)  # noqa: ASYNC220  # Nothing else runs yet.
    try:
        client = await _connected(port)
        texts = bodies()

        async def append(producers: int, events: int) -> Reply:
            async def add(_producer: int, nth: int) -> object:
                return await client.xadd("events", {"data": as_json(nth, texts[nth % len(texts)])})

            return await produce(add, producers, events)

        await serve({"append": append})
        await client.aclose()
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    asyncio.run(_run(Path(sys.argv[3]), sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    main()
