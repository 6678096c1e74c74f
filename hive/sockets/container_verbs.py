"""The operator's verbs for containers: protocol version 1 and hive's additions."""

import asyncio
import functools
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from hive.deciders import approvals, controls, roster
from hive.deciders.base import living
from hive.deciders.record import Warn
from hive.errors import BadRequest, HiveError, NotFound, Refused, Unavailable
from hive.events.agents import Act
from hive.events.base import Event
from hive.names import AgentName
from hive.projections.agents import Agent
from hive.projections.hive import Hive
from hive.sockets import views
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Limit, Request

LOG_LINES_MAX: Final = 10_000
FOLLOW_EVERY_S: Final = 0.5
CONTROL_WAIT_S: Final = 10.0
"""For a harness to take a control. A connected one needs milliseconds."""
"""Polling interval of a followed log."""


class Scope(msgspec.Struct, frozen=True):
    """The agents to act on. Empty means all."""

    agent_names: tuple[str, ...] = ()


class Scoped(Request, frozen=True, kw_only=True):
    scope: Scope = Scope()
    graceful: bool = True


class Start(Scoped, frozen=True, kw_only=True):
    without_swarm: bool = False
    """Although it is not known whether another hive has adopted them."""


class Named(Request, frozen=True, kw_only=True):
    name: str


class SetPaused(Named, frozen=True, kw_only=True):
    paused: bool


class RequestSpawn(Named, frozen=True, kw_only=True):
    description: str | None = None


class Destroy(Named, frozen=True, kw_only=True):
    purge: bool = False


class Mount(Named, frozen=True, kw_only=True):
    path: str
    read_only: bool = False


class Unmount(Named, frozen=True, kw_only=True):
    path: str


class Logs(Named, frozen=True, kw_only=True):
    lines: Limit = 200
    follow: bool = False


class Live(Named, frozen=True, kw_only=True):
    follow: bool = False


class Control(Named, frozen=True, kw_only=True):
    action: str
    value: str | None = None


class Shutdown(Request, frozen=True, kw_only=True):
    keep_agents: bool = False


CONTROL_ACTIONS: Final = ("cancel", "model", "compact", "new_session", "login_start", "login_code")


async def list_(session: HostSession, _: Request) -> Reply:
    return {"agents": await session.services.journal.read(lambda hive: [row.name for row in hive.agents.living()])}


async def agent_status(session: HostSession, _: Request) -> Reply:
    base = base_url(session)
    rows = await session.services.journal.read(
        lambda hive: [views.agent_status(row, hive, base) for row in hive.agents.living()]
    )
    return {"agent_statuses": rows}


async def subscribe_agent_status(session: HostSession, _: Request) -> None:
    base, shown = base_url(session), dict[str, Any]()
    with session.services.hub.following() as feed:
        session.connection.on_gone = lambda: feed.put([])
        for row in (await agent_status(session, _))["agent_statuses"]:
            shown[row["name"]] = row
        going = await session.respond({})
        while going and not session.connection.gone:
            names = {event.agent for event in (one.event for one in await feed.next()) if _has_agent(event)}
            rows = await session.services.journal.read(functools.partial(_statuses, names, base))
            for row in rows:
                if shown.get(row["name"]) != row:
                    shown[row["name"]] = row
                    going = await session.respond({"agent_statuses": [row]})


def _statuses(names: set[str], base: str | None, hive: Hive) -> list[dict[str, Any]]:
    return [views.agent_status(row, hive, base) for row in hive.agents.living() if row.name in names]


def _has_agent(event: Event) -> bool:
    return "agent" in event.__struct_fields__


async def set_paused(session: HostSession, request: SetPaused) -> Reply:
    command = controls.SetPaused(by=session.by, agent=request.name, paused=request.paused)
    await session.services.journal.ask(command, request.key)
    return {}


async def start(session: HostSession, request: Start) -> Reply:
    if request.without_swarm:
        names = await session.services.journal.read(functools.partial(_chosen, request.scope.agent_names))
        session.services.swarm.gate.allow(names)
        text = f"{', '.join(names)} may start, although the swarm was not read"
        await session.services.journal.ask(Warn(by=session.by, source="swarm", text=text))
    return await _act_on_all(session, request, "start")


async def stop(session: HostSession, request: Scoped) -> Reply:
    return await _act_on_all(session, request, "stop")


async def restart(session: HostSession, request: Named) -> Reply:
    await session.services.act(request.name, "restart", session.by)
    return {}


async def kill(session: HostSession, request: Named) -> Reply:
    await session.services.act(request.name, "kill", session.by)
    return {}


async def rebuild(session: HostSession, request: Named) -> Reply:
    await session.services.act(request.name, "rebuild", session.by)
    return {}


async def update_all(session: HostSession, _: Request) -> Reply:
    rows = await session.services.journal.read(lambda hive: [row for row in hive.agents.living() if row.needs_update])
    await _all_of(*(session.services.act(row.name, "rebuild", session.by) for row in rows))
    return {"agents": [row.name for row in rows]}


async def spawn(session: HostSession, request: Named) -> Reply:
    await session.services.journal.ask(roster.Spawn(by=session.by, agent=request.name), request.key)
    await session.services.settled(request.name)
    return {}


async def request_spawn(session: HostSession, request: RequestSpawn) -> Reply:
    command = approvals.RequestSpawn(
        by=session.by, agent=request.name, requester="operator", description=request.description
    )
    return {"id": (await session.services.journal.ask(command, request.key)).first().id}


async def destroy(session: HostSession, request: Destroy) -> Reply:
    row = await _known_one(session, request.name)
    if row.destroyed_ms is not None:
        if not request.purge:
            raise Refused(f'agent "{row.name}" is already destroyed; purge wipes its state, revive restores it')
        return await purge(session, request)
    await session.services.act(request.name, "destroy", session.by, purge=request.purge)
    session.services.hub.forget(request.name)
    return {}


async def purge(session: HostSession, request: Named) -> Reply:
    row = await _known_one(session, request.name)
    if row.destroyed_ms is None:
        raise Refused(f'agent "{row.name}" is not destroyed; destroy it first')
    await asyncio.to_thread(session.services.provisioner.wipe, row.name)
    await session.services.journal.ask(roster.RecordPurged(by=session.by, agent=row.name))
    return {}


async def revive(session: HostSession, request: Named) -> Reply:
    await session.services.journal.ask(roster.Revive(by=session.by, agent=request.name), request.key)
    await session.services.settled(request.name)
    return {}


async def mount(session: HostSession, request: Mount) -> Reply:
    path = Path(await asyncio.to_thread(os.path.realpath, request.path))
    _check_mount(path, request.path, session.services.paths.state, session.services.paths.run)
    walled = session.services.provisioner.runtime.kind != "process"
    command = controls.Mount(
        by=session.by, agent=request.name, host_path=str(path), folder=path.name, read_only=request.read_only
    )
    changed = (await session.services.journal.ask(command, request.key)).events
    restarted = await _restart_if_running(session, request.name, bool(changed))
    seen_at = f"/work/{path.name}" if walled else str(path)
    warning = "The process runtime has no isolation and cannot enforce read-only mounts."
    unheld = warning if request.read_only and not walled else None
    return {"folder": path.name, "seen_at": seen_at, "restarted": restarted, "warning": unheld}


async def unmount(session: HostSession, request: Unmount) -> Reply:
    path = request.path if "/" not in request.path else await asyncio.to_thread(os.path.realpath, request.path)
    await session.services.journal.ask(controls.Unmount(by=session.by, agent=request.name, path=path), request.key)
    return {"restarted": await _restart_if_running(session, request.name, True)}


async def mounts(session: HostSession, request: Named) -> Reply:
    name = request.name
    rows = await session.services.journal.read(lambda hive: (living(hive, name), views.mounts(hive, name))[1])
    return {"mounts": rows}


async def logs(session: HostSession, request: Logs) -> Reply | None:
    await _known_one(session, request.name)
    record, count = session.services.paths.record(request.name), min(request.lines, LOG_LINES_MAX)
    output = session.services.provisioner.runtime.output
    lines = await asyncio.to_thread(output, record, lines=count)
    if not request.follow:
        return {"lines": lines}
    going = await session.respond({"lines": lines})
    while going and not session.connection.gone:
        await asyncio.sleep(FOLLOW_EVERY_S)
        newest = await asyncio.to_thread(output, record, lines=LOG_LINES_MAX)
        if added := _after(lines, newest):
            lines = newest
            going = await session.respond({"lines": added})
    return None


async def live(session: HostSession, request: Live) -> Reply | None:
    await _known_one(session, request.name)
    hub = session.services.hub
    if not request.follow:
        return {"lines": hub.live(request.name)}
    with hub.following_live(request.name) as feed:
        session.connection.on_gone = lambda: feed.put([])
        going = await session.respond({"lines": hub.live(request.name)})
        while going and not session.connection.gone:
            if lines := await feed.next():
                going = await session.respond({"lines": lines})
    return None


async def control(session: HostSession, request: Control) -> Reply:
    if request.action not in CONTROL_ACTIONS:
        raise BadRequest(f"An action is one of {', '.join(CONTROL_ACTIONS)}, not {request.action!r}.")
    row = await _living_one(session, request.name)
    if request.action == "model":
        await session.services.journal.ask(
            controls.SetModel(by=session.by, agent=row.name, model=request.value), request.key
        )
    elif not row.running:
        raise Refused(f'agent "{row.name}" is not running; start it first')
    if row.running:
        hub, value = session.services.hub, {} if request.value is None else {"value": request.value}
        id = hub.add_control(row.name, {"action": request.action, **value})
        # A model is in the log. Any other control is lost with the daemon, so it counts only once the harness has it.
        if request.action != "model" and not await hub.control_taken(row.name, id, CONTROL_WAIT_S):
            raise Unavailable(
                f"The harness of {row.name} did not take this within {CONTROL_WAIT_S:.0f} s. It is dropped; try again."
            )
    return {}


async def config(session: HostSession, request: Named) -> Reply:
    row = await _known_one(session, request.name)
    repositories = session.services.provisioner.repositories
    revision = await asyncio.to_thread(repositories.main, row.name)
    files = await asyncio.to_thread(repositories.files, row.name, revision)
    shown = [{"path": path, "text": text.decode(errors="replace")} for path, text in sorted(files.items())]
    running = {} if row.revision is None else {"running": row.revision}
    return {"config": {"revision": revision, "files": shown, **running}}


async def shutdown(session: HostSession, request: Shutdown) -> Reply:
    await session.services.shut_down(request.keep_agents)
    return {}


def base_url(session: HostSession) -> str | None:
    """The dashboard's external URL; None without a dashboard."""
    return session.services.dashboard_url()


async def _act_on_all(session: HostSession, request: Scoped, act: Act) -> Reply:
    names = await session.services.journal.read(functools.partial(_chosen, request.scope.agent_names))
    by, graceful = session.by, request.graceful
    await _all_of(*(session.services.act(name, act, by, graceful=graceful) for name in names))
    return {}


def _chosen(named: tuple[str, ...], hive: Hive) -> list[AgentName]:
    return [living(hive, name).name for name in named] or [row.name for row in hive.agents.living()]


async def _all_of(*acts: Any) -> None:
    """Raises Refused: some acts failed; the others are done."""
    failed = [str(one) for one in await asyncio.gather(*acts, return_exceptions=True) if isinstance(one, HiveError)]
    if failed:
        raise Refused("; ".join(failed))


async def _restart_if_running(session: HostSession, name: AgentName, changed: bool) -> bool:
    """Restart a running agent, because a container gets its mounts at its start."""
    row = await _living_one(session, name)
    if changed and row.running:
        await session.services.act(name, "restart", session.by)
    return changed and row.running


async def _living_one(session: HostSession, name: str) -> Agent:
    return await session.services.journal.read(lambda hive: living(hive, name))


async def _known_one(session: HostSession, name: str) -> Agent:
    """An agent or a tombstone."""
    row = await session.services.journal.read(lambda hive: hive.agents.all.get(name))
    if row is None:
        raise NotFound(f'agent "{name}" is not managed by this hive')
    return row


def _check_mount(path: Path, asked: str, *hives: Path) -> None:
    if not Path(asked).is_absolute():
        raise BadRequest(f"{asked} is not an absolute path.")
    if not path.is_dir():
        raise BadRequest(f"{asked} is not a folder on this host.")
    if not path.name:
        raise BadRequest("Cannot mount the whole host; name a project folder.")
    for own in hives:
        if own.resolve().is_relative_to(path) or path.is_relative_to(own.resolve()):
            raise Refused(f"{path} contains hive's own state or is part of it, so agents cannot mount it.")


def _after(before: list[str], now: list[str]) -> list[str]:
    """The lines of `now` that follow the overlap with `before`."""
    for keep in range(min(len(before), len(now)), 0, -1):
        if before[-keep:] == now[:keep]:
            return now[keep:]
    longest = min(len(before), len(now))
    return now[longest:] if before[-longest:] == now[:longest] else now


CONTAINER_VERBS: Final[dict[str, HostVerb]] = {
    "list": HostVerb(Request, list_),
    "agent_status": HostVerb(Request, agent_status),
    "subscribe_agent_status": HostVerb(Request, subscribe_agent_status),
    "set_paused": HostVerb(SetPaused, set_paused),
    "start": HostVerb(Start, start),
    "stop": HostVerb(Scoped, stop),
    "restart": HostVerb(Named, restart),
    "kill": HostVerb(Named, kill),
    "rebuild": HostVerb(Named, rebuild),
    "update_all": HostVerb(Request, update_all),
    "spawn": HostVerb(Named, spawn),
    "request_spawn": HostVerb(RequestSpawn, request_spawn),
    "destroy": HostVerb(Destroy, destroy),
    "purge": HostVerb(Named, purge),
    "revive": HostVerb(Named, revive),
    "mount": HostVerb(Mount, mount),
    "unmount": HostVerb(Unmount, unmount),
    "mounts": HostVerb(Named, mounts),
    "logs": HostVerb(Logs, logs),
    "live": HostVerb(Live, live),
    "control": HostVerb(Control, control),
    "config": HostVerb(Named, config),
    "shutdown": HostVerb(Shutdown, shutdown),
}
