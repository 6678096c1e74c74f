"""Reads model and usage from the answers of model APIs while they pass, streamed or whole."""

import re
from typing import Any, Final

import msgspec

from hive.broker.wire import Shape, Used

LINE_MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a server-sent event; a longer one is not read."""
BODY_MAX_BYTES: Final = 64 * 1024 * 1024
"""Of an answer that is not streamed; a longer one is counted by its length."""
BYTES_PER_TOKEN: Final = 4
"""For estimates, where an answer was cut or names no usage."""
DELTA_FRAME_BYTES: Final = 90
"""What an event with a piece of text has beside the text."""
MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]{1,128})"')
UNKNOWN_MODEL: Final = "unknown"
CHUNK_BYTES: Final = 64 * 1024


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None
    input_tokens_details: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    """One event of either API: Anthropic's and OpenAI's Responses nest the message, chat completions do not."""

    type: str = ""
    message: _Message | None = None
    response: _Message | None = None
    model: str | None = None
    usage: _Usage | None = None


_event = msgspec.json.Decoder(_Event, strict=False)


class Meter:
    """Of one answer. `feed` what passes, then take `used`."""

    def __init__(self, shape: Shape, *, streamed: bool, asked_model: str | None, asked_bytes: int) -> None:
        """`asked_model` and `asked_bytes` are the request's, for an answer that names no model or no usage."""
        self._shape = shape
        self._streamed = streamed
        self._model = asked_model
        self._asked_bytes = asked_bytes
        self._usage: _Usage | None = None
        self._is_final = False
        self._rest = bytearray()
        self._estimate = 0
        self._skips = False

    def feed(self, data: bytes) -> None:
        if not self._streamed:
            self._estimate += len(data) // BYTES_PER_TOKEN
            if len(self._rest) <= BODY_MAX_BYTES:
                self._rest += data
            return
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in lines:
            if not self._skips and line.startswith(b"data:"):
                self._read(bytes(line[5:]))
            self._skips = False
        if len(self._rest) > LINE_MAX_BYTES:
            self._rest.clear()
            self._skips = True

    def _read(self, data: bytes) -> None:
        # Most events are a few characters of text; only those that can hold a usage are decoded.
        if b"_delta" in data or b'"delta"' in data:
            self._estimate += max(1, (len(data) - DELTA_FRAME_BYTES) // BYTES_PER_TOKEN)
        if b'"usage"' not in data and b'"model"' not in data:
            return
        try:
            event = _event.decode(data)
        except msgspec.DecodeError:
            return
        inner = event.message or event.response
        self._model = (inner and inner.model) or event.model or self._model
        self._take(None if inner is None else inner.usage)
        self._take(event.usage)
        if event.usage is not None or event.type in ("response.completed", "response.incomplete"):
            self._is_final = True

    def _take(self, usage: _Usage | None) -> None:
        """Counts are cumulative: the largest is the newest."""
        if usage is None:
            return
        known = self._usage or _Usage()
        for name in ("input_tokens", "output_tokens", "prompt_tokens", "completion_tokens"):
            setattr(known, name, max(getattr(known, name), getattr(usage, name)))
        for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):
            setattr(known, name, max(getattr(known, name) or 0, getattr(usage, name) or 0))
        known.prompt_tokens_details = usage.prompt_tokens_details or known.prompt_tokens_details
        known.input_tokens_details = usage.input_tokens_details or known.input_tokens_details
        self._usage = known

    def used(self, agent: str) -> Used:
        """What the answer cost. If its end is missing, the output is estimated from what passed."""
        if not self._streamed and self._rest:
            self._read(bytes(self._rest))
        usage = self._usage or _Usage()
        output = usage.output_tokens or usage.completion_tokens
        if not self._is_final:
            output = max(output, self._estimate)
        cached = usage.cache_read_input_tokens or 0
        whole = usage.input_tokens
        if self._shape == "openai":  # Its input counts include what was read from the cache.
            details = usage.prompt_tokens_details or usage.input_tokens_details or {}
            said = details.get("cached_tokens")
            cached = said if isinstance(said, int) else 0
            whole = max(0, (usage.prompt_tokens or usage.input_tokens) - cached)
        if self._usage is None:
            whole = self._asked_bytes // BYTES_PER_TOKEN
        return Used(
            agent=agent,
            model=self._model or UNKNOWN_MODEL,
            input_tokens=whole,
            output_tokens=output,
            cache_read_tokens=cached,
            cache_creation_tokens=usage.cache_creation_input_tokens or 0,
        )


def asked_model(head_of_body: bytes) -> str | None:
    """The model that a request names; only for answers that name none."""
    found = MODEL.search(head_of_body[:CHUNK_BYTES])
    return found.group(1).decode(errors="replace") if found else None


class Redactor:
    """Replaces secrets in passing data by as many stars. What may be the start of one waits for the next piece."""

    def __init__(self, *secrets: str | None) -> None:
        self._secrets = [secret.encode() for secret in secrets if secret]
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        keep = 0
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
            keep = max(keep, _started(secret, data))
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def rest(self) -> bytes:
        held, self._held = self._held, b""
        return held


def _started(secret: bytes, data: bytes) -> int:
    """The length of the longest start of the secret that the data ends with."""
    longest = min(len(secret) - 1, len(data))
    return next((length for length in range(longest, 0, -1) if data.endswith(secret[:length])), 0)
