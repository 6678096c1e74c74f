"""Requests to model APIs: the key is added here, the answer is metered, a budget that is used up refuses."""

import re
from typing import Final

import h11
import msgspec

from hive.broker.agent import Agent
from hive.broker.metering import Meter, Redactor, asked_model
from hive.broker.origin import Origin, Origins
from hive.broker.relay import UpstreamGone, relay
from hive.broker.streams import Headers, HttpStream, end_to_end
from hive.broker.wire import Provider, Shape, Used

PREFIX: Final = "/model/"
IDENTITY: Final = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"cookie",
        b"anthropic-organization-id",
        b"anthropic-workspace-id",
        b"openai-organization",
        b"openai-project",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    }
)
"""Headers that name a key or an organization. An agent cannot choose whose request it is."""
METERED: Final[dict[Shape, frozenset[str]]] = {
    "anthropic": frozenset({"/v1/messages"}),
    "openai": frozenset({"/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"}),
}
FREE: Final[dict[Shape, re.Pattern[str]]] = {
    "anthropic": re.compile(r"/v1/messages/count_tokens|/v1/models(/[\w.:-]+)?"),
    "openai": re.compile(r"/v1/models(/[\w.:-]+)?"),
}
"""What costs nothing. Anything else with the operator's key (files, batches, administration) is refused."""
REFUSED_STATUS: Final = 400
"""Not 401, 402 or 403, which clients take for a bad login; not 429 or 5xx, which they repeat."""


class ModelWatch:
    """Meters one answer and keeps the key out of it."""

    def __init__(self, agent: Agent, provider: Provider, metered: bool) -> None:
        self._agent = agent
        self._provider = provider
        self._metered = metered
        self._redactor = Redactor(provider.key)
        self._meter: Meter | None = None

    def head(self, response: h11.Response, sent_bytes: int, head_of_body: bytes) -> None:
        if not self._metered:
            return
        if response.status_code >= 400:
            self._metered = False
            model = asked_model(head_of_body) or "unknown"
            self._agent.report(Used(agent=self._agent.name, model=model, errors=1))
            return
        kind = dict(response.headers).get(b"content-type", b"")
        streamed = kind.startswith(b"text/event-stream")
        self._meter = Meter(
            self._provider.shape, streamed=streamed, asked_model=asked_model(head_of_body), asked_bytes=sent_bytes
        )

    def data(self, data: bytes) -> bytes:
        if self._meter is not None:
            self._meter.feed(data)
        return self._redactor.feed(data)

    def rest(self) -> bytes:
        return self._redactor.rest()

    def settle(self) -> None:
        """The exchange is over, one way or another."""
        if self._meter is not None:
            self._agent.report(self._meter.used(self._agent.name))


async def serve_model(client: HttpStream, request: h11.Request, target: str, agent: Agent, origins: Origins) -> None:
    """Answer one request under `/model/NAME/…`. Raises Gone, h11.ProtocolError."""
    name, _, rest = target.removeprefix(PREFIX).partition("/")
    provider = next((one for one in agent.policy.providers if one.name == name), None)
    if provider is None:
        await client.discard_body()
        await _refuse(client, "anthropic", 404, f'hive: no model provider "{name}" is set up.', "not_found_error")
        return
    path, question, query = ("/" + rest).partition("?")
    method = request.method.decode("ascii", "replace")
    refusal = _refusal(agent, provider, method, path)
    if refusal is not None:
        await client.discard_body()
        await _refuse(client, provider.shape, REFUSED_STATUS, refusal, "invalid_request_error")
        return
    watch = ModelWatch(agent, provider, method == "POST" and path in METERED[provider.shape])
    origin = Origin.parse(provider.url)
    try:
        upstream = await origins.take(origin)
    except UpstreamGone as error:
        await client.discard_body()
        await _refuse(client, provider.shape, 502, f"hive: the model cannot be reached: {error}", "api_error")
        return
    onward = h11.Request(
        method=request.method,
        target=origin.target(path + question + query),
        headers=_headers(list(request.headers), provider, origin),
    )
    try:
        await relay(client, upstream, onward, watch, lambda headers: _answer_headers(headers, provider))
    except UpstreamGone:
        await client.discard_body()
        await _refuse(client, provider.shape, 502, "hive: the model closed the connection.", "api_error")
    finally:
        watch.settle()
        origins.give_back(origin, upstream)


def _refusal(agent: Agent, provider: Provider, method: str, path: str) -> str | None:
    is_metered = method == "POST" and path in METERED[provider.shape]
    if agent.policy.refusal is not None and is_metered:
        return agent.policy.refusal
    if provider.key is None or is_metered or FREE[provider.shape].fullmatch(path):
        return None
    return (
        f"hive: {method} {path[:200]} is not offered. With the operator's key agents may use: "
        f"{', '.join(sorted(METERED[provider.shape]))} and what counts tokens or lists models."
    )


def _headers(headers: Headers, provider: Provider, origin: Origin) -> Headers:
    dropped = {b"host", b"accept-encoding", *IDENTITY}
    if provider.key is None:
        dropped.discard(b"authorization")  # The agent's own login.
    kept = end_to_end(headers, *dropped)
    kept = [(b"host", origin.authority), (b"accept-encoding", b"identity"), *kept]
    if provider.key is not None and provider.shape == "anthropic":
        kept.append((b"x-api-key", provider.key.encode()))
    elif provider.key is not None:
        kept.append((b"authorization", b"Bearer " + provider.key.encode()))
    return kept


def _answer_headers(headers: Headers, provider: Provider) -> Headers:
    key = None if provider.key is None else provider.key.encode()
    return [(name, value) for name, value in headers if name != b"set-cookie" and (key is None or key not in value)]


async def _refuse(client: HttpStream, shape: Shape, status: int, message: str, kind: str) -> None:
    """In the provider's own error shape."""
    error = {"type": kind, "message": message}
    body = (
        {"type": "error", "error": error} if shape == "anthropic" else {"error": {**error, "param": None, "code": None}}
    )
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"x-should-retry", b"false" if status < 500 else b"true"),
    ]
    await client.respond(status, headers, msgspec.json.encode(body))
