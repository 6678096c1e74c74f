"""Audit pages: the filtered log, one event, the state as of an event, and the events that explain something."""

from typing import Any, Final

from litestar import Response, get
from litestar.exceptions import NotFoundException

from hive.dashboard.daemon import Declined, Operator
from hive.dashboard.view import Pages
from hive.events import EVENT_TYPES

ROWS: Final = 100
SUBJECTS: Final = ("agent", "message", "question", "approval")


@get("/audit")
async def audit(
    operator: Operator,
    pages: Pages,
    type: str = "",
    agent: str = "",
    person: str = "",
    since: str = "",
    until: str = "",
    before: int | None = None,
) -> Response[str]:
    """The newest matching events."""
    snapshot = await operator.ask("state")
    given = {"type": type, "agent": agent, "person": person, "since": since, "until": until}
    error, events, head = None, list[dict[str, Any]](), snapshot["seq"]
    try:
        found = await _found(operator, before, ROWS, **given)
        events, head = list(reversed(found["events"])), found["head"]
    except Declined as refusal:
        error = str(refusal)
    return pages.page(
        "audit.html",
        operator,
        snapshot,
        events=events,
        head=head,
        given=given,
        before=before,
        types=sorted(EVENT_TYPES),
        more=len(events) == ROWS,
        error=error,
        people=sorted(row["name"] for row in snapshot["state"]["operators"]),
    )


async def _found(
    operator: Operator, before: int | None, limit: int, *, type: str, agent: str, person: str, since: str, until: str
) -> dict[str, Any]:
    return await operator.ask(
        "audit_events",
        types=[type] if type else None,
        agent=agent or None,
        person=person or None,
        since=_with_zone(since),
        until=_with_zone(until),
        before=before,
        limit=limit,
    )


def _with_zone(time: str) -> str | None:
    """`<input type=datetime-local>` sends no time zone; treat the value as UTC, like every time on the pages."""
    return None if not time else time if time.endswith("Z") or "+" in time else f"{time}Z"


@get("/audit/{seq:int}")
async def event(operator: Operator, pages: Pages, seq: int) -> Response[str]:
    """One event, with links to the previous and the next one."""
    snapshot = await operator.ask("state")
    found = await operator.ask("audit_events", before=seq + 1, limit=1)
    rows = [row for row in found["events"] if row["seq"] == seq]
    if not rows:
        raise NotFoundException(f"The log has no event {seq}; it ends at {found['head']}.")
    return pages.page("event.html", operator, snapshot, event=rows[0], head=found["head"])


@get("/audit/state")
async def as_of(operator: Operator, pages: Pages, at: str = "", agent: str = "") -> Response[str]:
    """Every projection as of an event or a time, complete or for one agent."""
    snapshot = await operator.ask("state")
    wanted = at.strip() or str(snapshot["seq"])
    replay, error = None, None
    try:
        replay = (await operator.ask("audit_state", until=wanted, agent=agent.strip() or None))["replay"]
    except Declined as refusal:
        error = str(refusal)
    return pages.page(
        "as_of.html", operator, snapshot, at=wanted, agent=agent, replay=replay, error=error, head=snapshot["seq"]
    )


@get("/audit/why")
async def why(operator: Operator, pages: Pages, subject: str = "agent", name: str = "") -> Response[str]:
    """The events that explain an agent, a message, a question or an approval."""
    snapshot = await operator.ask("state")
    found, error = dict[str, Any](), None
    if name.strip():
        try:
            found = await operator.ask("why", subject=subject, name=name.strip())
        except Declined as refusal:
            error = str(refusal)
    return pages.page(
        "why.html",
        operator,
        snapshot,
        subject=subject,
        name=name,
        events=found.get("events", []),
        gaps=found.get("cannot_tell", []),
        error=error,
        subjects=SUBJECTS,
    )


@get("/api/audit")
async def api_audit(
    operator: Operator,
    type: str = "",
    agent: str = "",
    person: str = "",
    since: str = "",
    until: str = "",
    before: int | None = None,
    limit: int = ROWS,
) -> dict[str, Any]:
    """The newest matching events, in ascending order."""
    found = await _found(
        operator, before, max(0, limit), type=type, agent=agent, person=person, since=since, until=until
    )
    return {"events": found["events"], "head": found["head"]}


@get("/api/audit/state")
async def api_as_of(operator: Operator, at: str, agent: str = "") -> dict[str, Any]:
    """Every projection as of an event or a time, complete or for one agent."""
    return {"replay": (await operator.ask("audit_state", until=at, agent=agent or None))["replay"]}


@get("/api/audit/why/{subject:str}/{name:str}")
async def api_why(operator: Operator, subject: str, name: str) -> dict[str, Any]:
    """The events that explain the subject, in order, and what the log cannot tell."""
    found = await operator.ask("why", subject=subject, name=name)
    return {key: found[key] for key in ("events", "cannot_tell") if key in found}


HANDLERS = [audit, event, as_of, why, api_audit, api_as_of, api_why]
