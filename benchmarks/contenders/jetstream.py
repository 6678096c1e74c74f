"""NATS JetStream with `sync_interval: always`: an acknowledgement is durable. Runs with the peers' interpreter."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import nats
import nats.aio.client
import nats.errors

from benchmarks.contenders.serving import Reply, produce, serve
from benchmarks.payload import as_json, bodies
from benchmarks.ports import free_port

START_S = 10.0
STEP_S = 0.1


async def _quiet(_error: Exception) -> None:
    """The server is not listening yet."""


async def _connected(port: int) -> "nats.aio.client.Client":
    deadline = asyncio.get_running_loop().time() + START_S
    while True:
        try:
            return await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, error_cb=_quiet)
        except (OSError, nats.errors.Error):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(STEP_S)


async def _run(folder: Path, program: str) -> None:
    port = free_port()
    settings = folder / "nats.conf"
    settings.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / "jetstream"}", sync_interval: always }}\n'
    )
    server = subprocess.Popen([program, "-c", str(settings)], stderr=(folder / "nats.log").open("w"))  # noqa: ASYNC220  # Nothing else runs yet.
    try:
        client = await _connected(port)
        stream = client.jetstream()
        await stream.add_stream(name="hive", subjects=["events.*"])
        texts = bodies()

        async def append(producers: int, events: int) -> Reply:
            async def publish(producer: int, nth: int) -> object:
                return await stream.publish(f"events.{producer}", as_json(nth, texts[nth % len(texts)]).encode())

            return await produce(publish, producers, events)

        await serve({"append": append})
        with contextlib.suppress(nats.errors.Error):
            await client.close()
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    asyncio.run(_run(Path(sys.argv[2]), sys.argv[1]))


if __name__ == "__main__":
    main()
