"""A time budget: how many meta-steps fit into it."""

from dataclasses import dataclass
from typing import Any, Self

from handful.training.settings import FEWEST_STEPS

CORRECTED_AFTER = 4
"""The share of the steps after which their number is corrected: late enough to measure, early enough to keep the
time."""
CLOSE = 0.02
"""The relative difference of steps below which no correction is made."""


@dataclass(frozen=True)
class StepCount:
    """The number of meta-steps of a training.

    first: as planned before the first one.
    corrected: as planned again after a part of them; None: not, or not yet.
    """

    first: int
    corrected: int | None = None

    @property
    def total(self) -> int:
        """The total number of steps."""
        return self.first if self.corrected is None else self.corrected

    @property
    def correction_step(self) -> int:
        """The step, counted from 0, before which they may be corrected."""
        return max(1, self.first // CORRECTED_AFTER)

    def position(self, step: int) -> float:
        """The position of a step, counted from 0, among the first-planned steps, along which rates are scheduled: after
        a correction, steps move faster or slower through the rest of these."""
        done = self.correction_step
        if self.corrected in (None, self.first) or step <= done:
            return step
        return done + (step - done) * (self.first - done) / (self.total - done)

    def to_json(self) -> dict[str, Any]:
        """For the run's record."""
        return {"steps": self.first, "corrected": self.corrected}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(record["steps"], record.get("corrected"))


def validation_interval(steps: int, every: int = 0) -> int:
    """Steps between validations: as given, or a tenth of all."""
    return every or max(FEWEST_STEPS, steps // 10)


def affordable(seconds: float, per_step: float, per_validation: float, every: int = 0) -> int:
    """The most steps, at least 1, that take no more than so many seconds, with a validation after each `every` of them
    and after the last one."""

    def cost(steps: int) -> float:
        return steps * per_step + -(-steps // validation_interval(steps, every)) * per_validation

    low, high = 1, max(1, int(seconds / max(per_step, 1e-9)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= seconds else (low, middle - 1)
    return low
