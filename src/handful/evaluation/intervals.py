"""Confidence intervals over tasks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over `tasks` independent units."""

    mean: float
    low: float
    high: float
    tasks: int

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


def interval(scores: Tensor, units: Tensor | None = None) -> Interval:
    """Student's t interval of the mean score.

    scores: `(draws,)`. units: `(draws,)` the task of each draw; draws of one unit are averaged first, since they share
    its luck (None: every draw is its own unit). With one unit there is no interval, and it is infinitely wide.
    """
    from scipy.special import stdtrit

    means = scores.double()
    if units is not None:
        _, inverse = torch.unique(units, return_inverse=True)
        counts = torch.bincount(inverse)
        means = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, inverse, means) / counts
    count = len(means)
    mean = float(means.mean())
    if count < 2:
        return Interval(mean, float("-inf"), float("inf"), count)
    half = float(stdtrit(count - 1, 0.975) * means.std() / count**0.5)
    return Interval(mean, mean - half, mean + half, count)


def tasks_needed(interval: Interval, half_width: float) -> int:
    """About how many tasks as varied as these make an interval of this half-width, which is above 0.

    The half-width shrinks with the square root of the number of tasks. The given interval is finite.
    """
    assert half_width > 0
    assert math.isfinite(interval.half_width)
    return max(2, math.ceil(interval.tasks * (interval.half_width / half_width) ** 2))
