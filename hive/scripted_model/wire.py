"""Renders a reply as the Messages API does: one JSON message, or the server-sent events of a stream."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from hive.scripted_model.answers import Fault, Reply, Text, Usage

CHARACTERS_PER_TOKEN = 4
TEXT_CHUNK_CHARACTERS = 24
UNCACHED_INPUT_TOKENS = 4

_ids = itertools.count(1)


def tokens_of(value: Any) -> int:
    """An estimate: one token for each four characters of JSON."""
    return max(1, len(json.dumps(value, ensure_ascii=False)) // CHARACTERS_PER_TOKEN)


def usage_of(reply: Reply, prompt_tokens: int, cached_tokens: int) -> Usage:
    """Usage of a request whose first `cached_tokens` tokens are in the cache."""
    if reply.usage is not None:
        return reply.usage
    read = min(cached_tokens, max(0, prompt_tokens - UNCACHED_INPUT_TOKENS))
    return Usage(
        input_tokens=UNCACHED_INPUT_TOKENS,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=max(0, prompt_tokens - read - UNCACHED_INPUT_TOKENS),
        output_tokens=sum(tokens_of(block.text if isinstance(block, Text) else block.input) for block in reply.blocks),
    )


def message(reply: Reply, model: str, usage: Usage) -> dict[str, Any]:
    """The complete answer, for a request without `stream`."""
    content: list[dict[str, Any]] = []
    for block in reply.blocks:
        if isinstance(block, Text):
            content.append({"type": "text", "text": block.text})
        else:
            content.append(
                {"type": "tool_use", "id": f"toolu_{next(_ids):024d}", "name": block.tool, "input": block.input}
            )
    calls = any(block["type"] == "tool_use" for block in content)
    return {
        "id": f"msg_{next(_ids):024d}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input_tokens,
            "cache_creation_input_tokens": usage.cache_creation_input_tokens,
            "cache_read_input_tokens": usage.cache_read_input_tokens,
            "output_tokens": usage.output_tokens,
        },
    }


def events(whole: dict[str, Any]) -> Iterator[bytes]:
    """The message as server-sent events, one bytes object each, so that a stream can be cut between two."""
    usage = whole["usage"]
    start = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield _event({"type": "message_start", "message": start})
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            yield _event({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}})
            for at in range(0, len(block["text"]), TEXT_CHUNK_CHARACTERS):
                chunk = block["text"][at : at + TEXT_CHUNK_CHARACTERS]
                yield _delta(index, {"type": "text_delta", "text": chunk})
        else:
            yield _event({"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}})
            yield _delta(index, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])})
        yield _event({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}})
    yield _event({"type": "message_stop"})


def error(fault: Fault) -> dict[str, Any]:
    """The body of an error answer."""
    return {"type": "error", "error": {"type": fault.kind, "message": fault.message}, "request_id": f"req_{next(_ids)}"}


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
