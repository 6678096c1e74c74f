"""One agent's page, rendered from data only: state, inbox, live terminal, controls, configuration, container log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from litestar import Response, get, post
from litestar.exceptions import NotFoundException
from litestar.response import Stream
from msgspec import Struct

from hive.config.escaping import escaped
from hive.dashboard.daemon import DaemonAway, Declined, Operator
from hive.dashboard.decisions import Form
from hive.dashboard.live import event_stream, sse
from hive.dashboard.replies import AnyRequest, decided
from hive.dashboard.view import Pages

LOG_LINES: Final = 200
LOG_LINES_MAX: Final = 5_000
CONFIG_EVENTS: Final = ("Rebuilt", "ApprovalResolved", "ProposalPinned", "ApprovalFailed")
CONFIG_HISTORY: Final = 20
RECENT_MESSAGES: Final = 30
LOGIN_HOSTS: Final = ("claude.ai", "claude.com", "anthropic.com")
"""Hosts to which a login URL may link; any other URL is shown as text."""
MODELS: Final = ("opus", "sonnet", "haiku")
"""The CLI's short names, which the model picker suggests; any other text is accepted too."""


class Prompt(Struct):
    body: str


class Model(Struct):
    model: str = ""
    """An empty string selects the model of the configuration."""


class Code(Struct):
    code: str


@get("/agent/{name:str}")
async def page(operator: Operator, pages: Pages, name: str) -> Response[str]:
    """The page. All data comes from the daemon, never from a server of the agent."""
    snapshot = await operator.ask("state")
    row = _row(snapshot, name)
    inbox, recent = await _messages(operator, name)
    config = await _config(operator, name)
    changes = await operator.ask("audit_events", types=list(CONFIG_EVENTS), agent=name, limit=CONFIG_HISTORY)
    log = await operator.ask("logs", name=name, lines=LOG_LINES)
    network = await operator.ask("egress", agent=name)
    state = snapshot["state"]
    return pages.page(
        "agent.html",
        operator,
        snapshot,
        row=row,
        inbox=inbox,
        recent=recent,
        config=config,
        changes=list(reversed(changes["events"])),
        log=log["lines"],
        network=network,
        models=MODELS,
        turns=[turn for turn in reversed(state["turns"]) if turn["agent"] == name],
        threads=[one for one in state["questions"] if name in (one["asker"], one["target"])],
    )


async def _messages(operator: Operator, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Messages that wait or are in a turn, oldest first, and earlier messages, newest first."""
    inbox = (await operator.ask("agent_inbox", name=name))["inbox"]
    newest = (await operator.ask("messages", agent=name, limit=RECENT_MESSAGES))["messages"]
    unread = {message["id"] for message in inbox}
    return inbox, [message for message in reversed(newest) if message["id"] not in unread]


def _row(snapshot: dict[str, Any], name: str) -> dict[str, Any]:
    for row in snapshot["state"]["agents"]:
        if row["name"] == name:
            return dict(row)
    raise NotFoundException(f"There is no agent {name}.")


async def _config(operator: Operator, name: str) -> dict[str, Any]:
    try:
        return dict((await operator.ask("config", name=name))["config"])
    except Declined as error:
        return {"revision": None, "files": [], "error": str(error)}


@get("/agent/{name:str}/api/state")
async def agent_state(operator: Operator, name: str) -> dict[str, Any]:
    """The state row, the inbox, and recently read messages."""
    snapshot = await operator.ask("state")
    row = _row(snapshot, name)
    inbox, recent = await _messages(operator, name)
    return {"reachable": True, "seq": snapshot["seq"], "agent": row, "inbox": inbox, "recent": recent}


@get("/agent/{name:str}/stream")
async def stream(operator: Operator, name: str) -> Stream:
    """The turn stream as server-sent events: first `history`, then `lines`."""
    await operator.ask("live", name=name)  # An unknown agent is an error, not an empty stream.
    return event_stream(_lines(operator, name))


async def _lines(operator: Operator, name: str) -> AsyncIterator[bytes]:
    kind = "history"
    with contextlib.suppress(DaemonAway, Declined):
        async for reply in operator.follow("live", name=name, follow=True):
            yield sse([_shown(line) for line in reply["lines"]], event=kind)
            kind = "lines"
            await asyncio.sleep(0)


def _shown(line: Any) -> dict[str, Any]:
    """A line of the stream for the page: an object whose texts are escaped."""
    if not isinstance(line, dict):
        return {"type": "text", "text": escaped(str(line))}
    safe = {escaped(str(key)): escaped(value) if isinstance(value, str) else value for key, value in line.items()}
    url = line.get("url")
    if isinstance(url, str):
        parts = urlsplit(url)
        host = parts.hostname or ""
        safe["link"] = parts.scheme == "https" and any(host == one or host.endswith(f".{one}") for one in LOGIN_HOSTS)
    return safe


@get("/api/journal/{name:str}")
async def journal(operator: Operator, name: str, lines: int = LOG_LINES) -> dict[str, Any]:
    """The container's log, newest lines last."""
    reply = await operator.ask("logs", name=name, lines=max(0, min(lines, LOG_LINES_MAX)))
    return {"lines": [escaped(line) for line in reply["lines"]]}


@get("/api/config/{name:str}")
async def config(operator: Operator, name: str) -> dict[str, Any]:
    """The applied configuration."""
    return dict((await operator.ask("config", name=name))["config"])


@post("/agent/{name:str}/send", status_code=200)
async def send(request: AnyRequest, operator: Operator, name: str, data: Annotated[Prompt, Form]) -> Response[Any]:
    """Send a message to this agent."""
    return await decided(request, operator, f"Sent to {name}.", "send", to=name, body=data.body)


@post("/agent/{name:str}/cancel", status_code=200)
async def cancel(request: AnyRequest, operator: Operator, name: str) -> Response[Any]:
    """Cancel the current turn."""
    return await decided(request, operator, "The turn is being cancelled.", "control", name=name, action="cancel")


@post("/agent/{name:str}/model", status_code=200)
async def model(request: AnyRequest, operator: Operator, name: str, data: Annotated[Model, Form]) -> Response[Any]:
    """Select the model; the choice persists across restarts."""
    value = data.model.strip() or None
    said = f"{name} uses {value or 'the model of its configuration'}."
    return await decided(request, operator, said, "control", name=name, action="model", value=value)


@post("/agent/{name:str}/compact", status_code=200)
async def compact(request: AnyRequest, operator: Operator, name: str) -> Response[Any]:
    """Compact the conversation."""
    said = "The conversation is being compacted."
    return await decided(request, operator, said, "control", name=name, action="compact")


@post("/agent/{name:str}/new-session", status_code=200)
async def new_session(request: AnyRequest, operator: Operator, name: str) -> Response[Any]:
    """Start a new conversation with the next turn."""
    said = "The next turn starts a new session."
    return await decided(request, operator, said, "control", name=name, action="new_session")


@post("/agent/{name:str}/login/start", status_code=200)
async def login_start(request: AnyRequest, operator: Operator, name: str) -> Response[Any]:
    """Start the CLI's login; its URL appears in the stream."""
    said = "The login starts. Its URL appears in the terminal."
    return await decided(request, operator, said, "control", name=name, action="login_start")


@post("/agent/{name:str}/login/code", status_code=200)
async def login_code(request: AnyRequest, operator: Operator, name: str, data: Annotated[Code, Form]) -> Response[Any]:
    """Send the login code."""
    said = "The code was sent."
    return await decided(request, operator, said, "control", name=name, action="login_code", value=data.code.strip())


HANDLERS = [
    page,
    agent_state,
    stream,
    journal,
    config,
    send,
    cancel,
    model,
    compact,
    new_session,
    login_start,
    login_code,
]
