"""Sign-in and sign-out, and the routes that need no session: health, metrics with a token, static files."""

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.enums import MediaType, RequestEncodingType
from litestar.exceptions import NotFoundException
from litestar.params import Body
from litestar.response import Redirect
from msgspec import Struct

from hive.dashboard.daemon import Daemon, DaemonAway, Operator
from hive.dashboard.guard import COOKIE, COOKIE_MAX_AGE_S, ListenAddress
from hive.dashboard.metrics import exposition
from hive.dashboard.replies import local_path, wants_json
from hive.dashboard.view import MEDIA_TYPES, Assets, Pages


class SignInForm(Struct):
    """`token` is an operator's token or the secret of a login link."""

    token: str
    next: str = "/"


class SignOutForm(Struct):
    everywhere: bool = False


@get("/login", include_in_schema=False)
async def login_page(pages: Pages, next: str = "/") -> Response[str]:
    return pages.response("login.html", next=local_path(next), error=None)


@post("/login", status_code=200)
async def sign_in(
    request: Request[Any, Any, Any],
    pages: Pages,
    daemon: Daemon,
    listen: ListenAddress,
    data: Annotated[SignInForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[Any]:
    """Exchange a token for a session."""
    reply = await daemon.ask("sign_in", token=data.token.strip(), source=request.scope["state"]["source"])
    onward = local_path(data.next)
    secure = listen.domain is not None and request.headers.get("host", "").lower() == listen.domain.lower()
    cookie = Cookie(
        key=COOKIE,
        value=reply["session"],
        path="/",
        max_age=COOKIE_MAX_AGE_S,
        httponly=True,
        samesite="strict",
        secure=secure,
    )
    if wants_json(request):
        return Response({"ok": True, "name": reply["name"], "next": onward}, cookies=[cookie])
    return Redirect(onward, status_code=303, cookies=[cookie])


@post("/logout", status_code=200)
async def sign_out(
    request: Request[Any, Any, Any],
    operator: Operator,
    data: Annotated[SignOutForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[Any]:
    """End this session, or every session of this operator."""
    await operator.ask("sign_out", everywhere=data.everywhere)
    gone = Cookie(key=COOKIE, value="", path="/", max_age=0, httponly=True, samesite="strict")
    if wants_json(request):
        return Response({"ok": True, "next": "/login"}, cookies=[gone])
    return Redirect("/login", status_code=303, cookies=[gone])


@get("/healthz")
async def healthz(daemon: Daemon) -> Response[dict[str, str]]:
    """Report whether the daemon answers."""
    try:
        await daemon.ask("health")
    except DaemonAway:
        return Response({"status": "daemon away"}, status_code=503)
    return Response({"status": "ok"})


@get("/metrics", media_type=MediaType.TEXT)
async def metrics(request: Request[Any, Any, Any], daemon: Daemon) -> Response[str]:
    """Metrics for Prometheus; needs a session or the token of `dashboard.metrics_token_file`."""
    operator: Operator | None = request.scope["state"].get("operator")
    if operator is not None:
        reply = await operator.ask("figures")
    else:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        reply = await daemon.ask("metrics", token=token)
    return Response(exposition(reply["metrics"]), media_type="text/plain; version=0.0.4; charset=utf-8")


@get("/static/{name:str}", include_in_schema=False)
async def static(assets: Assets, name: str) -> Response[bytes]:
    if name not in assets.files:
        raise NotFoundException
    suffix = name[name.rfind(".") :]
    return Response(assets.files[name], media_type=MEDIA_TYPES.get(suffix, "application/octet-stream"))
