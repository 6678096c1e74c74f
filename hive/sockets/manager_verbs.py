"""The additional verbs of the manager's socket: request approvals and manage containers."""

import asyncio
from typing import Final

from hive.deciders import approvals
from hive.deciders.base import living
from hive.errors import NotYours
from hive.events.agents import Act
from hive.events.base import ApprovalId
from hive.sockets import views
from hive.sockets.agent_session import AgentSession, Reply, Verb
from hive.sockets.agent_verbs import AGENT_VERBS, ById
from hive.sockets.config_verbs import MANAGER_CONFIG_VERBS
from hive.sockets.requests import Limit, Request
from hive.sockets.shares import Cost

LOG_LINES_MAX: Final = 1_000
ACT: Final = Cost(events=10)
"""An act, its transient, its outcome, and who is told."""


class RequestSpawn(Request, frozen=True, kw_only=True):
    name: str
    description: str | None = None


class Named(Request, frozen=True, kw_only=True):
    name: str


class Logs(Named, frozen=True, kw_only=True):
    lines: Limit = 100


async def request_spawn(session: AgentSession, request: RequestSpawn) -> Reply:
    command = approvals.RequestSpawn(
        by=session.by, agent=request.name, requester=session.name, description=request.description
    )
    decided = await session.services.journal.ask(command, request.key)
    return {"id": decided.first().id}


async def cancel_request(session: AgentSession, request: ById) -> Reply:
    command = approvals.Withdraw(by=session.by, id=ApprovalId(request.id), requester=session.name)
    await session.services.journal.ask(command, request.key)
    return {}


async def start(session: AgentSession, request: Named) -> Reply:
    return await _act(session, request, "start")


async def restart(session: AgentSession, request: Named) -> Reply:
    return await _act(session, request, "restart")


async def kill(session: AgentSession, request: Named) -> Reply:
    return await _act(session, request, "kill")


async def update(session: AgentSession, request: Named) -> Reply:
    return await _act(session, request, "rebuild")


async def _act(session: AgentSession, request: Named, act: Act) -> Reply:
    if request.name == session.name:  # Refuse now: queued behind its own act, it would deadlock.
        raise NotYours(f"{session.name} cannot {act} itself; ask the operator.")
    await session.services.act(request.name, act, session.by)
    return {}


async def list_agents(session: AgentSession, _: Request) -> Reply:
    now = session.services.clock.now_ms()
    rows = await session.services.journal.read(
        lambda hive: [views.agent(row, hive, None, now) for row in hive.agents.living()]
    )
    return {"agents": rows}


async def logs(session: AgentSession, request: Logs) -> Reply:
    name = request.name
    await session.services.journal.read(lambda hive: living(hive, name))
    record = session.services.paths.record(name)
    lines = min(request.lines, LOG_LINES_MAX)
    return {"lines": await asyncio.to_thread(session.services.provisioner.runtime.output, record, lines=lines)}


MANAGER_VERBS: Final[dict[str, Verb]] = {
    **AGENT_VERBS,
    "request_spawn": Verb(RequestSpawn, request_spawn, Cost(events=5, copies=2)),
    **MANAGER_CONFIG_VERBS,
    "cancel_request": Verb(ById, cancel_request, Cost(events=3)),
    "start": Verb(Named, start, ACT),
    "restart": Verb(Named, restart, ACT),
    "kill": Verb(Named, kill, ACT),
    "update": Verb(Named, update, ACT),
    "list_agents": Verb(Request, list_agents, Cost(reads=True)),
    "logs": Verb(Logs, logs, Cost(reads=True)),
}
