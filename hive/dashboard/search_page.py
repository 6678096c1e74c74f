"""Full-text search for people, and the same as JSON."""

from typing import Any

from litestar import Response, get

from hive.dashboard.daemon import Declined, Operator
from hive.dashboard.view import Pages
from hive.search.texts import KINDS


@get("/audit/search")
async def search(operator: Operator, pages: Pages, q: str = "", agent: str = "", kind: str = "") -> Response[str]:
    """What was said, newest first."""
    snapshot = await operator.ask("state")
    hits, error = list[dict[str, Any]](), None
    if q.strip():
        try:
            hits = await _hits(operator, q, agent, kind)
        except Declined as refusal:
            error = str(refusal)
    given = {"q": q, "agent": agent, "kind": kind}
    return pages.page("search.html", operator, snapshot, given=given, hits=hits, kinds=KINDS, error=error)


@get("/api/search")
async def api_search(operator: Operator, q: str, agent: str = "", kind: str = "") -> dict[str, Any]:
    """The newest events whose text matches."""
    return {"hits": await _hits(operator, q, agent, kind)}


async def _hits(operator: Operator, text: str, agent: str, kind: str) -> list[dict[str, Any]]:
    found = await operator.ask("search", text=text, agent=agent.strip() or None, kind=kind or None)
    hits: list[dict[str, Any]] = found["hits"]
    return hits


HANDLERS = [search, api_search]
