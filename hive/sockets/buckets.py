"""A token bucket with injected time. Used by the shares and the intake of each agent."""

from collections.abc import Callable
from typing import Final

S_PER_MINUTE: Final = 60.0

Seconds = Callable[[], float]
"""A monotonic time in seconds."""


class Bucket:
    """Refills at a constant rate up to `burst`. A reserve below zero is for callers that name it."""

    def __init__(self, per_s: float, burst: float, now: Seconds, reserve: float = 0.0):
        self.per_s = per_s
        self.burst = burst
        self.reserve = reserve
        self._now = now
        self._level = burst
        self._at_s = now()

    def level(self) -> float:
        """Tokens left; negative while the reserve or a debt is used."""
        now = self._now()
        if now > self._at_s:
            self._level = min(self.burst, self._level + (now - self._at_s) * self.per_s)
        self._at_s = now
        return self._level

    def wait_s(self, amount: float, *, reserved: bool = False) -> float:
        """Seconds until this amount can be taken; 0 now. An amount above the burst needs a full bucket."""
        floor = -self.reserve if reserved else 0.0
        missing = min(amount, self.burst) + floor - self.level()
        return max(0.0, missing / self.per_s)

    def take(self, amount: float) -> None:
        """Take it, even if that leaves a debt. A negative amount gives tokens back."""
        self._level = min(self.burst, self.level() - amount)

    def retune(self, per_s: float, burst: float, reserve: float) -> None:
        """New settings. What was used stays used."""
        used = self.burst - self.level()
        self.per_s, self.burst, self.reserve = per_s, burst, reserve
        self._level = burst - used
