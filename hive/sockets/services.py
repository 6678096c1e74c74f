"""The parts of the daemon that the sockets use. Built in `daemon.py`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pykka

from hive.actors import mail
from hive.actors.agent import Do, Settle, Ticket
from hive.actors.config_pipeline import Watch
from hive.actors.erasing import Erasing
from hive.actors.journal_clients import AsyncJournalClient, BlockingJournalClient
from hive.actors.provision import Provisioner
from hive.actors.rebuilding import Rebuilding
from hive.actors.recent_tries import RecentTries
from hive.actors.swarm_link import SwarmStatus
from hive.clock import MS_PER_S, Clock, duration_text
from hive.config.proposals import Proposals
from hive.errors import Unavailable
from hive.events.agents import Act
from hive.events.base import By
from hive.names import AgentName
from hive.paths import Paths
from hive.settings import Settings
from hive.sockets.hub import Hub
from hive.sockets.room import Room
from hive.sockets.sessions import Sessions
from hive.sockets.shares import Shares
from hive.sockets.sign_in_log import SignInLog

ACT_TIMEOUT_S = 600.0
"""Timeout for a lifecycle act, including acts queued before it. The act continues; only the caller stops waiting."""


class Services(msgspec.Struct, kw_only=True):
    """Shared by all connections. Used on the event loop only."""

    paths: Paths
    clock: Clock
    journal: AsyncJournalClient
    rebuilding: Rebuilding
    erasing: Erasing
    hub: Hub
    shares: Shares
    room: Room
    waits_for_room: Callable[[], bool]
    """The daemon started on a full disk and starts no agent yet."""
    sessions: Sessions
    sign_ins: SignInLog
    supervisor: "pykka.ActorRef[Any]"
    provisioner: Provisioner
    proposals: Proposals
    watch: Callable[[Watch], bool]
    """Resolves a ticket when an approval is finished. Returns False while the daemon shuts down."""
    mirror_status: Callable[[], dict[str, Any]]
    swarm: SwarmStatus
    blocking_journal: BlockingJournalClient
    """For work on threads."""
    settings: Callable[[], Settings]
    tries: RecentTries
    """The newest connections that agents tried. Empty where no broker runs."""
    dashboard_group: int | None
    """Group that may connect to the dashboard's socket, besides the daemon's user."""
    dashboard_url: Callable[[], str | None]
    """The dashboard's external URL; None without a dashboard."""
    shut_down: Callable[[bool], Awaitable[None]]
    """Stops the agents unless told to keep them, then ends the daemon."""

    async def act(self, agent: AgentName, act: Act, by: By, *, purge: bool = False, graceful: bool = True) -> None:
        """Run a lifecycle act and wait until it is done.

        Raises:
            HiveError: it was refused or it failed.
        """
        ticket = Ticket()
        await self._done(Do(agent=agent, act=act, by=by, ticket=ticket, purge=purge, graceful=graceful), act)

    async def settled(self, agent: AgentName) -> None:
        """Wait until a new agent is spawned.

        Raises:
            HiveError: the spawn failed.
        """
        await self._done(Settle(agent=agent, ticket=Ticket()), "spawn")

    async def _done(self, message: Do | Settle, what: str) -> None:
        if not mail.tell(self.supervisor, message):
            raise Unavailable("The daemon is shutting down.")
        try:
            async with asyncio.timeout(ACT_TIMEOUT_S):
                await asyncio.shield(asyncio.wrap_future(message.ticket))
        except TimeoutError:
            took = duration_text(ACT_TIMEOUT_S * MS_PER_S)
            text = f"{what} of {message.agent} takes over {took} and continues; check its state."
            raise Unavailable(text) from None
