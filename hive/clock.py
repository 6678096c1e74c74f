"""Time: Unix milliseconds inside, RFC 3339 UTC on the wire. Code that needs the time takes a Clock."""

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
YEAR_2001_MS = 10**12
"""A `_ms` value above this one is a time, not a duration."""
TIMER_STEP_MAX_S = 30.0
"""The longest single sleep of a timer. After a suspend or a clock change, a timer is late by at most this."""


def rfc3339(at: TimeMs) -> str:
    """`2026-01-31T09:30:00.125Z`: always a four-digit year, milliseconds and `Z`."""
    seconds, ms = divmod(at, MS_PER_S)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{ms:03d}Z"


def duration_text(ms: float) -> str:
    """`0.9s`, `45s`, `2m 5s`, `1h 2m`, `3d 4h`; a negative duration is `0s`."""
    seconds = max(0, int(ms // MS_PER_S))
    if 0 < ms < MS_PER_S:
        return f"{ms / MS_PER_S:.1f}s" if ms >= 100 else f"{ms:.0f}ms"
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3_600:
        return f"{seconds // 60}m {seconds % 60}s"
    if seconds < 86_400:
        return f"{seconds // 3_600}h {seconds % 3_600 // 60}m"
    return f"{seconds // 86_400}d {seconds % 86_400 // 3_600}h"


def dollars_text(amount: float | None) -> str:
    """`$12.34`, `$0.0042`; `–` if unknown."""
    if amount is None:
        return "–"
    return f"${amount:.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


def readable_field(key: str, value: object) -> tuple[str, object]:
    """Format times and durations: `duration_ms=84312` becomes `duration=1m 24s`. Other fields are unchanged."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.endswith("_ms"):
            is_time = value > YEAR_2001_MS
            return key.removesuffix("_ms"), rfc3339(int(value)) if is_time else duration_text(value)
        if key.endswith("_seconds"):
            return key.removesuffix("_seconds"), duration_text(value * MS_PER_S)
    return key, value


def parse_rfc3339(text: str) -> TimeMs:
    """Unix milliseconds of an RFC 3339 time with any offset.

    Raises:
        BadRequest: not an RFC 3339 time, or a time without an offset.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise BadRequest(f"{text!r} has no time zone. End it with Z.")
        return round(at.astimezone(UTC).timestamp() * MS_PER_S)
    except (ValueError, OverflowError):
        raise BadRequest(f"{text[:64]!r} is not a time. Write it like 2026-01-31T09:30:00Z.") from None


class Clock(Protocol):
    """Source of the current time and of timers."""

    def now_ms(self) -> TimeMs: ...

    def call_at(self, at: TimeMs, then: Callable[[], object]) -> Callable[[], None]:
        """Call `then` at or soon after `at`, on any thread. Returns a function that cancels the call."""
        ...


class SystemClock:
    """The host's clock. Each pending call is one daemon thread."""

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
