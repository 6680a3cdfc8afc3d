"""Data equivalence: how many times more examples learning without other tasks needs for the same score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from handful import streams
from handful.errors import UserError
from handful.evaluation.intervals import ROUNDING, Interval

REPLICATES = 1000

Curve = list[tuple[int, Interval]]
"""A score with its interval for each number of examples."""


@dataclass(frozen=True)
class Equivalence:
    """A learner with `shot` examples scores as the conventional way with `factor * shot`.

    low, high: the 95 % interval of the factor over tasks. An infinite value or end means that the conventional way does
        not reach the score with the `most` examples tried, 0 that it reaches it with the `fewest`.
    tasks: how many the interval is over.
    score: the learner's.
    curve: of the conventional way.
    """

    shot: int
    factor: float
    low: float
    high: float
    fewest: int
    most: int
    tasks: int
    score: float
    curve: Curve = field(default_factory=list)

    def __str__(self) -> str:
        """ "6.2 (5.1 to 8.0)", "6.2 (5.1 or more)", "at least 15 (12 or more)", "at most 0.2"."""
        least, most = f"{self.fewest / self.shot:.2g}", f"{self.most / self.shot:.2g}"
        low = f"{self.low:.2g}" if 0 < self.low < math.inf else ""
        high = f"{self.high:.2g}" if 0 < self.high < math.inf else ""
        if self.factor == math.inf:
            return f"at least {most}" + (f" ({low} or more)" if low else "")
        if self.factor == 0:
            return f"at most {least}" + (f" ({high} or less)" if high else "")
        ends = f"{low} to {high}" if low and high else f"{low} or more" if low else f"{high} or less" if high else ""
        return f"{self.factor:.2g}" + (f" ({ends})" if ends else " (no interval)")


def equivalence(
    own: Tensor,
    shot: int,
    conventional: Sequence[Tensor],
    sizes: Sequence[int],
    *,
    units: Tensor | None = None,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Equivalence:
    """How many times more examples the conventional way needs to reach a learner's mean score.

    own: `(tasks,)` scores of the learner with `shot` examples.
    conventional: for each of the ascending `sizes`, scores `(tasks,)` on the same tasks, or `(ways, tasks)` of several
        ways, of which the best counts.
    units: see `interval`.

    The mean scores of the conventional way are made monotone in the number of examples (isotonic regression) and joined
    by lines over its logarithm; the factor is where they reach the learner's mean, divided by `shot`. The interval is
    that of percentiles over `REPLICATES` resamples of the units, the same for the learner and all sizes, since they are
    paired. The best of several ways is chosen on the same tasks, which favors the conventional way. Raises `UserError`
    if nothing can be compared.
    """
    if not sizes or len(sizes) != len(conventional) or list(sizes) != sorted(set(sizes)):
        raise UserError(f"A data equivalence needs scores for ascending sizes, got the sizes {sizes}.")
    sign = 1 if higher_is_better else -1
    rows = [sign * scores.double().reshape(-1, len(own)) for scores in conventional]
    table = torch.stack(rows)  # (sizes, ways, tasks)
    members = (
        torch.arange(len(own), device=own.device) if units is None else torch.unique(units, return_inverse=True)[1]
    )
    count = int(members.max()) + 1
    shares = torch.zeros(count, len(own), dtype=torch.float64, device=own.device)
    shares[members, torch.arange(len(own), device=own.device)] = 1 / torch.bincount(members)[members].double()
    by_unit, reached = table @ shares.T, sign * own.double() @ shares.T  # (sizes, ways, units), (units,)

    def factor(weights: Tensor) -> float:
        curve = (by_unit @ weights).amax(1)  # (sizes,)
        return _examples(curve.numpy(), float(reached @ weights), sizes) / shot

    generator = streams.bootstrap(seed)
    drawn = torch.randint(count, (REPLICATES, count), generator=generator, device=generator.device)
    replicates = sorted(factor(torch.bincount(row, minlength=count).double() / count) for row in drawn)
    low, high = replicates[int(0.025 * REPLICATES)], replicates[math.ceil(0.975 * REPLICATES) - 1]
    if count < 2 or math.isclose(low, high, rel_tol=ROUNDING):  # those of equal scores say nothing
        low, high = 0.0, math.inf
    value = factor(torch.full((count,), 1 / count, dtype=torch.float64, device=own.device))
    return Equivalence(shot, value, low, high, sizes[0], sizes[-1], count, float(own.double().mean()))


def _examples(curve: np.ndarray, reached: float, sizes: Sequence[int]) -> float:
    """Where a curve over sizes reaches a score; infinity where it stays below, 0 if it begins above."""
    rising = _rising(curve)
    if reached > rising[-1]:
        return math.inf
    if reached < rising[0]:
        return 0.0
    place = int(np.searchsorted(rising, reached))  # the first size that reaches it
    if place == 0:
        return float(sizes[0])
    below, above = rising[place - 1], rising[place]
    share = (reached - below) / (above - below)
    return math.exp(math.log(sizes[place - 1]) * (1 - share) + math.log(sizes[place]) * share)


def _rising(values: np.ndarray) -> np.ndarray:
    """The nearest values that never fall, by pooling adjacent violators.

    *An Empirical Distribution Function for Sampling with Incomplete Information* (Ayer et al., 1955),
    https://doi.org/10.1214/aoms/1177728423.
    """
    blocks: list[list[float]] = []
    for value in values.tolist():
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, width = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + mean * width) / (blocks[-1][1] + width),
                blocks[-1][1] + width,
            ]
    return np.concatenate([np.full(int(width), mean) for mean, width in blocks])
