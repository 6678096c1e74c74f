"""A clock that tests advance manually. It passes the same contract test as the system clock."""

import heapq
import itertools
import threading
from collections.abc import Callable

from hive.clock import DurationMs, TimeMs

BEGIN_MS: TimeMs = 1_769_851_800_000
"""2026-01-31T09:30:00Z."""


class ManualClock:
    """Thread-safe. Due calls run on the thread that advances the clock."""

    def __init__(self, now: TimeMs = BEGIN_MS):
        self._now = now
        self._lock = threading.Lock()
        self._calls: list[tuple[TimeMs, int, Callable[[], object], threading.Event]] = []
        self._order = itertools.count()

    def now_ms(self) -> TimeMs:
        return self._now

    def call_at(self, at: TimeMs, then: Callable[[], object]) -> Callable[[], None]:
        cancelled = threading.Event()
        with self._lock:
            heapq.heappush(self._calls, (at, next(self._order), then, cancelled))
        self._call_due()
        return cancelled.set

    def advance(self, by_ms: DurationMs) -> None:
        """Advance the time and run due calls."""
        with self._lock:
            self._now += by_ms
        self._call_due()

    def waits_for(self) -> TimeMs | None:
        """The time of the next scheduled call."""
        with self._lock:
            return min((at for at, _, _, cancelled in self._calls if not cancelled.is_set()), default=None)

    def _call_due(self) -> None:
        while True:
            with self._lock:
                if not self._calls or self._calls[0][0] > self._now:
                    return
                _, _, then, cancelled = heapq.heappop(self._calls)
            if not cancelled.is_set():
                then()
