"""Replies: JSON for scripts, a page or a redirect for browsers, and an HTTP status for each error code."""

from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from litestar import Request, Response
from litestar.enums import MediaType
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from hive.config.escaping import escaped
from hive.dashboard.daemon import DaemonAway, Declined, Operator

log = structlog.get_logger()

STATUS_OF: Final = {
    "bad_request": 400,
    "signed_out": 401,
    "not_yours": 403,
    "not_found": 404,
    "already_done": 409,
    "refused": 409,
    "limit_reached": 429,
    "unavailable": 503,
    "internal": 500,
}
NEXT_MAX_CHARS: Final = 500

AnyRequest = Request[Any, Any, Any]


def wants_json(request: AnyRequest) -> bool:
    return "text/html" not in request.headers.get("accept", "")


def local_path(path: str) -> str:
    """The path if it belongs to this dashboard; `/` if it leads elsewhere."""
    parts = urlsplit(path)
    odd = any(character <= " " or character == "\\" for character in path)
    if odd or parts.scheme or parts.netloc or not path.startswith("/") or path.startswith("//"):
        return "/"
    return path if len(path) <= NEXT_MAX_CHARS else "/"


async def decided(request: AnyRequest, operator: Operator, said: str, cmd: str, /, **fields: Any) -> Response[Any]:
    """Forward a decision to the daemon, then reply with a message, or redirect a form sent without JavaScript."""
    reply = await operator.ask(cmd, **fields)
    return done(request, said, reply)


def done(request: AnyRequest, said: str, reply: dict[str, Any] | None = None) -> Response[Any]:
    if wants_json(request):
        more = {key: value for key, value in (reply or {}).items() if key not in ("version", "ok")}
        return Response({"ok": True, "message": said, **more})
    back = urlsplit(request.headers.get("referer", ""))
    onward = f"{back.path}?{back.query}" if back.query else back.path or "/"
    return Redirect(local_path(onward), status_code=303)


def on_declined(request: AnyRequest, error: Declined) -> Response[Any]:
    return _refusal(request, STATUS_OF.get(error.reason, 409), str(error))


def on_away(request: AnyRequest, error: DaemonAway) -> Response[Any]:
    return _refusal(request, 503, str(error))


def on_http_error(request: AnyRequest, error: HTTPException) -> Response[Any]:
    found = getattr(error, "extra", None)
    what = [f"{one.get('key', '')}: {one.get('message', '')}" for one in found or () if isinstance(one, dict)]
    return _refusal(request, error.status_code, "; ".join(what) or error.detail or "The request failed.")


def on_mistake(request: AnyRequest, error: Exception) -> Response[Any]:
    """An internal error fails one request, never the process; the details go only to the log."""
    log.error("dashboard.mistake", path=request.url.path, exc_info=error)
    return _refusal(request, 500, "Internal error in the dashboard. The daemon's log has the details.")


def _refusal(request: AnyRequest, status: int, why: str) -> Response[Any]:
    if wants_json(request):
        return Response({"ok": False, "error": escaped(why)}, status_code=status)
    pages = request.app.state["pages"]
    if request.url.path == "/login":
        content = pages.drawn("login.html", next="/", error=why)
    else:
        content = pages.drawn("refusal.html", status=status, why=why)
    return Response(content, status_code=status, media_type=MediaType.HTML)
