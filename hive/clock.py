"""Time: Unix milliseconds inside, RFC 3339 UTC on the wire. Everything that needs the time is handed a Clock."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from hive.errors import BadRequest

TimeMs = int
"""Unix milliseconds."""
DurationMs = int
"""Milliseconds."""

MS_PER_S = 1000
TIMER_STEP_MAX_S = 30.0
"""A sleeping host or a set clock is noticed after at most this long."""


def rfc3339(at: TimeMs) -> str:
    """`2026-01-31T09:30:00.125Z`; always four digits of a year, always milliseconds, always `Z`."""
    seconds, ms = divmod(at, MS_PER_S)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{ms:03d}Z"


def parse_rfc3339(text: str) -> TimeMs:
    """Unix milliseconds of an RFC 3339 time with any offset.

    Raises:
        BadRequest: not such a time, or one without an offset.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise BadRequest(f"{text!r} names no time zone; end it with Z.")
        return round(at.astimezone(UTC).timestamp() * MS_PER_S)
    except (ValueError, OverflowError):
        raise BadRequest(f"{text[:64]!r} is not a time; write it like 2026-01-31T09:30:00Z.") from None


class Clock(Protocol):
    """The only source of time."""

    def now_ms(self) -> TimeMs: ...

    def call_at(self, at: TimeMs, then: Callable[[], object]) -> Callable[[], None]:
        """Call `then` on some thread at or soon after `at`; returns a function that cancels it."""
        ...


class SystemClock:
    """The host's clock; each pending call is a daemon thread."""

    def now_ms(self) -> TimeMs:
        return time.time_ns() // 1_000_000

    def call_at(self, at: TimeMs, then: Callable[[], object]) -> Callable[[], None]:
        cancelled = threading.Event()

        def wait() -> None:
            while (left := (at - self.now_ms()) / MS_PER_S) > 0:
                if cancelled.wait(min(left, TIMER_STEP_MAX_S)):
                    return
            if not cancelled.is_set():
                then()

        threading.Thread(target=wait, name="timer", daemon=True).start()
        return cancelled.set
