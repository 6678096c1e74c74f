"""Keeps a snapshot of each agent's files in the swarm, for the case that this host is lost."""

from collections.abc import Callable
from typing import Final

import pykka
import structlog

from hive.actors import mail
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.swarm_link import SwarmStatus
from hive.clock import Clock, DurationMs, TimeMs
from hive.errors import HiveError
from hive.events.agents import Spawned
from hive.names import MANAGER, AgentName
from hive.paths import Paths

log = structlog.get_logger()

LISTENS: Final = (Spawned,)
FIRST_MS: DurationMs = 5_000
"""After a start, and after an agent came."""
EVERY_MS: DurationMs = 600_000
"""What an agent wrote into its folders since the last snapshot is lost with its host."""


class Snapshots(pykka.ThreadingActor):
    """Only pieces that changed travel; what no snapshot and no move needs is removed.

    A crash loses nothing: the next one asks the store what it has.
    """

    use_daemon_thread = True

    def __init__(self, journal: BlockingJournalClient, clock: Clock, paths: Paths, status: SwarmStatus):
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._paths = paths
        self._status = status
        self._cancel: Callable[[], None] = lambda: None
        self._due_ms: TimeMs = 0
        self._known: dict[AgentName, str] = {}
        """What an agent's folders were like at its last snapshot: an unchanged one is not read again."""

    def on_start(self) -> None:
        self._later(FIRST_MS)

    def on_receive(self, message: object) -> None:
        if isinstance(message, Spawned):
            self._later(FIRST_MS)
            return
        names, leaving = self._journal.read(
            lambda hive: (
                [row.name for row in hive.agents.living() if row.spawned and row.name != MANAGER],
                [move.agent for move in hive.swarm.moves],
            )
        )
        if self._status.link is not None:
            for name in names:
                self._take(name)
            self._collect(names, leaving)
        self._later(EVERY_MS)

    def on_stop(self) -> None:
        self._cancel()

    def _later(self, after_ms: DurationMs) -> None:
        at = self._clock.now_ms() + after_ms
        if self._clock.now_ms() < self._due_ms <= at:
            return
        self._cancel()
        self._due_ms = at
        self._cancel = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, "look"))

    def _take(self, name: AgentName) -> None:
        from hive.swarm import files, pieces

        try:
            seen = pieces.fingerprint(self._paths, name)
            if self._known.get(name) == seen:
                return
            with self._status.storing:
                _, sent = self._status.connected_link().put_files(
                    name, pieces.cut(self._paths, name), lambda _: files.snapshot(name)
                )
            self._known[name] = seen
            log.info("snapshot.uploaded", agent=name, new_pieces=sent)
        except (HiveError, OSError) as error:
            log.info("snapshot.waits", agent=name, error=str(error))

    def _collect(self, names: list[AgentName], leaving: list[AgentName]) -> None:
        """A snapshot of an agent that is gone goes with it; an agent that leaves keeps its files until it is there."""
        from hive.swarm import files

        kept = {files.snapshot(name) for name in names}
        starts = tuple(files.moving(name, "") for name in leaving)
        try:
            with self._status.storing:
                gone = self._status.connected_link().collect_files(lambda name: name in kept or name.startswith(starts))
            if gone:
                log.info("snapshot.collected", pieces=gone)
        except (HiveError, OSError) as error:
            log.info("snapshot.waits", error=str(error))
