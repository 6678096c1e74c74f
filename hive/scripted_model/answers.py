"""What the scripted model can answer: replies with text and tool calls, and every fault. Scripts are made of these."""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Words of the model. `{name}` stands for a value that an earlier step caught."""

    text: str


class Call(msgspec.Struct, frozen=True, tag="call"):
    """One tool call. A hive tool may be named bare (`send`); strings of the input may hold `{name}`."""

    tool: str
    input: dict[str, Any]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one request, as the API reports them."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the model. It ends the turn unless it holds a call."""

    blocks: tuple[Text | Call, ...]
    wait_s: float = 0.0
    """Silence before the first byte."""
    pause_s: float = 0.0
    """Silence before each streamed event: a slow answer."""
    drop_after_events: int | None = None
    """Close the connection after that many streamed events; None lets it end well."""
    usage: Usage | None = None
    """None counts the request and the reply."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the API."""

    status: int
    kind: str
    message: str
    headers: dict[str, str] = {}


class Hang(msgspec.Struct, frozen=True, kw_only=True):
    """Accept the request and say nothing, then close the connection."""

    seconds: float


Answer = Reply | Fault | Hang


def say(text: str, *, wait_s: float = 0.0, pause_s: float = 0.0, drop_after_events: int | None = None) -> Reply:
    """End the turn with a text."""
    return Reply(blocks=(Text(text),), wait_s=wait_s, pause_s=pause_s, drop_after_events=drop_after_events)


def call(tool: str, /, **arguments: Any) -> Reply:
    """Call one tool; the turn goes on with its result."""
    return Reply(blocks=(Call(tool, arguments),))


def calls(*made: tuple[str, dict[str, Any]], text: str = "") -> Reply:
    """Call several tools in one message."""
    words: tuple[Text | Call, ...] = (Text(text),) if text else ()
    return Reply(blocks=words + tuple(Call(tool, arguments) for tool, arguments in made))


def unauthorized() -> Fault:
    """401: the key is refused."""
    return Fault(status=401, kind="authentication_error", message="invalid x-api-key")


def rate_limited(*, for_s: float) -> Fault:
    """429 that ends in so many seconds, with the headers that say when."""
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
    """529: the API has no room now."""
    return Fault(status=529, kind="overloaded_error", message="Overloaded")


def server_error() -> Fault:
    """500: something broke on the other side."""
    return Fault(status=500, kind="api_error", message="Internal server error")


def prompt_too_long() -> Fault:
    """400: the conversation does not fit any more."""
    return Fault(status=400, kind="invalid_request_error", message="prompt is too long: 214312 tokens > 200000 maximum")


def dropped(text: str = "I was about to say", *, after_events: int = 3) -> Reply:
    """Begin to answer, then lose the connection."""
    return say(text, drop_after_events=after_events)


def hang(seconds: float = 3600.0) -> Hang:
    """Never answer."""
    return Hang(seconds=seconds)
