"""The operator's verbs for messages, questions, approvals, events and statistics."""

import asyncio
import hashlib
import secrets
from typing import Any, Final

import msgspec

from hive.audit.figures import Figures, turn_figures
from hive.clock import TimeMs, rfc3339
from hive.deciders import approvals, controls, messages, questions
from hive.errors import BadRequest
from hive.events.base import ApprovalId, MessageId, QuestionId, Seq
from hive.events.log import LogReader, Row
from hive.events.messages import MessageSent
from hive.names import EVERYONE, OPERATOR
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.projections.turns import HOUR_MS
from hive.sockets import views
from hive.sockets.config_verbs import check_approvable
from hive.sockets.container_verbs import base_url
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Id, Limit, Request, Short
from hive.sockets.swarm_verbs import connection, decide_there, peers_seen

ROWS_MAX: Final = 1_000
"""Rows of one reply."""
TOKEN_BYTES: Final = 32
WINDOWS_H: Final = {"1h": 1, "4h": 4, "24h": 24, "3d": 72, "7d": 168, "30d": 720}


class Send(Request, frozen=True, kw_only=True):
    to: str
    body: str
    in_reply_to: Id | None = None


class Messages(Request, frozen=True, kw_only=True):
    limit: Limit = 50
    agent: str | None = None


class Questions(Request, frozen=True, kw_only=True):
    history: bool = False


class ById(Request, frozen=True, kw_only=True):
    id: Id
    hive: Short | None = None
    """The hive that owns the row, if it is another one."""


class Answer(ById, frozen=True, kw_only=True):
    answer: str


class Approve(ById, frozen=True, kw_only=True):
    sha: str | None = None
    for_all: bool = False
    """Of kind `egress`: allow the host for every agent."""


class Deny(ById, frozen=True, kw_only=True):
    note: str | None = None


class Limited(Request, frozen=True, kw_only=True):
    limit: Limit = 50


class Events(Request, frozen=True, kw_only=True):
    first: Id = msgspec.field(name="from", default=1)
    types: tuple[str, ...] | None = None
    agent: str | None = None
    limit: Limit = ROWS_MAX
    follow: bool = False


class Stats(Request, frozen=True, kw_only=True):
    agent: str | None = None
    window: str = "24h"


class Operators(Request, frozen=True, kw_only=True):
    action: str = "list"
    name: str | None = None


class RebuildProjections(Request, frozen=True, kw_only=True):
    progress: bool = False


async def send(session: HostSession, request: Send) -> Reply:
    reply_to = None if request.in_reply_to is None else MessageId(request.in_reply_to)
    command = messages.Send(by=session.by, sender=OPERATOR, to=request.to, body=request.body, in_reply_to=reply_to)
    session.services.hub.will_send(request.to)
    decided = await session.services.journal.ask(command, request.key)
    ids = [event.id for event in decided.events if isinstance(event, MessageSent)]
    return {"ids": ids} if request.to == EVERYONE else {"id": ids[0], "ids": ids}


async def messages_(session: HostSession, request: Messages) -> Reply:
    whose, limit = request.agent or OPERATOR, min(request.limit, ROWS_MAX)
    rows = await session.services.journal.read(lambda hive: hive.messages.newest(whose, limit))
    return {"messages": [views.operator_message(row) for row in rows]}


async def questions_(session: HostSession, request: Questions) -> Reply:
    def asked(hive: Hive) -> list[Any]:
        return [*(hive.questions.resolved() if request.history else ()), *hive.questions.pending()]

    return {"questions": [views.question(row) for row in await session.services.journal.read(asked)]}


async def answer_question(session: HostSession, request: Answer) -> Reply:
    if _elsewhere(session, request):
        return await decide_there(session, request, "answer", text=request.answer)
    id = QuestionId(request.id)
    command = questions.Answer(by=session.by, id=id, answer=request.answer, answerer=OPERATOR)
    await session.services.journal.ask(command, request.key)
    return {}


async def cancel_question(session: HostSession, request: ById) -> Reply:
    if _elsewhere(session, request):
        return await decide_there(session, request, "cancel")
    command = questions.Cancel(by=session.by, id=QuestionId(request.id), canceller=OPERATOR)
    await session.services.journal.ask(command, request.key)
    return {}


def _elsewhere(session: HostSession, request: ById) -> bool:
    return request.hive is not None and request.hive != session.services.settings().swarm.name


async def pending(session: HostSession, _: Request) -> Reply:
    rows = await session.services.journal.read(lambda hive: hive.approvals.pending())
    return {"approvals": [views.approval(row) for row in rows]}


async def approvals_(session: HostSession, request: Limited) -> Reply:
    limit = min(request.limit, ROWS_MAX)
    rows = await session.services.journal.read(lambda hive: sorted(hive.approvals.all, key=lambda row: row.id)[-limit:])
    return {"approvals": [views.approval(row) for row in rows]}


async def approve(session: HostSession, request: Approve) -> Reply:
    if _elsewhere(session, request):
        return await decide_there(session, request, "approve", sha=request.sha)
    await check_approvable(session.services, ApprovalId(request.id), request.sha)
    command = approvals.Approve(by=session.by, id=ApprovalId(request.id), sha=request.sha, for_all=request.for_all)
    await session.services.journal.ask(command, request.key)
    return {}


async def deny(session: HostSession, request: Deny) -> Reply:
    if _elsewhere(session, request):
        return await decide_there(session, request, "deny", text=request.note)
    command = approvals.Deny(by=session.by, id=ApprovalId(request.id), note=request.note)
    await session.services.journal.ask(command, request.key)
    return {}


async def events(session: HostSession, request: Events) -> Reply | None:
    if not request.follow:
        rows = await asyncio.to_thread(_read_events, session.services.paths, request, request.first)
        return {"events": [_event(row) for row in rows]}
    with session.services.hub.following() as feed:
        session.connection.on_gone = lambda: feed.put([])
        first, going = request.first, True
        while going and not session.connection.gone:
            rows = await asyncio.to_thread(_read_events, session.services.paths, request, first)
            if rows or first == request.first:
                going = await session.respond({"events": [_event(row) for row in rows]})
            if rows:
                first = rows[-1].seq + 1
            if len(rows) < min(request.limit, ROWS_MAX):
                await feed.next()
    return None


def _read_events(paths: Paths, request: Events, first: Seq) -> list[Row]:
    reader = LogReader(paths.state, daemon_runs=True)
    try:
        return reader.matching(first, min(request.limit, ROWS_MAX), request.types or (), request.agent)
    finally:
        reader.close()


def _event(row: Row) -> dict[str, Any]:
    data = msgspec.Raw(row.data.encode())
    return {"seq": row.seq, "at": row.at, "type": row.type, "data": data, "by": row.by, "hash": row.hash.hex()}


async def state(session: HostSession, _: Request) -> Reply:
    base, now = base_url(session), session.services.clock.now_ms()
    gate = session.services.swarm.gate

    def read(hive: Hive) -> tuple[Seq, dict[str, Any], dict[str, str]]:
        away = [row for row in hive.agents.living() if row.wanted_running and not row.running]
        held = {row.name: why for row in away if (why := gate.why_held(row.name, row.added_ms)) is not None}
        return hive.seq, views.snapshot(hive, base, now), held

    seq, snapshot, held = await session.services.journal.read(read)
    for row in snapshot["agents"] if held else ():
        if row["name"] in held:
            row["held"] = held[row["name"]]
    if (name := session.services.settings().swarm.name) is not None:
        status = session.services.swarm
        snapshot["swarm"] = {"name": name, "peers": peers_seen(status), **connection(status, seq)}
    runtime = session.services.provisioner.runtime.kind
    mode = "host" if runtime == "process" else session.services.settings().network.mode
    waits = session.services.waits_for_room() or None
    return {"seq": seq, "state": snapshot, "runtime": runtime, "network_mode": mode, "waits_for_room": waits}


async def stats(session: HostSession, request: Stats) -> Reply:
    if request.window not in WINDOWS_H:
        raise BadRequest(f"A window is one of {', '.join(WINDOWS_H)}, not {request.window!r}.")
    since = session.services.clock.now_ms() - WINDOWS_H[request.window] * HOUR_MS
    rows = await asyncio.to_thread(_turn_figures, session.services.paths, since, request.agent)
    return {"stats": {"window": request.window, "since": rfc3339(since), "agents": rows}}


def _turn_figures(paths: Paths, since: TimeMs, agent: str | None) -> list[Figures]:
    reader = LogReader(paths.state, daemon_runs=True)
    try:
        return turn_figures(reader, since, agent)
    finally:
        reader.close()


async def operators(session: HostSession, request: Operators) -> Reply:
    match request.action, request.name:
        case "list", _:
            snapshot = await state(session, request)
            return {"operators": snapshot["state"]["operators"]}
        case "add", str() as name:
            token = secrets.token_urlsafe(TOKEN_BYTES)
            token_hash = hashlib.sha256(token.encode()).hexdigest()
            command = controls.AddOperator(by=session.by, name=name, token_hash=token_hash)
            await session.services.journal.ask(
                command
            )  # No key: a repeated request would get a token that is not valid.
            return {"name": name, "token": token}
        case "revoke", str() as name:
            await session.services.journal.ask(controls.RevokeOperator(by=session.by, name=name), request.key)
            return {}
        case _:
            raise BadRequest("The action of operators is add, list or revoke; add and revoke need a name.")


async def urls(session: HostSession, _: Request) -> Reply:
    settings = session.services.settings()
    base = base_url(session)
    home = None if base is None else f"{base}/"
    known = {"domain": settings.dashboard.domain, "home": home, "forge": settings.forge.url}
    return {"urls": {key: value for key, value in known.items() if value is not None}}


async def rebuild_projections(session: HostSession, request: RebuildProjections) -> Reply:
    """Rebuild the projections. With `progress`, each position is sent as a separate response first."""
    reached: asyncio.Queue[Seq | None] = asyncio.Queue()
    rebuilding = asyncio.ensure_future(session.services.rebuilding.run(reached.put_nowait))
    rebuilding.add_done_callback(lambda _: reached.put_nowait(None))
    try:
        while (position := await reached.get()) is not None:
            if request.progress:
                await session.respond({"position": position})
        seq = await rebuilding
    finally:
        rebuilding.cancel()  # Cancels only the waiting.
    names = await session.services.journal.read(lambda hive: [(one.NAME, one.VERSION) for one in hive.projections()])
    return {"projections": [{"name": name, "version": version, "seq": seq} for name, version in names]}


DECISION_VERBS: Final[dict[str, HostVerb]] = {
    "send": HostVerb(Send, send),
    "messages": HostVerb(Messages, messages_),
    "questions": HostVerb(Questions, questions_),
    "answer_question": HostVerb(Answer, answer_question),
    "cancel_question": HostVerb(ById, cancel_question),
    "pending": HostVerb(Request, pending),
    "approvals": HostVerb(Limited, approvals_),
    "approve": HostVerb(Approve, approve),
    "deny": HostVerb(Deny, deny),
    "events": HostVerb(Events, events),
    "state": HostVerb(Request, state),
    "stats": HostVerb(Stats, stats),
    "operators": HostVerb(Operators, operators),
    "urls": HostVerb(Request, urls),
    "rebuild_projections": HostVerb(RebuildProjections, rebuild_projections),
}
