"""The dashboard's read-only verbs: filtered log, past state, explanations, host checks, metrics."""

import asyncio
import hmac
import sys
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from hive import settings as host_settings
from hive.actors.webhook import NotTaken, deliver
from hive.audit.why import Explanation, explain
from hive.clock import MS_PER_S, TimeMs, parse_rfc3339, rfc3339
from hive.deciders.record import RecordNotification
from hive.errors import BadRequest, Refused, Unavailable
from hive.events.log import LogReader, Row
from hive.names import is_agent_name
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.projections.notifications import Notification
from hive.projections.turns import HOUR_MS
from hive.sockets import views
from hive.sockets.decision_verbs import ROWS_MAX
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Id, Limit, Request
from hive.sockets.sessions import SignedOut
from hive.sockets.stats_verbs import STATS_VERBS
from hive.sockets.swarm_verbs import figures as swarm_figures
from hive.turn_columns import TOKEN_COLUMNS

CHILD_TIMEOUT_S: Final = 60.0
"""Timeout of a replay or `hive doctor`. Each runs in its own process, because folding a long log would block."""
CHILDREN_MAX: Final = 2
CHILD_OUTPUT_MAX_BYTES: Final = 64 * 1024 * 1024
DAY_HOURS: Final = 24
INBOX_MAX: Final = 200
"""Waiting messages shown per agent."""


class AuditEvents(Request, frozen=True, kw_only=True):
    """The newest rows that match all filters, oldest first."""

    types: tuple[str, ...] = ()
    agent: str | None = None
    person: str | None = None
    """An operator's name."""
    since: str | None = None
    until: str | None = None
    """RFC 3339."""
    before: Id | None = None
    """Only events before this position; used for paging."""
    limit: Limit = 100


class At(Request, frozen=True, kw_only=True):
    until: str
    """A position or an RFC 3339 time."""
    agent: str | None = None
    """Only rows about this agent."""


class Why(Request, frozen=True, kw_only=True):
    subject: Literal["agent", "message", "question", "approval"]
    name: str


class Search(Request, frozen=True, kw_only=True):
    text: str
    agent: str | None = None
    """Only what it said or was told."""
    kind: str | None = None
    limit: Limit = 100


class Inbox(Request, frozen=True, kw_only=True):
    name: str


class Metrics(Request, frozen=True, kw_only=True):
    token: str


async def audit_events(session: HostSession, request: AuditEvents) -> Reply:
    rows, head = await asyncio.to_thread(_matching, session.services.paths, request)
    return {"events": [_event(row) for row in rows], "head": head}


def _matching(paths: Paths, request: AuditEvents) -> tuple[list[Row], int]:
    clauses, values = ["1"], list[object]()

    def only(clause: str, *given: object) -> None:
        clauses.append(clause)
        values.extend(given)

    if request.types:
        only(f"type IN ({','.join('?' * len(request.types))})", *request.types)
    if request.agent:
        keys = ("agent", "from", "to", "asker", "target")
        about = " OR ".join(f"data ->> '{key}' = ?" for key in keys)
        only(f"(by = ? OR {about})", f"agent:{request.agent}", *[request.agent] * len(keys))
    if request.person:
        only("(by = ? OR substr(by, 1, ?) = ?)", *_by_person(request.person))
    if request.since:
        only("at >= ?", rfc3339(parse_rfc3339(request.since)))
    if request.until:
        only("at <= ?", rfc3339(parse_rfc3339(request.until)))
    if request.before is not None:
        only("seq < ?", request.before)
    reader = LogReader(paths.state, daemon_runs=True)
    try:
        rows = list(reader.where(" AND ".join(clauses), tuple(values), newest=min(request.limit, ROWS_MAX)))
        return rows, reader.head().seq
    finally:
        reader.close()


def _by_person(name: str) -> tuple[str, int, str]:
    whole = f"operator:{name}"
    return whole, len(whole) + 1, f"{whole} "


async def audit_state(session: HostSession, request: At) -> Reply:
    """Every projection as of a position or time. A child process folds the log."""
    if "\0" in request.until:  # A process argument cannot contain NUL.
        raise BadRequest(f"{request.until!r} is neither a position nor a time.")
    if request.agent is not None and not is_agent_name(request.agent):
        raise BadRequest(f"{request.agent!r} is not an agent name.")
    about = () if request.agent is None else (f"--agent={request.agent}",)
    raw = await _child(session.services.paths, "audit", "replay", f"--until={request.until}", *about)
    return {"replay": raw}


async def why(session: HostSession, request: Why) -> Reply:
    found = await asyncio.to_thread(_explained, session.services.paths, request)
    gaps = {"cannot_tell": found.gaps} if found.gaps else {}
    return {"events": [_event(row) for row in found.rows], **gaps}


def _explained(paths: Paths, request: Why) -> Explanation:
    reader = LogReader(paths.state, daemon_runs=True)
    try:
        return explain(reader, request.subject, request.name)
    finally:
        reader.close()


async def search(session: HostSession, request: Search) -> Reply:
    """The newest texts that match. A child process brings the index up to date."""
    if "\0" in request.text + (request.agent or "") + (request.kind or ""):
        raise BadRequest("Search for text without NUL characters.")
    agent = () if request.agent is None else (f"--agent={request.agent}",)
    kind = () if request.kind is None else (f"--kind={request.kind}",)
    limit = f"--limit={min(request.limit, ROWS_MAX)}"
    return {"hits": await _child(session.services.paths, "search", limit, *agent, *kind, text=request.text)}


async def doctor(session: HostSession, _: Request) -> Reply:
    return {"facts": await _child(session.services.paths, "doctor")}


_children = asyncio.Semaphore(CHILDREN_MAX)


async def _child(paths: Paths, *command: str, text: str | None = None) -> msgspec.Raw:
    """Run a `hive` command, with `text` as its last argument, and return the JSON that it prints.

    Raises:
        BadRequest: with the command's error. Unavailable: it took too long.
    """
    folders = ("--state", str(paths.state), "--run", str(paths.run))
    last = () if text is None else ("--", text)
    async with _children:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "hive", *command, "--json", *folders, *last),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(CHILD_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise Unavailable(
                f"The command took over {CHILD_TIMEOUT_S:.0f} s; run `hive {' '.join(command)}` yourself."
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
    if not out or len(out) > CHILD_OUTPUT_MAX_BYTES:
        raise BadRequest(err.decode(errors="replace").strip().removeprefix("hive: ") or "The command printed nothing.")
    return msgspec.Raw(out.strip())


async def agent_inbox(session: HostSession, request: Inbox) -> Reply:
    """Messages in flight and waiting of an agent, oldest first, with their state."""
    name = request.name

    def rows(hive: Hive) -> list[dict[str, Any]]:
        messages = [*hive.messages.in_flight(name), *hive.messages.waiting(name, INBOX_MAX)]
        return [{**views.message(row), "state": row.state} for row in messages]

    return {"inbox": await session.services.journal.read(rows)}


async def webhook_status(session: HostSession, _: Request) -> Reply:
    """The webhook's host (the rest of the URL may hold a secret) and the newest delivery."""
    url = session.services.settings().webhook.url
    if url is None:
        return {}
    newest = AuditEvents(types=("NotificationDelivered", "NotificationFailed"), limit=1)
    rows, _head = await asyncio.to_thread(_matching, session.services.paths, newest)
    last = f"{rows[0].type} at {rows[0].at}" if rows else None
    parts = urlsplit(url)
    return {"url": f"{parts.scheme}://{parts.hostname}/…", "last": last}


async def webhook_test(session: HostSession, _: Request) -> Reply:
    """Send a test notification now, without retries.

    Raises:
        Refused: no webhook is configured, or the delivery failed.
    """
    url = session.services.settings().webhook.url
    if url is None:
        raise Refused("No webhook is configured; set [webhook] url in hive.toml.")
    told = Notification(
        "test", session.by.name, "hive", f"Test notification, requested by {session.by.name}.", "/settings"
    )
    error: str | None = None
    try:
        await asyncio.to_thread(deliver, url, told, session.services.dashboard_url())
    except NotTaken as refusal:
        error = str(refusal)
    await session.services.journal.ask(
        RecordNotification(by=session.by, topic="test", subject=told.subject, error=error)
    )
    if error is not None:
        raise Refused(f"The delivery failed. {error}")
    return {}


async def metrics(session: HostSession, request: Metrics) -> Reply:
    """Metrics for a monitor that has the token of `dashboard.metrics_token_file`.

    Raises:
        SignedOut: wrong token, or no token is configured.
    """
    settings, state = session.services.settings(), session.services.paths.state
    file = settings.dashboard.metrics_token_file
    if file is None:
        raise SignedOut("Metrics need a session, or a token file set as dashboard.metrics_token_file in hive.toml.")
    wanted = await asyncio.to_thread(host_settings.secret, state, file)
    if not hmac.compare_digest(wanted.encode(), request.token.encode(errors="surrogatepass")):
        raise SignedOut("The metrics token is wrong.")
    return await figures(session, request)


async def figures(session: HostSession, _: Request) -> Reply:
    """The same metrics, for a signed-in operator."""
    now, paths = session.services.clock.now_ms(), session.services.paths
    status = session.services.swarm
    found, swarm = await session.services.journal.read(lambda hive: (_figures(hive, now), swarm_figures(status, hive)))
    if swarm is not None:
        found["swarm"] = swarm
    found["log_bytes"] = await asyncio.to_thread(_log_bytes, paths)
    found["commit_seconds"] = session.services.journal.latencies()
    return {"metrics": found}


def _figures(hive: Hive, now: TimeMs) -> dict[str, Any]:
    states = dict.fromkeys(("failed", "needs login", "paused", "stopped", "running"), 0)
    living = hive.agents.living()
    for row in living:
        states[views.state_of(row)] += 1
    since = now // HOUR_MS - DAY_HOURS + 1
    today = [row for row in hive.turns.hours if row.hour >= since]
    for_operator = [row.asked_ms for row in hive.questions.pending() if row.target is None]
    approvals = [row.requested_ms for row in hive.approvals.pending()]
    return {
        "seq": hive.seq,
        "agents": states,
        "transient": len(hive.transient.held.rows),
        "queue": {row.name: hive.messages.waiting_count(row.name) for row in living},
        "in_flight": {row.name: len(hive.messages.in_flight(row.name)) for row in living},
        "questions_pending": len(for_operator),
        "questions_oldest_seconds": (now - min(for_operator, default=now)) / MS_PER_S,
        "approvals_pending": len(approvals),
        "approvals_oldest_seconds": (now - min(approvals, default=now)) / MS_PER_S,
        "turns_24h": sum(row.turns for row in today),
        "turns_failed_24h": sum(row.failed for row in today),
        **{f"{name}_24h": sum(getattr(row, name) for row in today) for name in TOKEN_COLUMNS},
    }


def _log_bytes(paths: Paths) -> int:
    files = (paths.events, paths.events.with_name(paths.events.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _event(row: Row) -> dict[str, Any]:
    data = msgspec.Raw(row.data.encode())
    return {"seq": row.seq, "at": row.at, "type": row.type, "data": data, "by": row.by, "hash": row.hash.hex()}


AUDIT_VERBS: Final[dict[str, HostVerb]] = {
    "audit_events": HostVerb(AuditEvents, audit_events),
    "audit_state": HostVerb(At, audit_state),
    "why": HostVerb(Why, why),
    "search": HostVerb(Search, search),
    "doctor": HostVerb(Request, doctor),
    **STATS_VERBS,
    "agent_inbox": HostVerb(Inbox, agent_inbox),
    "webhook_status": HostVerb(Request, webhook_status),
    "webhook_test": HostVerb(Request, webhook_test),
    "metrics": HostVerb(Metrics, metrics),
    "figures": HostVerb(Request, figures),
}
