"""The child side of a contender: JSON requests and replies, one per line. Imports only the standard library."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Reply = dict[str, Any]
Verb = Callable[..., Awaitable[Reply]]


async def serve(verbs: dict[str, Verb]) -> None:
    """Serve requests one at a time until stdin ends."""
    say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        say(await verbs[request.pop("do")](**request))


def say(reply: Reply) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


async def produce(append: Callable[[int, int], Awaitable[object]], producers: int, events: int) -> Reply:
    """Run this many coroutines that append events and wait for each acknowledgement."""
    took: list[float] = []
    clock = time.perf_counter

    async def one(producer: int) -> None:
        for nth in range(events // producers):
            began = clock()
            await append(producer, nth)
            took.append(clock() - began)

    began = clock()
    await asyncio.gather(*(one(producer) for producer in range(producers)))
    return timed(took, clock() - began)


def timed(took_s: list[float], seconds: float, events: int | None = None) -> Reply:
    """The reply of an append: rate per second and wait times."""
    ordered = sorted(took_s)
    count = len(ordered) if events is None else events
    return {
        "rate": count / seconds,
        "p50_ms": 1_000 * ordered[len(ordered) // 2],
        "p99_ms": 1_000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    }
