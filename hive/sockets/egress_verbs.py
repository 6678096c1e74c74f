"""The verbs of the network: the operator's rules, and an agent's request for a host."""

import asyncio
from typing import Any, Final

from hive.deciders.base import living
from hive.deciders.egress import AllowEgress, DenyEgress, RequestEgress, RevokeEgress
from hive.errors import Refused
from hive.projections.agents import Agent
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
    """The rules of all agents with the settings that they add to; or what holds for one agent, and its newest tries.

    For an agent, `mode` and `allow` are those of its running configuration; `hive_mode` and `hive_allow` are those of
    `hive.toml` where these are wider. `inferred` are hosts of its MCP servers and the forge, `login` those of a
    login of its own, which are open in every mode.
    """
    services, name = session.services, request.agent
    network, is_walled = services.settings().network, services.provisioner.runtime.kind != "process"

    def rules(hive: Hive) -> tuple[Agent | None, list[dict[str, Any]]]:
        row = None if name is None else living(hive, name)
        return row, [views.rule(one) for one in hive.egress.listed(name)]

    row, found = await services.journal.read(rules)
    tried = [] if name is None else [views.tried(one) for one in services.tries.of(name)]
    reply: Reply = {"mode": network.mode if is_walled else "host", "allow": list(network.allow)}
    if row is not None and is_walled:
        may = await asyncio.to_thread(services.provisioner.reach, row)
        wider = {"hive_mode": reply["mode"], "hive_allow": reply["allow"]} if may.narrowed else {}
        reply = {
            "mode": may.mode,
            "allow": list(may.allow),
            "inferred": list(may.inferred),
            "login": list(may.login),
            **wider,
        }
    return {**reply, "rules": found, "tries": tried}


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
    row = await session.services.journal.read(lambda hive: living(hive, session.name))
    mode = (await asyncio.to_thread(session.services.provisioner.reach, row)).mode
    if mode == "none":
        raise Refused('You have no network (network.mode = "none"). Work without it.')
    if mode == "host":
        raise Refused('You use the host\'s network (network.mode = "host"). Connect directly.')
    command = RequestEgress(by=session.by, agent=session.name, host=request.host, why=request.why)
    decided = await session.services.journal.ask(command, request.key)
    return {"id": decided.answer if decided.answer is not None else decided.first().id}


EGRESS_VERBS: Final[dict[str, HostVerb]] = {
    "egress": HostVerb(Listed, egress),
    "allow_egress": HostVerb(Ruled, allow_egress),
    "deny_egress": HostVerb(Ruled, deny_egress),
    "revoke_egress": HostVerb(Ruled, revoke_egress),
}
