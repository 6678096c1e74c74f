"""The answers that scripts are built from: replies with text and tool calls, and API errors."""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Text of the model. `{name}` is replaced with a value captured by an earlier step."""

    text: str


class Call(msgspec.Struct, frozen=True, tag="call"):
    """One tool call. A hive tool may be named without prefix (`send`); input strings may contain `{name}`."""

    tool: str
    input: dict[str, Any]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token usage of one request, as the API reports it."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the model. It ends the turn unless it contains a call."""

    blocks: tuple[Text | Call, ...]
    wait_s: float = 0.0
    """Delay before the first byte."""
    pause_s: float = 0.0
    """Delay before each streamed event: a slow answer."""
    drop_after_events: int | None = None
    """Close the connection after this many streamed events; None: complete the stream."""
    usage: Usage | None = None
    """None: estimate it from the request and the reply."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the API."""

    status: int
    kind: str
    message: str
    headers: dict[str, str] = {}


class Hang(msgspec.Struct, frozen=True, kw_only=True):
    """Accept the request, send nothing, then close the connection."""

    seconds: float


Answer = Reply | Fault | Hang


def say(text: str, *, wait_s: float = 0.0, pause_s: float = 0.0, drop_after_events: int | None = None) -> Reply:
    """Reply with a text; this ends the turn."""
    return Reply(blocks=(Text(text),), wait_s=wait_s, pause_s=pause_s, drop_after_events=drop_after_events)


def call(tool: str, /, **arguments: Any) -> Reply:
    """Call one tool; the turn continues with its result."""
    return Reply(blocks=(Call(tool, arguments),))


def calls(*made: tuple[str, dict[str, Any]], text: str = "") -> Reply:
    """Call several tools in one message."""
    words: tuple[Text | Call, ...] = (Text(text),) if text else ()
    return Reply(blocks=words + tuple(Call(tool, arguments) for tool, arguments in made))


def unauthorized() -> Fault:
    """401: the key is refused."""
    return Fault(status=401, kind="authentication_error", message="invalid x-api-key")


def rate_limited(*, for_s: float) -> Fault:
    """429 with a limit that ends after this many seconds, and the headers that say so."""
    reset = time.time() + for_s
    return Fault(
        status=429,
        kind="rate_limit_error",
        message="This request would exceed your account's rate limit. Please try again later.",
        headers={
            "retry-after": str(max(1, round(for_s))),
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-reset": str(round(reset)),
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-requests-reset": datetime.fromtimestamp(reset, UTC).isoformat().replace("+00:00", "Z"),
        },
    )


def overloaded() -> Fault:
    """529: the API is overloaded."""
    return Fault(status=529, kind="overloaded_error", message="Overloaded")


def server_error() -> Fault:
    """500: an internal error of the API."""
    return Fault(status=500, kind="api_error", message="Internal server error")


def prompt_too_long() -> Fault:
    """400: the prompt is too long."""
    return Fault(status=400, kind="invalid_request_error", message="prompt is too long: 214312 tokens > 200000 maximum")


def dropped(text: str = "I was about to say", *, after_events: int = 3) -> Reply:
    """Start the answer, then close the connection."""
    return say(text, drop_after_events=after_events)


def hang(seconds: float = 3600.0) -> Hang:
    """Never answer the request."""
    return Hang(seconds=seconds)
