"""Server-sent events: new events of the log with their positions; a browser resumes with `Last-Event-ID`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import get
from litestar.response import Stream

from hive.dashboard.daemon import DaemonAway, Declined, Operator
from hive.dashboard.replies import AnyRequest

BEAT_S: Final = 5.0
"""Interval of the comments that detect a dead connection."""
RETRY_MS: Final = 1_000
NEWEST: Final = 2**62
"""Greater than any position; a stream that starts here yields only new events."""


def sse(data: Any, *, event: str | None = None, id: int | None = None) -> bytes:
    """Format one event. JSON has no line breaks, so the data is one line."""
    head = (f"event: {event}\n" if event else "") + (f"id: {id}\n" if id is not None else "")
    return head.encode() + b"data: " + msgspec.json.encode(data) + b"\n\n"


def event_stream(events: AsyncIterator[bytes]) -> Stream:
    return Stream(
        _with_beats(events), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}, status_code=200
    )


async def _with_beats(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the events, and a comment whenever no event arrived for a while."""
    yield f"retry: {RETRY_MS}\n\n".encode()
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=BEAT_S)
            if not done:
                yield b": alive\n\n"
                continue
            chunk = coming.result()
            if chunk is None:
                return
            yield chunk
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, DaemonAway, Declined):
            await coming
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


@get("/api/stream")
async def stream(request: AnyRequest, operator: Operator, after: int | None = None) -> Stream:
    """Every event after `Last-Event-ID`, else after `after`, else only new events."""
    given = request.headers.get("last-event-id", "")
    last = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else after
    if last is None or last < 0:
        last = (await operator.ask("state"))["seq"] if last is None else 0
    return event_stream(_events(operator, min(last, NEWEST)))


async def _events(operator: Operator, last: int) -> AsyncIterator[bytes]:
    with contextlib.suppress(DaemonAway, Declined):
        async for reply in operator.follow("events", **{"from": last + 1, "follow": True}):
            for event in reply["events"]:
                yield sse({key: event[key] for key in ("seq", "at", "type", "by", "data")}, id=event["seq"])


HANDLERS = [stream]
