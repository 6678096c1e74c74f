"""Opens and closes the sockets: host, dashboard, and one per agent. Runs on the event loop only."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from hive.errors import Unavailable
from hive.events.agents import AgentAdded, Destroyed, Revived, ShareSet
from hive.events.operators import OperatorRevoked
from hive.names import MANAGER, AgentName
from hive.projections.table import Recorded
from hive.runtimes import unix_socket
from hive.sockets.agent_session import AgentSession
from hive.sockets.agent_verbs import AGENT_VERBS
from hive.sockets.audit_verbs import AUDIT_VERBS
from hive.sockets.config_verbs import CONFIG_VERBS
from hive.sockets.container_verbs import CONTAINER_VERBS
from hive.sockets.decision_verbs import DECISION_VERBS
from hive.sockets.egress_verbs import EGRESS_VERBS
from hive.sockets.host_session import HostSession
from hive.sockets.intake import Intake
from hive.sockets.keeping_verbs import KEEPING_VERBS
from hive.sockets.lines import LineConnection
from hive.sockets.manager_verbs import MANAGER_VERBS
from hive.sockets.peers import Process
from hive.sockets.requests import RequestDecoder
from hive.sockets.services import Services
from hive.sockets.session_verbs import HOST_ONLY_VERBS, SESSION_VERBS, WITHHELD, DashboardSession
from hive.sockets.swarm_verbs import SWARM_VERBS

log = structlog.get_logger()

CONNECTIONS_MAX = 4_096
"""Per socket. Further connections are closed."""
BACKLOG = 4_096
"""Every client may connect at the same time."""

HOST_VERBS = {
    **CONTAINER_VERBS,
    **DECISION_VERBS,
    **CONFIG_VERBS,
    **AUDIT_VERBS,
    **KEEPING_VERBS,
    **SWARM_VERBS,
    **EGRESS_VERBS,
    **HOST_ONLY_VERBS,
}
DASHBOARD_VERBS = {**{cmd: verb for cmd, verb in HOST_VERBS.items() if cmd not in WITHHELD}, **SESSION_VERBS}
_HOST_DECODER = RequestDecoder({cmd: verb.request for cmd, verb in HOST_VERBS.items()})
_DASHBOARD_DECODER = RequestDecoder({cmd: verb.request for cmd, verb in DASHBOARD_VERBS.items()})
_AGENT_DECODER = RequestDecoder({cmd: verb.request for cmd, verb in AGENT_VERBS.items()})
_MANAGER_DECODER = RequestDecoder({cmd: verb.request for cmd, verb in MANAGER_VERBS.items()})


class _Listening:
    """A bound socket and its connections."""

    def __init__(self, path: Path, server: asyncio.Server, opened: set[LineConnection]):
        self._path = path
        self._server = server
        self._opened = opened

    def close(self) -> None:
        self._server.close()
        for connection in list(self._opened):
            connection.close()
        self._path.unlink(missing_ok=True)


class Sockets:
    """All sockets of the daemon."""

    def __init__(self, services: Services):
        self._services = services
        self._host: _Listening | None = None
        self._dashboard: _Listening | None = None
        self._agents: dict[AgentName, _Listening] = {}
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open the host socket, the dashboard's socket and one socket for each agent.

        Raises:
            Unavailable: a socket cannot be created.
        """
        rows = await self._services.journal.read(lambda hive: hive.agents.living())
        await asyncio.to_thread(self._remove_left_over, {row.name for row in rows})
        for row in rows:
            self._services.hub.presence.started(row.name, row.incarnation)
            self._services.shares.of(row.name).ask_for(row.share)
            await self._open_agent(row.name, row.slot)
        known = await self._services.journal.read(
            lambda hive: frozenset(row.token_hash for row in hive.operators.all if row.revoked_ms is None)
        )
        self._services.sessions.forget_unknown(known)
        paths, group = self._services.paths, self._services.dashboard_group
        self._dashboard = await _listen(paths.dashboard_socket, self._serve_dashboard, group)
        self._host = await _listen(paths.host_socket, self._serve_host, group=None)

    def on_committed(self, batch: list[Recorded]) -> None:
        """Open and close agent sockets. Called on the event loop after each commit."""
        for recorded in batch:
            match recorded.event:
                case AgentAdded(agent=name, slot=slot):
                    self._open_soon(name, slot)
                case Revived(agent=name):
                    self._open_soon(name, None)
                case Destroyed(agent=name):
                    self._services.shares.forget(name)
                    self._services.shares.agents = len(self._agents) - 1
                    if (listening := self._agents.pop(name, None)) is not None:
                        listening.close()
                case ShareSet(agent=name, share=share):
                    self._services.shares.of(name).ask_for(share)
                case OperatorRevoked(name=name):
                    self._services.sessions.close_all(name)
                case _:
                    pass  # Does not affect sockets.

    def close(self) -> None:
        for listening in [self._host, self._dashboard, *self._agents.values()]:
            if listening is not None:
                listening.close()

    def _open_soon(self, name: AgentName, slot: int | None) -> None:
        async def opened() -> None:
            if slot is None:
                await self._open_agent(name, await self._services.journal.read(lambda hive: hive.agents.all[name].slot))
            else:
                await self._open_agent(name, slot)

        task = asyncio.get_running_loop().create_task(opened())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_agent(self, name: AgentName, slot: int) -> None:
        verbs, decoder = (MANAGER_VERBS, _MANAGER_DECODER) if name == MANAGER else (AGENT_VERBS, _AGENT_DECODER)

        async def serve(connection: LineConnection) -> None:
            await AgentSession(name, connection, self._services, verbs, decoder).serve()

        path = self._services.paths.agent_socket(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=unix_socket.FOLDER_MODE)
        group = await asyncio.to_thread(self._services.provisioner.socket_group, path.parent, slot)
        presence = self._services.hub.presence
        self._agents[name] = await _listen(
            path, serve, group, self._services.shares.of(name).intake, lambda: presence.harness(name)
        )
        self._services.shares.agents = len(self._agents)

    def _remove_left_over(self, living: set[AgentName]) -> None:
        """Remove sockets of destroyed agents that a killed daemon left behind."""
        for path in self._services.paths.agents_run.glob("*/*.sock"):
            if path.parent.name not in living:
                path.unlink(missing_ok=True)

    async def _serve_host(self, connection: LineConnection) -> None:
        await HostSession(connection, self._services, HOST_VERBS, _HOST_DECODER).serve()

    async def _serve_dashboard(self, connection: LineConnection) -> None:
        await DashboardSession(connection, self._services, DASHBOARD_VERBS, _DASHBOARD_DECODER).serve()


async def _listen(
    path: Path,
    serve: Callable[[LineConnection], Awaitable[None]],
    group: int | None,
    intake: Intake | None = None,
    harness: Callable[[], Process | None] = lambda: None,
) -> _Listening:
    opened: set[LineConnection] = set()

    async def bounded(connection: LineConnection) -> None:
        if len(opened) > CONNECTIONS_MAX:
            log.warning("socket.too_many_connections", path=str(path), limit=CONNECTIONS_MAX)
            return
        await serve(connection)

    try:
        bound = unix_socket.bound(path, group)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: LineConnection(bounded, opened, intake, harness), sock=bound, backlog=BACKLOG
        )
    except OSError as error:
        raise Unavailable(f"Cannot create the socket {path}: {error}.") from error
    return _Listening(path, server, opened)
