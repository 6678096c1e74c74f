"""Starts and stops the link to other hives as `hive.toml` says. Without `[swarm]` it imports nothing of NATS."""

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import blinker
import pykka
import structlog

from hive.actors import mail
from hive.actors.epoch_gate import EpochGate
from hive.actors.journal_clients import AsyncJournalClient, BlockingJournalClient
from hive.clock import Clock, DurationMs, TimeMs
from hive.deciders.swarm import SetPeers
from hive.errors import HiveError, Unavailable
from hive.events.base import actor
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.projections.table import Recorded
from hive.settings import Settings, SwarmSettings

if TYPE_CHECKING:
    from hive.swarm.link import Link, LinkStatus, Shown

log = structlog.get_logger()

BY: Final = actor("swarm")
LOOK_EVERY_MS: DurationMs = 1_000
"""For a change of `hive.toml`."""


class SwarmStatus:
    """What the sockets ask: the link's state, if there is one."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.problem: str | None = None
        self.gate = EpochGate()
        self.storing = threading.Lock()
        """Held while agents' files are stored in the swarm, or removed from there."""

    def hold_agents(self, hive: Hive, swarm: SwarmSettings, now: TimeMs) -> None:
        """At the start: agents wait for news of the swarm if a peer may have adopted them while this hive was away."""
        if hive.swarm.name is not None and any(peer.operators for peer in swarm.peers.values()):
            self.gate.close(now)

    def connected_link(self) -> "Link":
        """Raises Unavailable: this hive is not connected."""
        if self.link is None or not self.link.status().connected:
            raise Unavailable("This hive is not connected to the swarm.")
        return self.link

    def now(self) -> "LinkStatus | None":
        link = self.link
        return None if link is None else link.status()


class SwarmLink(pykka.ThreadingActor):
    """One link, or none.

    A crash loses nothing: the next one starts a link anew, which reads from the projections what is owed.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: "pykka.ActorRef[Any]",
        client: BlockingJournalClient,
        clock: Clock,
        paths: Paths,
        settings: Callable[[], Settings],
        committed: blinker.Signal,
        shown: Callable[[], "Shown"],
        status: SwarmStatus,
    ):
        super().__init__()
        self._journal = journal
        self._client = client
        self._clock = clock
        self._paths = paths
        self._settings = settings
        self._committed = committed
        self._shown = shown
        self._status = status
        self._running = SwarmSettings()
        self._cancel: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        self._committed.connect(self.on_committed)
        mail.tell(self.actor_ref, "look")

    def on_receive(self, _message: object) -> None:
        wanted = self._settings().swarm
        if wanted != self._running:
            self._change(wanted)
        self._cancel = self._clock.call_at(
            self._clock.now_ms() + LOOK_EVERY_MS, lambda: mail.tell(self.actor_ref, "look")
        )

    def on_stop(self) -> None:
        self._cancel()
        self._committed.disconnect(self.on_committed)
        self._stop()

    def on_committed(self, _journal: object, batch: list[Recorded]) -> None:
        """Receiver of the journal's signal, on a thread of the journal."""
        del batch
        if (link := self._status.link) is not None:
            link.wake()

    def _change(self, wanted: SwarmSettings) -> None:
        self._stop()
        self._running = wanted
        if not any(peer.operators for peer in wanted.peers.values()):
            self._status.gate.open()  # Nobody may adopt agents of this hive.
        if wanted.name is None:
            return
        try:
            from hive.swarm.link import Link

            peers = {name: peer.operators for name, peer in wanted.peers.items()}
            self._client.ask(SetPeers(by=BY, hive=wanted.name, peers=peers))
            gate = self._status.gate
            link = Link(self._paths, wanted, self._new_client, self._shown(), gate.open, gate.explain)
        except HiveError as error:
            self._refuse(str(error))
        except ImportError as error:
            self._refuse(f"{error.name} is not installed. Run: pip install 'hive[swarm]'")
        else:
            link.start()
            self._status.link, self._status.problem = link, None

    def _new_client(self, loop: asyncio.AbstractEventLoop) -> AsyncJournalClient:
        return AsyncJournalClient(self._journal, loop)

    def _refuse(self, why: str) -> None:
        self._status.problem = why
        self._status.gate.explain(why)
        log.warning("swarm.refused", error=why)

    def _stop(self) -> None:
        link, self._status.link = self._status.link, None
        if link is not None:
            link.stop()
