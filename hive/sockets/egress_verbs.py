"""The verbs of the network: the operator's rules, and an agent's request for a host."""

from typing import Any, Final

from hive.deciders.base import living
from hive.deciders.egress import AllowEgress, DenyEgress, RequestEgress, RevokeEgress
from hive.errors import Refused
from hive.projections.hive import Hive
from hive.sockets import views
from hive.sockets.agent_session import AgentSession
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request, Short


class Listed(Request, frozen=True, kw_only=True):
    agent: str | None = None


class Ruled(Request, frozen=True, kw_only=True):
    entry: Short
    """HOST, HOST:PORT or *.DOMAIN."""
    agent: str | None = None
    """Absent: every agent."""


class Wanted(Request, frozen=True, kw_only=True):
    host: Short
    why: str


async def egress(session: HostSession, request: Listed) -> Reply:
    """The rules of all agents, or those that are valid for one and its newest tries, with the settings they add to."""
    network, agent = session.services.settings().network, request.agent
    mode = "host" if session.services.provisioner.runtime.kind == "process" else network.mode

    def rules(hive: Hive) -> list[dict[str, Any]]:
        if agent is not None:
            living(hive, agent)
        return [views.rule(one) for one in hive.egress.listed(agent)]

    found = await session.services.journal.read(rules)
    tried = [] if agent is None else [views.tried(one) for one in session.services.tries.of(agent)]
    return {"mode": mode, "allow": list(network.allow), "rules": found, "tries": tried}


async def allow_egress(session: HostSession, request: Ruled) -> Reply:
    command = AllowEgress(by=session.by, entry=request.entry, agent=request.agent)
    await session.services.journal.ask(command, request.key)
    return {}


async def deny_egress(session: HostSession, request: Ruled) -> Reply:
    command = DenyEgress(by=session.by, entry=request.entry, agent=request.agent)
    await session.services.journal.ask(command, request.key)
    return {}


async def revoke_egress(session: HostSession, request: Ruled) -> Reply:
    command = RevokeEgress(by=session.by, entry=request.entry, agent=request.agent)
    await session.services.journal.ask(command, request.key)
    return {}


async def request_egress(session: AgentSession, request: Wanted) -> dict[str, Any]:
    """Request a host from the operator; the decision arrives in the agent's inbox.

    Raises:
        Refused: no rule could change what this hive's agents reach.
    """
    mode = session.services.settings().network.mode
    if mode == "none":
        raise Refused('Agents of this hive have no network (network.mode = "none"). Work without it.')
    if mode == "host":
        raise Refused('Agents of this hive use the host\'s network (network.mode = "host"). Connect directly.')
    command = RequestEgress(by=session.by, agent=session.name, host=request.host, why=request.why)
    decided = await session.services.journal.ask(command, request.key)
    return {"id": decided.answer if decided.answer is not None else decided.first().id}


EGRESS_VERBS: Final[dict[str, HostVerb]] = {
    "egress": HostVerb(Listed, egress),
    "allow_egress": HostVerb(Ruled, allow_egress),
    "deny_egress": HostVerb(Ruled, deny_egress),
    "revoke_egress": HostVerb(Ruled, revoke_egress),
}
