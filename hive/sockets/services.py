"""What the sockets need of the rest of the daemon, in one place; built by the wiring."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pykka

from hive.actors import mail
from hive.actors.agent import Do, Settle, Ticket
from hive.actors.config_pipeline import Watch
from hive.actors.journal_clients import AsyncJournalClient
from hive.actors.provision import Provisioner
from hive.actors.rebuilding import Rebuilding
from hive.clock import Clock
from hive.config.proposals import Proposals
from hive.errors import Unavailable
from hive.events.agents import Act
from hive.events.base import By
from hive.names import AgentName
from hive.paths import Paths
from hive.settings import Settings
from hive.sockets.hub import Hub
from hive.sockets.sessions import Sessions

ACT_TIMEOUT_S = 600.0
"""A lifecycle act and those queued before it; after so long the caller is told, the act goes on."""


class Services(msgspec.Struct, kw_only=True):
    """Shared by all connections; used on the event loop only."""

    paths: Paths
    clock: Clock
    journal: AsyncJournalClient
    rebuilding: Rebuilding
    hub: Hub
    sessions: Sessions
    supervisor: "pykka.ActorRef[Any]"
    provisioner: Provisioner
    proposals: Proposals
    watch: Callable[[Watch], bool]
    """Settles a ticket when an approval is over; False when the daemon is on its way down."""
    mirror_status: Callable[[], dict[str, Any]]
    settings: Callable[[], Settings]
    dashboard_group: int | None
    """Who besides the daemon's user may connect to the dashboard's socket."""
    dashboard_url: Callable[[], str | None]
    """Where the dashboard is, as others see it; None while there is none."""
    shut_down: Callable[[bool], Awaitable[None]]
    """Stops the agents unless told to keep them, then lets the daemon end."""

    async def act(self, agent: AgentName, act: Act, by: By, *, purge: bool = False, graceful: bool = True) -> None:
        """Have a lifecycle act done; returns when it is.

        Raises:
            HiveError: refused or failed.
        """
        ticket = Ticket()
        await self._done(Do(agent=agent, act=act, by=by, ticket=ticket, purge=purge, graceful=graceful), act)

    async def settled(self, agent: AgentName) -> None:
        """Wait for an agent that was just put on the roster.

        Raises:
            HiveError: it could not be spawned.
        """
        await self._done(Settle(agent=agent, ticket=Ticket()), "spawn")

    async def _done(self, message: Do | Settle, what: str) -> None:
        if not mail.tell(self.supervisor, message):
            raise Unavailable("The daemon is on its way down.")
        try:
            async with asyncio.timeout(ACT_TIMEOUT_S):
                await asyncio.shield(asyncio.wrap_future(message.ticket))
        except TimeoutError:
            text = f"{what} of {message.agent} takes over {ACT_TIMEOUT_S:.0f} s; it goes on, look at its state."
            raise Unavailable(text) from None
