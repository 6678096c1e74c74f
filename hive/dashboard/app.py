"""The Litestar application: handlers, dependencies and error handlers. `guard.py` wraps it."""

from typing import Any

from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

import hive
from hive.dashboard import agent_page, audit_page, decisions, live, pages, replies, search_page, sign_in
from hive.dashboard.daemon import Daemon, DaemonAway, Declined, Operator
from hive.dashboard.guard import BODY_MAX_BYTES, ListenAddress
from hive.dashboard.view import Assets, Pages


def operator_of(request: Request[Any, Any, Any]) -> Operator:
    """The operator whom the guard authenticated."""
    operator: Operator = request.scope["state"]["operator"]
    return operator


def built(listen: ListenAddress, daemon: Daemon) -> Litestar:
    """Build the application, without its guard."""
    assets = Assets()
    drawing = Pages(assets)
    return Litestar(
        route_handlers=[
            sign_in.login_page,
            sign_in.sign_in,
            sign_in.sign_out,
            sign_in.healthz,
            sign_in.metrics,
            sign_in.static,
            *pages.HANDLERS,
            *decisions.HANDLERS,
            *agent_page.HANDLERS,
            *audit_page.HANDLERS,
            *search_page.HANDLERS,
            *live.HANDLERS,
        ],
        dependencies={
            "operator": Provide(operator_of, sync_to_thread=False),
            "pages": Provide(lambda: drawing, sync_to_thread=False),
            "assets": Provide(lambda: assets, sync_to_thread=False),
            "daemon": Provide(lambda: daemon, sync_to_thread=False),
            "listen": Provide(lambda: listen, sync_to_thread=False),
        },
        exception_handlers={
            Declined: replies.on_declined,
            DaemonAway: replies.on_away,
            HTTPException: replies.on_http_error,
            Exception: replies.on_mistake,
        },
        state=State({"pages": drawing}),
        openapi_config=OpenAPIConfig(
            title="hive", version=hive.__version__, path="/schema", render_plugins=[JsonRenderPlugin(path="/")]
        ),
        request_max_body_size=BODY_MAX_BYTES,
        logging_config=None,
    )
