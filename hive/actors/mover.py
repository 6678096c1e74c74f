"""Moves agents between hives: stops and uploads those that leave, downloads and places those that arrive."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pykka
import structlog

from hive.actors import mail
from hive.actors.agent import Do, Ticket
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.swarm_link import SwarmStatus
from hive.clock import Clock, DurationMs
from hive.deciders.adoption import EndAdopted
from hive.deciders.moves import FailMove, FinishMove, SendMove
from hive.errors import HiveError, Unavailable
from hive.events.agents import Act
from hive.events.base import actor
from hive.events.moves import Adopted, ClaimSeen, MoveArrived, MoveBegun, MoveFailed
from hive.names import AgentName
from hive.paths import Paths
from hive.projections.swarm import Arrival, Move

log = structlog.get_logger()

BY: Final = actor("mover")
LISTENS: Final = (MoveBegun, MoveArrived, MoveFailed, Adopted, ClaimSeen)
RETRY_MS: DurationMs = 2_000
"""After a step that failed, as without a connection."""
SNAPSHOT_FIRST_MS: DurationMs = 5_000
SNAPSHOT_EVERY_MS: DurationMs = 600_000
"""What an agent wrote into its folders since the last snapshot is lost with its host."""
ACT_TIMEOUT_S: Final = 120.0
TRANSFER_TIMEOUT_S: Final = 600.0


class Mover(pykka.ThreadingActor):
    """One step at a time.

    A crash loses nothing: the next one reads from the swarm projection which agents leave and arrive, and repeats
    the step that has no event yet.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        clock: Clock,
        paths: Paths,
        status: SwarmStatus,
        to_supervisor: Callable[[Do], bool],
    ):
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._paths = paths
        self._status = status
        self._to_supervisor = to_supervisor
        self._cancel: Callable[[], None] = lambda: None
        self._cancel_snapshot: Callable[[], None] = lambda: None
        self._snapshots: dict[AgentName, str] = {}
        """Digests of what was uploaded last."""

    def on_start(self) -> None:
        mail.tell(self.actor_ref, "look")
        self._snapshot_later(SNAPSHOT_FIRST_MS)

    def _snapshot_later(self, after_ms: DurationMs) -> None:
        at = self._clock.now_ms() + after_ms
        self._cancel_snapshot = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, "snapshot"))

    def on_receive(self, message: object) -> None:
        """Whatever came: what to do is in the state."""
        if message == "snapshot":
            self._snapshot()
            self._snapshot_later(SNAPSHOT_EVERY_MS)
            return
        if isinstance(message, MoveFailed) and message.wanted:
            with contextlib.suppress(HiveError):
                self._act(message.agent, "start")
        moves, arrivals = self._journal.read(lambda hive: (list(hive.swarm.moves), list(hive.swarm.arrivals)))
        done = [self._give_up(move) for move in moves if move.claimed or move.adopted]
        done += [self._leave(move) for move in moves if not (move.sent or move.claimed)]
        done += [self._arrive(one) for one in arrivals]
        if not all(done):
            self._cancel()
            self._cancel = self._clock.call_at(
                self._clock.now_ms() + RETRY_MS, lambda: mail.tell(self.actor_ref, "look")
            )

    def on_stop(self) -> None:
        self._cancel()
        self._cancel_snapshot()

    def _give_up(self, move: Move) -> bool:
        """Another hive has a newer epoch of the agent: its container ends. With its word the agent is a tombstone."""
        try:
            self._act(move.agent, "stop")
            self._journal.ask(EndAdopted(by=BY, agent=move.agent))
        except HiveError as error:
            log.warning("move.waits", agent=move.agent, error=str(error))
            return False
        return True

    def _snapshot(self) -> None:
        """Upload the files of every agent that changed, for the case that this host is lost."""
        from hive.swarm import files

        names = self._journal.read(lambda hive: [row.name for row in hive.agents.living() if row.spawned])
        for name in names if self._status.link is not None else ():
            try:
                with tempfile.TemporaryDirectory(prefix=".snapshot-", dir=self._paths.state) as folder:
                    archive = Path(folder) / "files"
                    digest = files.pack(self._paths, name, archive)
                    if self._snapshots.get(name) != digest:
                        self._put_snapshot(name, archive)
                        self._snapshots[name] = digest
                        log.info("snapshot.uploaded", agent=name)
            except (HiveError, OSError) as error:
                log.info("snapshot.waits", agent=name, error=str(error))

    def _put_snapshot(self, name: AgentName, archive: Path) -> None:
        from hive.swarm import files

        self._transfer(lambda client, hive: files.put(client, hive, f"snapshot-{name}", archive))

    def _leave(self, move: Move) -> bool:
        """Whether the agent is on its way, or stays for good."""
        from hive.swarm import files

        try:
            self._act(move.agent, "stop")
            with tempfile.TemporaryDirectory(prefix=".leaving-", dir=self._paths.state) as folder:
                archive = Path(folder) / "files"
                digest = files.pack(self._paths, move.agent, archive)
                name = f"{move.agent}-{digest[:16]}"
                self._transfer(lambda client, hive: files.put(client, hive, name, archive))
            self._journal.ask(SendMove(by=BY, agent=move.agent, object=name, digest=digest))
        except HiveError as error:
            log.info("move.waits", agent=move.agent, error=str(error))
            return False
        except OSError as error:
            self._journal.ask(FailMove(by=BY, agent=move.agent, error=f"its files cannot be read: {error}"))
        return True

    def _arrive(self, one: Arrival) -> bool:
        from hive.swarm import files

        try:
            with tempfile.TemporaryDirectory(prefix=".arriving-", dir=self._paths.state) as folder:
                archive = Path(folder) / "files"
                self._transfer(lambda client, _: files.get(client, one.peer, one.object, archive))
                files.unpack(archive, one.digest, self._paths, one.agent)
                self._put_snapshot(one.agent, archive)  # Its host may be lost before the next round of snapshots.
            self._journal.ask(FinishMove(by=BY, agent=one.agent))
        except (HiveError, OSError) as error:
            log.warning("move.waits", agent=one.agent, error=str(error))
            return False
        return True

    def _transfer(self, work: Callable[[Any, str], Any]) -> None:
        """Run a transfer on the link's loop. Raises Unavailable: no connection, or it broke."""
        link = self._status.link
        if link is None:
            raise Unavailable("This hive is not connected to the swarm.")
        link.run(work, TRANSFER_TIMEOUT_S)

    def _act(self, name: AgentName, act: Act) -> None:
        ticket = Ticket()
        if self._to_supervisor(Do(agent=name, act=act, by=BY, ticket=ticket)):
            ticket.result(ACT_TIMEOUT_S)
