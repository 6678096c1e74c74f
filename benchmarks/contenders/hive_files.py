"""Reads a stopped hive's files as the command line does: replay, rebuild and verification."""

import asyncio
import time
from pathlib import Path

from benchmarks.contenders.serving import Reply, serve
from hive.audit.chain import verify_log
from hive.audit.reading import log_reader
from hive.audit.rebuild import rebuild
from hive.audit.replay import state_at
from hive.paths import Paths


def _quiet(_done: int) -> None:
    """No progress bar."""


async def replay(state: str) -> Reply:
    """Decode every event and fold it into every projection, in memory."""
    began = time.perf_counter()
    with log_reader(_paths(state)) as reader:
        head = reader.head().seq
        state_at(reader, head, _quiet)
    return {"rate": head / (time.perf_counter() - began)}


async def rebuild_all(state: str) -> Reply:
    """Replay, write every live row into a new file, and replace the old file."""
    began = time.perf_counter()
    seq = rebuild(_paths(state), _quiet)
    return {"rate": seq / (time.perf_counter() - began)}


async def verify(state: str) -> Reply:
    """Compute every hash of the chain, check the file, and compare its head with the anchors."""
    began = time.perf_counter()
    outcome = verify_log(_paths(state), _quiet)
    assert outcome.ok
    return {"rate": outcome.events / (time.perf_counter() - began)}


def _paths(state: str) -> Paths:
    return Paths(Path(state), Path(state).parent / "run")


def main() -> None:
    asyncio.run(serve({"replay": replay, "rebuild": rebuild_all, "verify": verify}))


if __name__ == "__main__":
    main()
