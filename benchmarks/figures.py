"""A figure: one ratio, measured once a round; its median, its spread and what it should reach. Used by all sections."""

from collections.abc import Callable
from statistics import median
from typing import Literal, NamedTuple

Round = dict[str, float]
"""What one round measured, by name. A peer that is missing left nothing here."""


class Goal(NamedTuple):
    """What the median is held against."""

    sign: Literal["≥", "≤"]
    value: float

    def reached_by(self, ratio: float) -> bool:
        return ratio >= self.value if self.sign == "≥" else ratio <= self.value


class Figure(NamedTuple):
    """One ratio of two things that were measured in the same round."""

    name: str
    measured: str
    """Name in the round of what is above the line."""
    against: str | Callable[[Round], float]
    """And below it."""
    goal: Goal | None = None
    unit: str = "×"

    def ratios(self, rounds: list[Round]) -> list[float]:
        """One a round; none where a peer is missing."""
        needed = {self.measured} | ({self.against} if isinstance(self.against, str) else set())
        return [one[self.measured] / self._below(one) for one in rounds if needed <= one.keys()]

    def _below(self, one: Round) -> float:
        return one[self.against] if isinstance(self.against, str) else self.against(one)


class Result(NamedTuple):
    """A figure after its rounds."""

    section: str
    name: str
    unit: str
    goal: Goal | None
    ratios: list[float]
    skipped: str | None = None

    @property
    def median(self) -> float:
        return median(self.ratios)

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None or not self.ratios else self.goal.reached_by(self.median)


def at_least(value: float) -> Goal:
    return Goal("≥", value)


def at_most(value: float) -> Goal:
    return Goal("≤", value)
