"""Confidence intervals: over tasks, over training seeds and tasks, and over the classes that tasks are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from handful.errors import UserError

Bounds: TypeAlias = tuple[float, float]
"""The smallest and the largest possible score."""

SHARE: Bounds = (0.0, 1.0)
"""Of accuracies and other shares."""
SHARES_APART: Bounds = (-1.0, 1.0)
"""Of differences of two shares."""
ALPHA = 0.05
"""How often an interval misses the mean."""
ROUNDING = 1e-9
"""Scores that differ by this share of their size are equal."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over `tasks` independent units.

    diverged: how many draws had a prediction that is not finite. They count as wrong in an accuracy, and are left out
        of the mean of what has no worst value, such as an error.
    undefined: how many have no score, and are left out.
    """

    mean: float
    low: float
    high: float
    tasks: int
    diverged: int = field(default=0, kw_only=True)
    undefined: int = field(default=0, kw_only=True)

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class EqualInterval(Interval):
    """An interval of scores that are all equal, see `interval`. The mean need not be in its middle."""


@dataclass(frozen=True)
class SeedsInterval(Interval):
    """An interval over `seeds` trainings too, each scored on `tasks` tasks.

    between, within: standard errors of the mean, from the spread between seeds and from the rest.
    """

    seeds: int
    between: float
    within: float


@dataclass(frozen=True)
class ClassInterval(Interval):
    """An interval over the `classes` that tasks are drawn from, too."""

    classes: int


def interval(
    scores: Tensor, units: Tensor | None = None, *, bounds: Bounds | None = None, alpha: float = ALPHA
) -> Interval:
    """Student's t interval of the mean score.

    scores: `(draws,)`; those that are not finite are left out and counted: NaN as undefined, others as diverged.
    units: `(draws,)` the task of each draw; draws of one unit are averaged first, since they share its difficulty
        (None: every draw is its own unit).
    bounds: the smallest and the largest possible score (None: unbounded).
    alpha: how often it misses the mean.

    With one unit the interval is infinitely wide.

    If all units have equal scores, their spread of 0 does not describe other units. If a share q of all units had this
    score, `count` units would all have it with probability q ** count, so that q is (alpha / 2) ** (1 / count) or more:
    this is the exact binomial interval of Clopper and Pearson, *The Use of Confidence or Fiducial Limits Illustrated in
    the Case of the Binomial* (1934), https://doi.org/10.2307/2331986. The other units may have any score within the
    bounds; without bounds the interval is infinite. The count is of units, not of the predictions in them, which may be
    right or wrong together: the largest possible design effect of clusters (Korn and Graubard, *Confidence Intervals
    for Proportions with Small Expected Number of Positive Counts Estimated from Survey Data*, 1998, Survey Methodology
    24).
    """
    means = _of_units(scores, units)
    count = len(means)
    if _equal(means, bounds):
        return EqualInterval(*_around_equal(means.mean(), count, bounds, alpha), count, **left_out(scores))
    return Interval(*_around(means.mean(), _spread(means) / count, count - 1, alpha), count, **left_out(scores))


def seeds_interval(
    scores: Sequence[Tensor],
    units: Sequence[Tensor] | None = None,
    *,
    same_tasks: bool = True,
    bounds: Bounds | None = None,
) -> SeedsInterval:
    """The mean over training seeds of the mean over tasks, with the interval for other seeds *and* other tasks.

    scores, units: for each seed `(draws,)`, see `interval`.
    bounds: see `interval`.

    With `same_tasks`, all seeds are scored on the same S x T tasks, and with the mean squares of the two-way table
    (seeds A, tasks B, the rest E)

        variance = MS_A / ST + MS_B / ST - MS_E / ST,   no less than either of the first two:

    between seeds, plus between tasks, less the residual variance, which is in both. Otherwise (each seed has its own
    tasks) the variance is that of the seeds' means divided by S, which includes the variance of their tasks. Student's
    t with Satterthwaite's degrees of freedom, *An Approximate Distribution of Estimates of Variance Components* (1946),
    https://doi.org/10.2307/3002019: about S - 1 if seeds vary most, so that two seeds give a wide interval.

    With a single seed it reduces to `interval`, for that seed's weights only, as it does if seeds do not differ in any
    score; if seeds with their own tasks have equal means, it is that of `interval` for these means. Scores that are not
    finite are left out and counted, with `same_tasks` in all seeds. Raises `UserError` for `same_tasks` whose number
    differs between seeds.
    """
    lost = left_out(*scores)
    if same_tasks and len({len(of_seed) for of_seed in scores}) == 1:
        known = torch.stack([of_seed.isfinite() for of_seed in scores]).all(0)
        scores = [torch.where(known, of_seed, torch.nan) for of_seed in scores]
    means = [_of_units(of_seed, None if units is None else units[seed]) for seed, of_seed in enumerate(scores)]
    seeds, tasks = len(means), min(map(len, means))
    by_seed = torch.stack([of_seed.mean() for of_seed in means])
    if seeds == 1:
        alone = interval(means[0], bounds=bounds)
        within = float(_spread(means[0]) / tasks) ** 0.5
        return SeedsInterval(alone.mean, alone.low, alone.high, tasks, 1, 0.0, within, **lost)
    between = by_seed.var() / seeds
    if not same_tasks:
        within = (
            torch.stack([_spread(of_seed) / len(of_seed) for of_seed in means]).mean() / seeds
        )  # a part of `between`
        ends = _around(by_seed.mean(), between, seeds - 1)
        if _equal(by_seed, bounds):
            ends = _around_equal(by_seed.mean(), seeds, bounds)
        parts = (between - within).clamp(min=0).sqrt(), within.sqrt()
        return SeedsInterval(*ends, tasks, seeds, *map(float, parts), **lost)
    if len(set(map(len, means))) > 1:
        raise UserError(
            f"The seeds were scored on {', '.join(str(len(of_seed)) for of_seed in means)} tasks, so not on the same "
            f"ones. Give the scores of the common tasks, or same_tasks=False if each seed has its own tasks."
        )
    table = torch.stack(means)  # (seeds, tasks)
    across = _spread(table.mean(0)) / tasks
    rest = table - by_seed.unsqueeze(1) - table.mean(0) + table.mean()
    luck = rest.square().sum() / max(1, (seeds - 1) * (tasks - 1)) / (seeds * tasks)
    variance = torch.maximum(between + across - luck, torch.maximum(between, across))
    terms = ((between, seeds - 1), (across, tasks - 1), (luck, (seeds - 1) * (tasks - 1)))
    uncertainty = sum(float(part) ** 2 / freedom for part, freedom in terms if freedom)
    freedom = float(variance) ** 2 / uncertainty if uncertainty else tasks - 1.0
    ends = _around(by_seed.mean(), variance, freedom if tasks > 1 else 0)
    if _equal(table.flatten(), bounds) and tasks > 1:
        ends = _around_equal(by_seed.mean(), tasks, bounds)
    parts = (between - luck).clamp(min=0).sqrt(), across.sqrt()
    return SeedsInterval(*ends, tasks, seeds, *map(float, parts), **lost)


def class_interval(scores: Tensor, classes: Sequence[Sequence[int]], *, alpha: float = ALPHA) -> ClassInterval | None:
    """The mean score with the interval for *other classes* of the same kind.

    None for fewer than two classes, and for equal scores, which do not show how classes differ.

    scores: `(tasks,)`; those that are not finite are left out and counted.
    classes: the global class ids of each task (`TaskDistribution.manifest(i).classes`).
    alpha: see `interval`.

    `interval` describes how the mean varies with other tasks of the same data: it shrinks to zero as tasks are drawn
    repeatedly from a few classes, and is then far too narrow for other classes (*Oops, I Sampled it Again:
    Reinterpreting Confidence Intervals in Few-Shot Learning*, Lafargue et al., 2024, https://arxiv.org/abs/2409.02850).

    The model: a task's score is a mean, plus the average of its classes' effects, plus a residual. Both variances
    follow from the spread of the scores and from that of the scores that share a class, for any pattern of sharing
    (moments of quadratic forms, as in Henderson, 1953, https://doi.org/10.2307/3001853). The variance of the mean is
    that of the classes, each by its share of the tasks, plus residual / tasks: with N equally frequent classes, classes
    / N + residual / tasks. Without class effects it is that of `interval`.

    Departure from a plain bootstrap of classes: resampling classes and averaging their scores understates the variance
    by way^2, and keeping the tasks all of whose classes were drawn multiplies the residual variance by 2^way. Effects
    of *pairs* of classes, such as two that look alike, are part of the residual.
    """
    from scipy.sparse import csr_array

    lost, known = left_out(scores), scores.isfinite()
    scores, classes = scores[known], [own for own, kept in zip(classes, known.tolist(), strict=False) if kept]
    numbers, places = torch.unique(
        torch.tensor([number for each in classes for number in each], device="cpu"), return_inverse=True
    )
    if len(numbers) < 2 or len(classes) < 2 or _equal(scores.double(), None):
        return None
    ways = torch.tensor([len(of_task) for of_task in classes], device="cpu")
    scores, tasks = scores.double(), len(scores)
    rows = torch.arange(tasks, device="cpu").repeat_interleave(ways)
    # Of each class in each task, with a row for each task: most are 0 where there are many classes.
    shares = csr_array((1 / ways[rows].double().numpy(), (rows.numpy(), places.numpy())), (tasks, len(numbers)))
    mean = shares.mean(0)
    of_mean = float(tasks * mean @ mean)
    # Trace and square of the products of the shares less their mean, which are not sparse, from those of the shares.
    trace = float(shares.power(2).sum()) - of_mean
    square = float((shares.T @ shares).power(2).sum() - 2 * tasks * ((shares @ mean) ** 2).sum()) + of_mean**2
    # Of both forms, the expectation is linear in the two variances.
    rest = scores - scores.mean()
    forms = torch.stack([rest @ rest, torch.from_numpy(shares.T @ rest.numpy()).square().sum()])
    weights = torch.tensor([[trace, tasks - 1.0], [square, trace]], dtype=torch.float64, device="cpu")
    if abs(float(torch.linalg.det(weights))) < 1e-9 * float(weights.abs().max()) ** 2:  # each task has all classes
        return None
    of_classes, luck = torch.linalg.solve(weights, forms).tolist()
    if of_classes <= 0:
        of_classes, luck = 0.0, float(forms[0]) / (tasks - 1)
    parts = of_classes * of_mean / tasks, max(0.0, luck) / tasks
    variance = torch.tensor(sum(parts), device="cpu")
    uncertainty = parts[0] ** 2 / (len(numbers) - 1) + parts[1] ** 2 / (tasks - 1)
    freedom = float(variance) ** 2 / uncertainty if uncertainty else tasks - 1.0
    return ClassInterval(*_around(scores.mean(), variance, freedom, alpha), tasks, len(numbers), **lost)


def difference(
    scores: Tensor,
    others: Tensor,
    units: Tensor | None = None,
    other_units: Tensor | None = None,
    *,
    bounds: Bounds | None = None,
) -> Interval:
    """By how much the mean of `scores` is above that of `others`, which are of other tasks (Welch's t interval).

    *The Generalization of 'Student's' Problem when Several Different Population Variances are Involved* (Welch, 1947),
    https://doi.org/10.2307/2332510. Scores of the same tasks are paired instead: `interval` of their differences.

    If the scores of one side are all equal, the two intervals are combined by their ends: *Construction of Confidence
    Limits about Effect Measures: A General Approach* (Zou and Donner, 2008), https://doi.org/10.1002/sim.3095.

    bounds: of the scores, see `interval`.
    """
    means = _of_units(scores, units), _of_units(others, other_units)
    if any(_equal(values, bounds) for values in means):
        one, other = interval(scores, units, bounds=bounds), interval(others, other_units, bounds=bounds)
        gap, lost = one.mean - other.mean, left_out(scores, others)
        low = gap - math.hypot(one.mean - one.low, other.high - other.mean)
        high = gap + math.hypot(one.high - one.mean, other.mean - other.low)
        return Interval(gap, low, high, min(one.tasks, other.tasks), **lost)
    parts = [(float(_spread(values)) / max(1, len(values)), len(values) - 1) for values in means]
    variance, uncertainty = sum(part for part, _ in parts), sum(part**2 / freedom for part, freedom in parts if freedom)
    freedom = 0.0 if min(map(len, means)) < 2 else variance**2 / uncertainty if uncertainty else 1.0
    ends = _around(
        means[0].mean() - means[1].mean(), torch.tensor(variance, dtype=torch.float64, device="cpu"), freedom
    )
    return Interval(*ends, min(map(len, means)), **left_out(scores, others))


def tasks_needed(interval: Interval, half_width: float) -> int:
    """About how many tasks as varied as these give an interval of this half-width, which is above 0.

    The half-width shrinks with the square root of the number of tasks, that of equal scores about with the number. The
    given interval is finite.
    """
    assert half_width > 0
    assert math.isfinite(interval.half_width)
    if isinstance(interval, EqualInterval):
        unknown = (1 - _least_share(interval.tasks)) * half_width / interval.half_width
        return max(2, math.ceil(math.log(ALPHA / 2) / math.log1p(-unknown))) if unknown < 1 else 2
    return max(2, math.ceil(interval.tasks * (interval.half_width / half_width) ** 2))


def left_out(*scores: Tensor) -> dict[str, int]:
    """How many scores are infinite, as those of draws that diverged, and how many are undefined (NaN)."""
    return {
        "diverged": sum(int(some.isinf().sum()) for some in scores),
        "undefined": sum(int(some.isnan().sum()) for some in scores),
    }


def apart(scores: Tensor, others: Tensor) -> Tensor:
    """Differences of paired scores; infinite where either is, and so left out and counted as diverged."""
    return (scores - others).where(~(scores.isinf() | others.isinf()), torch.inf)


def _of_units(scores: Tensor, units: Tensor | None) -> Tensor:
    """The mean score of each unit, in doubles, of those that are finite."""
    known = scores.isfinite()
    scores = scores[known].double()
    if units is None:
        return scores
    _, inverse = torch.unique(units[known], return_inverse=True)
    counts = torch.bincount(inverse)
    return torch.zeros(len(counts), dtype=torch.float64, device=scores.device).index_add_(0, inverse, scores) / counts


def _spread(values: Tensor) -> Tensor:
    """The variance of values `(n,)`; 0 for a single one."""
    return values.var() if len(values) > 1 else values.new_zeros(())


def _equal(values: Tensor, bounds: Bounds | None) -> bool:
    """Whether two scores or more are all equal, but for rounding."""
    if len(values) < 2:
        return False
    size = bounds[1] - bounds[0] if bounds else float(values.abs().max())
    return float(values.max() - values.min()) <= ROUNDING * size


def _around_equal(mean: Tensor, count: int, bounds: Bounds | None, alpha: float = ALPHA) -> tuple[float, float, float]:
    """Mean, low and high of `count` equal scores, see `interval`."""
    if bounds is None:
        return float(mean), float("-inf"), float("inf")
    least = _least_share(count, alpha)
    low, high = (least * float(mean) + (1 - least) * bound for bound in bounds)
    return float(mean), low, high


def _least_share(count: int, alpha: float = ALPHA) -> float:
    """The least share of all units that may be as `count` of them, which are all alike."""
    return float((alpha / 2) ** (1 / count))


def _around(mean: Tensor, variance: Tensor, freedom: float, alpha: float = ALPHA) -> tuple[float, float, float]:
    """Mean, low and high of Student's t interval; without a degree of freedom it is infinitely wide."""
    from scipy.special import stdtrit

    if freedom <= 0:
        return float(mean), float("-inf"), float("inf")
    half = float(stdtrit(freedom, 1 - alpha / 2) * variance.sqrt())
    return float(mean), float(mean) - half, float(mean) + half
