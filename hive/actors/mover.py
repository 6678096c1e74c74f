"""Moves agents between hives: stops and uploads those that leave, downloads and places those that arrive."""

import contextlib
from collections.abc import Callable
from typing import Final

import pykka
import structlog

from hive.actors import mail
from hive.actors.agent import Do, Ticket
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.swarm_link import SwarmStatus
from hive.backup.chunks import Chunks
from hive.clock import Clock, DurationMs, TimeMs
from hive.deciders.adoption import EndAdopted
from hive.deciders.moves import FailMove, FinishMove, SendMove
from hive.errors import HiveError
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
STORE_AGAIN_MS: DurationMs = 30_000
"""After an agent was sent and the target has not said that it is there."""
ACT_TIMEOUT_S: Final = 120.0


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
        self._stored_ms: dict[AgentName, TimeMs] = {}
        """When the files of an agent that was sent were last looked after."""

    def on_start(self) -> None:
        mail.tell(self.actor_ref, "look")

    def on_receive(self, message: object) -> None:
        """Whatever came: what to do is in the state."""
        if isinstance(message, MoveFailed) and message.wanted:
            with contextlib.suppress(HiveError):
                self._act(message.agent, "start")
        moves, arrivals = self._journal.read(lambda hive: (list(hive.swarm.moves), list(hive.swarm.arrivals)))
        done = [self._give_up(move) for move in moves if move.claimed or move.adopted]
        done += [self._leave(move) for move in moves if not (move.sent or move.claimed)]
        done += [self._stays_stored(move) for move in moves if move.sent and not move.adopted]
        done += [self._arrive(one) for one in arrivals]
        if not all(done):
            self._cancel()
            self._cancel = self._clock.call_at(
                self._clock.now_ms() + RETRY_MS, lambda: mail.tell(self.actor_ref, "look")
            )

    def on_stop(self) -> None:
        self._cancel()

    def _give_up(self, move: Move) -> bool:
        """Another hive has a newer epoch of the agent: its container ends. With its word the agent is a tombstone."""
        try:
            self._act(move.agent, "stop")
            self._journal.ask(EndAdopted(by=BY, agent=move.agent))
        except HiveError as error:
            log.warning("move.waits", agent=move.agent, error=str(error))
            return False
        return True

    def _leave(self, move: Move) -> bool:
        """Whether the agent is on its way, or stays for good."""
        from hive.swarm import files

        try:
            self._act(move.agent, "stop")
            digest = self._upload(move.agent)
            self._journal.ask(SendMove(by=BY, agent=move.agent, object=files.moving(move.agent, digest), digest=digest))
        except HiveError as error:
            log.info("move.waits", agent=move.agent, error=str(error))
            return False
        except OSError as error:
            self._journal.ask(FailMove(by=BY, agent=move.agent, error=f"its files cannot be read: {error}"))
        return True

    def _upload(self, name: AgentName) -> str:
        """Digest of the manifest. Raises Unavailable: no connection, or it broke. OSError: a file cannot be read."""
        from hive.swarm import files, pieces

        with self._status.storing:
            cut = pieces.cut(self._paths, name)
            link = self._status.connected_link()
            digest, sent = link.put_files(name, cut, lambda digest: files.moving(name, digest))
        log.info("move.uploaded", agent=name, new_pieces=sent)
        return digest

    def _stays_stored(self, move: Move) -> bool:
        """Until the target has the agent, what the swarm loses of its files is stored again."""
        due = self._stored_ms.setdefault(move.agent, self._clock.now_ms()) + STORE_AGAIN_MS
        if self._clock.now_ms() >= due:
            with contextlib.suppress(HiveError, OSError):
                self._upload(move.agent)
            self._stored_ms[move.agent] = self._clock.now_ms()
        return False

    def _arrive(self, one: Arrival) -> bool:
        """Whether the agent is on the roster. What was fetched before a failure is not fetched again."""
        from hive.swarm import pieces

        folder = self._paths.state / f".fetched-{one.agent}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            chunks = Chunks(folder)
            manifest = self._status.connected_link().get_files(one.peer, one.object, one.digest, chunks)
            pieces.unpack(chunks, manifest, self._paths, one.agent)
            self._journal.ask(FinishMove(by=BY, agent=one.agent))
            pieces.remove(folder)
        except (HiveError, OSError) as error:
            log.warning("move.waits", agent=one.agent, error=str(error))
            return False
        return True

    def _act(self, name: AgentName, act: Act) -> None:
        ticket = Ticket()
        if self._to_supervisor(Do(agent=name, act=act, by=BY, ticket=ticket)):
            ticket.result(ACT_TIMEOUT_S)
