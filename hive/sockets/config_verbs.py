"""The verbs for configurations: request, diff, edit, roll back."""

import asyncio
from typing import Any, Final

import msgspec

from hive.actors.agent import Ticket
from hive.actors.config_pipeline import Watch
from hive.clock import MS_PER_S, duration_text
from hive.config.proposals import Diff
from hive.deciders.approvals import Approve, FailRequest, Pin, RequestCommit
from hive.deciders.base import living
from hive.errors import HiveError, NotFound, Refused, Unavailable
from hive.events.base import ApprovalId, By, actor
from hive.names import OPERATOR, AgentName
from hive.sockets.agent_session import AgentSession, Verb
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Id, Request, Short
from hive.sockets.services import ACT_TIMEOUT_S, Services
from hive.sockets.shares import Cost

BY: Final = actor("config_pipeline")


class RequestApplyCommit(Request, frozen=True, kw_only=True):
    agent: str
    commit_ref: str
    description: str | None = None


class ById(Request, frozen=True, kw_only=True):
    id: Id
    hive: Short | None = None
    """The hive that owns the approval, if it is another one."""


class Named(Request, frozen=True, kw_only=True):
    name: str


class File(msgspec.Struct, frozen=True):
    path: str
    text: str | None = None
    """None removes the file."""


class Edit(Named, frozen=True, kw_only=True):
    files: tuple[File, ...]
    """Files that are not listed stay unchanged."""
    base: str | None = None
    """The applied commit that was edited. The edit is refused if another commit is applied now."""
    description: str | None = None


class Rollback(Named, frozen=True, kw_only=True):
    to: str | None = None
    """An applied commit, full or abbreviated. Default: the previous one."""


async def request_apply_commit(session: AgentSession, request: RequestApplyCommit) -> Reply:
    """Queue the request, fetch the commit and pin it. A failed fetch leaves nothing pending."""
    command = RequestCommit(
        by=session.by,
        agent=request.agent,
        commit_ref=request.commit_ref,
        requester=session.name,
        description=request.description,
    )
    decided = await session.services.journal.ask(command, request.key)
    id = decided.first().id
    # Shielded: the row is in the log, so it must be pinned or failed even if the manager disconnects.
    sha = await asyncio.shield(_fetched(session.services, id, request.agent, request.commit_ref))
    return {"id": id, "fetched_sha": sha}


async def _fetched(services: Services, id: ApprovalId, agent: AgentName, commit_ref: str) -> str:
    row = await services.journal.read(lambda hive: hive.approvals.all.get(id))
    if row is not None and row.fetched_sha is not None:
        return row.fetched_sha  # A repeated request with the same key.
    try:
        sha = await asyncio.to_thread(services.proposals.pin, agent, id, commit_ref)
    except (HiveError, OSError) as error:
        await services.journal.ask(FailRequest(by=BY, id=id, error=str(error)))
        raise Refused(f"The request failed: {error}") from error
    await services.journal.ask(Pin(by=BY, id=id, fetched_sha=sha))
    return sha


async def check_approvable(services: Services, id: ApprovalId, sha: str | None) -> None:
    """Check that the proposal still matches its pin and does not undo a later deploy.

    Raises:
        Refused: the tag moved or the proposal is stale. The approval stays pending.
    """
    commit = await services.journal.read(lambda hive: hive.approvals.pending_commit(id))
    if commit is None or sha not in (None, commit[1]):
        return  # The decider reports the error, if there is one.
    agent, pinned = commit
    await asyncio.to_thread(services.proposals.check_approvable, agent, id, pinned)


async def diff(session: HostSession, request: ById) -> Reply:
    id, services = ApprovalId(request.id), session.services
    if request.hive is not None and request.hive != services.settings().swarm.name:
        where, operator = request.hive, session.by.name
        if not (await services.journal.read(lambda hive: hive.swarm.peer(where))).trusted:
            raise NotFound(f'hive "{where}" is not a peer of this hive')
        reply = await asyncio.to_thread(lambda: services.swarm.connected_link().diff(where, id, operator))
        return {"hive": where, **reply}
    row = await session.services.journal.read(lambda hive: hive.approvals.all.get(id))
    if row is None:
        raise NotFound(f"There is no approval {id}.")
    if row.fetched_sha is None:
        return {"diff": "", "id": id, "agent": row.agent}
    found = await asyncio.to_thread(session.services.proposals.diff, row.agent, row.fetched_sha)
    return {"id": id, "agent": row.agent, **_diff(found)}


def _diff(found: Diff) -> dict[str, Any]:
    text = found.text
    if found.cut:
        text += "\n(The diff is longer; the rest is not shown.)\n"
    return {"diff": text, "base": found.base, "sha": found.sha, "cut": found.cut, "stale": found.stale}


async def edit(session: HostSession, request: Edit) -> Reply:
    name, services = request.name, session.services
    await services.journal.read(lambda hive: living(hive, name))

    def commit() -> str:
        repositories = services.provisioner.repositories
        main = repositories.main(name)
        if request.base is not None and request.base != main:
            raise Refused(f"{main[:12]} was applied to {name} in the meantime; edit again.")
        before = repositories.files(name, main)
        changes = {
            file.path: None if file.text is None else file.text.encode()
            for file in request.files
            if file.text is None or file.text != before.get(file.path, b"\0").decode(errors="replace")
        }
        return repositories.commit_files(name, changes, message=f"Edit by {session.by.name}", author=session.by.name)

    sha = await asyncio.to_thread(commit)
    return await _deployed(services, session.by, name, sha, request.description or f"edited by {session.by.name}")


async def rollback(session: HostSession, request: Rollback) -> Reply:
    name, services = request.name, session.services
    await services.journal.read(lambda hive: living(hive, name))
    sha = await asyncio.to_thread(services.proposals.rollback_commit, name, request.to)
    return await _deployed(services, session.by, name, sha, f"rolled back by {session.by.name}")


async def _deployed(services: Services, by: By, name: AgentName, sha: str, description: str) -> Reply:
    """Request, pin and approve the operator's own commit, then wait until it runs.

    Raises:
        HiveError: the deploy failed; the previous configuration keeps running.
    """
    command = RequestCommit(by=by, agent=name, commit_ref=sha, requester=OPERATOR, description=description)
    id = (await services.journal.ask(command)).first().id
    ticket = Ticket()

    async def pin_and_approve() -> None:
        try:
            await asyncio.to_thread(services.proposals.pin_own, name, id, sha)
            await services.journal.ask(Pin(by=BY, id=id, fetched_sha=sha))
            services.watch(Watch(id, ticket))
            await services.journal.ask(Approve(by=by, id=id, sha=sha))
        except (HiveError, OSError) as error:
            await services.journal.ask(FailRequest(by=BY, id=id, error=str(error)))
            raise error if isinstance(error, HiveError) else Unavailable(str(error)) from error

    await asyncio.shield(pin_and_approve())
    try:
        async with asyncio.timeout(ACT_TIMEOUT_S):
            await asyncio.shield(asyncio.wrap_future(ticket))
    except TimeoutError:
        took = duration_text(ACT_TIMEOUT_S * MS_PER_S)
        raise Unavailable(f"The deploy takes over {took} and continues; check approval {id}.") from None
    return {"id": id, "revision": sha}


async def forge_status(session: HostSession, _: Request) -> Reply:
    return {"forge": session.services.mirror_status()}


CONFIG_VERBS: Final[dict[str, HostVerb]] = {
    "diff": HostVerb(ById, diff),
    "edit": HostVerb(Edit, edit),
    "rollback": HostVerb(Rollback, rollback),
    "forge_status": HostVerb(Request, forge_status),
}
MANAGER_CONFIG_VERBS: Final[dict[str, Verb]] = {
    "request_apply_commit": Verb(RequestApplyCommit, request_apply_commit, Cost(events=6, copies=2)),
}
