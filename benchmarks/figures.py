"""A figure: one ratio per round, with its median, spread and goal. Used by all sections."""

from collections.abc import Callable
from statistics import median
from typing import Literal, NamedTuple

Round = dict[str, float]
"""The measurements of one round, by name. A missing peer has none."""


class Goal(NamedTuple):
    """The target for the median."""

    sign: Literal["≥", "≤"]
    value: float

    def reached_by(self, ratio: float) -> bool:
        return ratio >= self.value if self.sign == "≥" else ratio <= self.value


class Figure(NamedTuple):
    """A ratio of two measurements from the same round."""

    name: str
    measured: str
    """Name of the numerator in the round."""
    against: str | Callable[[Round], float]
    """Name of the denominator, or a function of the round."""
    goal: Goal | None = None
    unit: str = "×"

    def ratios(self, rounds: list[Round]) -> list[float]:
        """One ratio per round; none if a peer is missing."""
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
