"""Rebuilds projections while the daemon runs: a child process folds the log, then the journal adopts its file."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from hive.actors.journal_clients import AsyncJournalClient
from hive.audit import rebuild
from hive.errors import HiveError, Unavailable
from hive.events.base import Seq

log = structlog.get_logger()

REBUILD_MAX_S: Final = 1_800.0
"""Time limit. A longer rebuild must run without a daemon."""

Tell = Callable[[Seq], None]
"""Callback for progress: receives the position, on the event loop."""


class Rebuilding:
    """Event loop only. Concurrent callers share one rebuild. It continues when they disconnect."""

    def __init__(self, journal: AsyncJournalClient, state: Path):
        self._journal = journal
        self._state = state
        self._task: asyncio.Task[Seq] | None = None
        self._watching: list[Tell] = []

    async def run(self, tell: Tell = lambda _: None) -> Seq:
        """Fold every projection from the first event again; returns the position reached.

        Raises:
            Unavailable: the log or the disk failed. The projections are unchanged.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._rebuilt())
        self._watching.append(tell)
        try:
            return await asyncio.shield(self._task)
        finally:
            self._watching.remove(tell)

    async def run_after_current(self) -> Seq:
        """Rebuild from the log as it is now: a rebuild that is running may have read older rows.

        Raises:
            Unavailable: as `run`.
        """
        while self._task is not None and not self._task.done():
            with contextlib.suppress(HiveError):
                await asyncio.shield(self._task)
        return await self.run()

    async def _rebuilt(self) -> Seq:
        child = self._start()
        try:
            async with asyncio.timeout(REBUILD_MAX_S):
                refusal = await asyncio.to_thread(self._listen, child, asyncio.get_running_loop())
        except TimeoutError:
            minutes = REBUILD_MAX_S / 60
            raise Unavailable(
                f"The rebuild took over {minutes:.0f} minutes. Stop the daemon and run `hive projections rebuild`."
            ) from None
        finally:
            child.kill()
        if refusal is not None:
            log.warning("rebuilding.failed", error=refusal)
            raise Unavailable(refusal)
        return await self._journal.adopt()

    def _start(self) -> "subprocess.Popen[bytes]":
        # Not asyncio's: if it is cancelled while it starts, as when the daemon ends, it blocks for ever.
        command = (sys.executable, "-P", "-m", rebuild.__name__, str(self._state))
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def _listen(self, child: "subprocess.Popen[bytes]", loop: asyncio.AbstractEventLoop) -> str | None:
        """Read the child's output until it ends, on its own thread; returns the error."""
        said = ""
        with child:  # The child ends when its stdin closes, also when this process is killed.
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip().isdigit():
                    loop.call_soon_threadsafe(self._reached, int(line))
                else:
                    said = line.decode(errors="replace").strip() or said
        if child.returncode == 0:
            return None
        return said or f"The rebuild process ended with exit code {child.returncode}."

    def _reached(self, position: Seq) -> None:
        for tell in self._watching:
            tell(position)
