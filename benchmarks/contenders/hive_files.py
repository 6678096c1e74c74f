"""hive's own reading of a stopped hive's files: replay, rebuild and verification, as the command line does them."""

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
    """Every event decoded and folded into every projection, in memory."""
    began = time.perf_counter()
    with log_reader(_paths(state)) as reader:
        head = reader.head().seq
        state_at(reader, head, _quiet)
    return {"rate": head / (time.perf_counter() - began)}


async def rebuild_all(state: str) -> Reply:
    """The same, and every live row written into a new file that takes the place of the old one."""
    began = time.perf_counter()
    seq = rebuild(_paths(state), _quiet)
    return {"rate": seq / (time.perf_counter() - began)}


async def verify(state: str) -> Reply:
    """Every hash of the chain computed anew, the file checked, its end compared with what was seen of it."""
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
