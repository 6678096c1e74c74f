"""Erases texts beside the journal: decides, changes the log's files, rebuilds the projections, and records the end."""

import asyncio
import contextlib
import getpass
import os
from collections.abc import Callable
from typing import Any, Final

import blinker
import structlog

from hive import lock
from hive.actors.journal import Journal
from hive.actors.journal_clients import AsyncJournalClient
from hive.actors.rebuilding import Rebuilding
from hive.actors.swarm_link import SwarmStatus
from hive.audit import erasing
from hive.audit.anchor_check import refuse_truncated
from hive.audit.erasing import Found
from hive.audit.reading import translating_sqlite_errors
from hive.backup import replacing
from hive.clock import Clock, SystemClock
from hive.config.proposals import Proposals
from hive.config.repositories import Repositories
from hive.deciders.erasing import Erase, FinishErasure
from hive.errors import HiveError, NotFound, Unavailable
from hive.events.base import By, Seq, actor
from hive.events.erasing import Erased, Spans, Subject, covers
from hive.events.segments import give_to_owner
from hive.names import AgentName, address
from hive.paths import Paths

log = structlog.get_logger()

BY = actor("erasing")
SWARM_TIMEOUT_S: Final = 20.0
"""For the replica to follow an erasure; it follows later otherwise."""


class Erasing:
    """Used on the event loop only. One erasure at a time.

    A daemon that ends in the middle loses nothing: the projection `erasures` has what is not finished, and the next
    daemon calls `resume`.
    """

    def __init__(
        self,
        journal: AsyncJournalClient,
        rebuilding: Rebuilding,
        paths: Paths,
        clock: Clock,
        forget_live: Callable[[], None],
        proposals: Proposals,
        tags_changed: Callable[[AgentName], None],
        swarm: SwarmStatus,
    ):
        """`tags_changed`: called with each agent whose repository has other tags now, from any thread."""
        self._journal = journal
        self._rebuilding = rebuilding
        self._paths = paths
        self._clock = clock
        self._forget_live = forget_live
        self._proposals = proposals
        self._tags_changed = tags_changed
        self._swarm = swarm
        self.exclusive = asyncio.Lock()
        """Held by whoever changes rows of the log: an erasure, or an archiving."""

    async def run(self, by: By, subject: Subject, name: str, why: str, *, backups: bool) -> dict[str, Any]:
        """Erase the texts of a subject in every file of the state; returns what was done and what was out of reach.

        Raises:
            HiveError: refused, or it failed; what was decided is continued at the next start.
        """
        async with self.exclusive:
            await self._resume()
            texts = await asyncio.to_thread(erasing.texts_in, self._paths, subject, name)
            try:
                found = await self._find(subject, name, why, backups=backups)
            except NotFound:
                if not (backups and await asyncio.to_thread(erasing.was_erased, self._paths, subject, name)):
                    raise
                # Erased before without the backups: only they are left.
                found = Found(Erased(subject=subject, name=name, why=why, rows=(), backups=True), [], [])
            decided = [await self._decide(by, found.erased)]
            with contextlib.suppress(NotFound):  # Events that quoted a text while the log was searched.
                later = await self._find(subject, name, why, backups=backups, texts=texts)
                if any(not covers(found.erased.rows, first) for first, _ in later.erased.rows):
                    decided.append(await self._decide(by, later.erased))
            rows, failed = await self._finish(decided, backups=backups)
            beyond = await asyncio.to_thread(self._out_of_reach, found, failed)
            beyond += await self._forget_in_swarm(found, max(seq for seq, _ in decided))
            quotes = [{"seq": row.seq, "type": row.type} for row in found.quotes]
            return {"seq": decided[0][0], "rows": rows, "quotes": quotes, "out_of_reach": beyond}

    async def _forget_in_swarm(self, found: Found, erasure: Seq) -> list[str]:
        """The replica and the screen of this hive forget the texts; what stays elsewhere."""
        name, peers = await self._journal.read(
            lambda hive: (hive.swarm.name, [peer.hive for peer in hive.swarm.peers if peer.sent])
        )
        if name is None:
            return []
        places = []
        try:
            await asyncio.to_thread(lambda: self._swarm.connected_link().forget(erasure, SWARM_TIMEOUT_S))
        except HiveError as error:
            places.append(f"the replica of this log in the swarm: it follows when this hive is connected ({error})")
        told = {address(agent).hive for agent in found.agents} - {None}
        receivers = sorted(str(one) for one in (told or (peers if not found.agents else ())))
        return [
            *places,
            *(f"the log of {hive}, which received it: its operator erases it there" for hive in receivers),
            "snapshots of agents' files in the swarm, until they are replaced",
            "the disks of the NATS servers, where they do not overwrite what they delete",
            "logs and agents that other hives took from the replica",
        ]

    async def resume(self) -> None:
        """Finish what an earlier daemon or command decided. An error is logged; the next start tries again."""
        async with self.exclusive:
            try:
                await self._resume()
            except HiveError as error:
                log.error("erasing.failed", error=str(error))  # noqa: TRY400

    async def _resume(self) -> None:
        pending = await self._journal.read(lambda hive: list(hive.erasures.pending))
        if pending:
            decided = [(row.seq, row.erased) for row in pending]
            rows, failed = await self._finish(decided, backups=any(row.erased.backups for row in pending))
            log.info("erasing.resumed", erasures=len(pending), rows=rows, failed=failed)

    def _out_of_reach(self, found: Found, failed: list[str]) -> list[str]:
        places = erasing.out_of_reach(self._paths, found)
        if found.erased.backups:
            return [*failed, *places]
        backups = [f"backups in {folder} (erase with --backups)" for folder in replacing.backup_folders(self._paths)]
        old = [self._paths.old_events] if self._paths.old_events.exists() else []
        return [*(f"the log of an older schema, {path} (erase with --backups)" for path in old), *backups, *places]

    async def _find(
        self, subject: Subject, name: str, why: str, *, backups: bool, texts: set[str] | None = None
    ) -> Found:
        return await asyncio.to_thread(
            erasing.find, self._paths, subject, name, why, backups=backups, texts=texts or set()
        )

    async def _decide(self, by: By, erased: Erased) -> tuple[Seq, Erased]:
        decided = await self._journal.ask(Erase(by=by, erased=erased))
        return decided.seq, erased

    async def _finish(self, decided: list[tuple[Seq, Erased]], *, backups: bool) -> tuple[int, list[str]]:
        """Idempotent. The rebuild replaces `projections.db` and the state in memory by what the erased log gives."""
        counts = {
            seq: await asyncio.to_thread(erasing.erase_rows, self._paths, seq, erased.rows) for seq, erased in decided
        }
        self._forget_live()
        await asyncio.to_thread(erasing.remove_leftovers, self._paths, old_log=backups)
        await self._rebuilding.run_after_current()
        for _, erased in decided:
            await asyncio.to_thread(self._erase_tags, erased.decisions)
        failed = list[str]()
        if backups:
            failed = await asyncio.to_thread(replacing.replace_backups, self._paths, self._clock)
        for seq, count in counts.items():
            await self._journal.ask(FinishErasure(by=BY, of=seq, rows=count))
        return sum(counts.values()), failed

    def _erase_tags(self, decisions: Spans) -> None:
        """Denials and failures have their texts in tags, too. The state has none any more, so none comes back."""
        if decisions and self._paths.all_applied.is_dir():
            for folder in sorted(self._paths.all_applied.iterdir()):
                name = AgentName(folder.name)
                if (folder / ".git").is_dir() and self._proposals.erase_notes(name, decisions):
                    self._tags_changed(name)


async def erase_offline(paths: Paths, subject: Subject, name: str, why: str, *, backups: bool) -> dict[str, Any]:
    """The same without a daemon: this process takes its place until the erasure is finished.

    Raises:
        HiveError: a daemon runs, the log cannot be used, or the erasure was refused or failed.
    """
    if not paths.events.exists():
        raise Unavailable(
            f"There is no {paths.events.name} in {paths.state}; give the hive's state folder with --state."
        )
    with lock.held(paths.lock):
        give_to_owner(paths.lock, paths.events)
        refuse_truncated(paths)
        clock, proposals = SystemClock(), Proposals(paths, Repositories(paths))
        with translating_sqlite_errors(paths.events):
            journal = Journal.start(paths.state, clock, blinker.Signal())
        try:
            client = AsyncJournalClient(journal, asyncio.get_running_loop())
            erasing = Erasing(
                client,
                Rebuilding(client, paths.state),
                paths,
                clock,
                lambda: None,
                proposals,
                lambda _: None,
                SwarmStatus(),
            )
            await erasing.resume()
            by = By("operator", getpass.getuser(), uid=os.geteuid(), way="files")
            return await erasing.run(by, subject, name, why, backups=backups)
        finally:
            await asyncio.to_thread(journal.stop)
