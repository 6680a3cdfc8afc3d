"""Intervals: right by an independent computation, and honest about units."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from handful.errors import UserError
from handful.evaluation.intervals import (
    SHARE,
    SHARES_APART,
    Interval,
    class_interval,
    difference,
    interval,
    seeds_interval,
    tasks_needed,
)


@pytest.mark.parametrize("count", [2, 7, 600])
def test_agrees_with_scipy(count):
    scores = torch.rand(count, dtype=torch.float64)
    ours = interval(scores)
    low, high = stats.t.interval(0.95, count - 1, loc=scores.mean(), scale=stats.sem(scores))
    assert np.allclose([ours.mean, ours.low, ours.high], [float(scores.mean()), low, high], rtol=1e-12)
    assert ours.tasks == count


def test_covers_the_truth_95_times_of_100():
    draws = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    covered = sum(found.low <= 0 <= found.high for found in map(interval, draws))
    assert 0.935 <= covered / len(draws) <= 0.965


def test_draws_of_one_unit_count_once():
    """Repeating each task's score a hundred times adds no knowledge (TRAPS T23)."""
    scores = torch.rand(10, dtype=torch.float64)
    once = interval(scores)
    repeated = interval(scores.repeat_interleave(100), torch.arange(10).repeat_interleave(100))
    assert repeated.tasks == 10
    assert math.isclose(repeated.half_width, once.half_width, rel_tol=1e-9)
    assert interval(scores.repeat_interleave(100)).half_width < once.half_width / 5


def test_units_weigh_equally_however_many_draws_they_have():
    found = interval(torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([7, 7, 7, 3]))
    assert found.mean == 0.5
    assert found.tasks == 2


def test_one_task_has_no_interval():
    found = interval(torch.tensor([0.5]))
    assert (found.mean, found.low, found.high, found.tasks) == (0.5, -math.inf, math.inf, 1)


def test_half_the_width_needs_four_times_the_tasks():
    found = Interval(0.5, 0.4, 0.6, 50)
    assert tasks_needed(found, found.half_width) == 50
    assert tasks_needed(found, found.half_width / 2) == 200


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out_and_counted(value):
    what = "undefined" if math.isnan(value) else "diverged"
    scores, other = normal(20), normal(30, seed=1)
    bad = torch.cat([scores[:5], torch.tensor([value]), scores[5:], torch.tensor([value])])
    places = torch.arange(22)
    assert interval(bad, places // 4) == replace(interval(scores, places[bad.isfinite()] // 4), **{what: 2})
    assert interval(torch.tensor([1.0, value, value]), torch.tensor([0, 1, 1])).tasks == 1
    assert difference(bad, other) == replace(difference(scores, other), **{what: 2})
    seeds = [bad, torch.cat([other[:21], torch.tensor([value])])]
    kept = [of_seed[bad.isfinite()] for of_seed in seeds]
    assert seeds_interval(seeds) == replace(seeds_interval(kept), **{what: 3}), "tasks that all seeds have"
    apart = replace(seeds_interval([scores, other[:21]], same_tasks=False), **{what: 3})
    assert seeds_interval(seeds, same_tasks=False) == apart
    of_class, drawn = class_scores(9, 20, 3, of_class=1, luck=0.2, seed=3)
    found = class_interval(torch.cat([of_class, torch.tensor([value])]), [*drawn, [0, 1, 2]])
    assert found == replace(class_interval(of_class, drawn), **{what: 1})


@pytest.mark.parametrize("count", [1, 5])
def test_where_nothing_is_finite_there_is_no_mean(count):
    bad = torch.full((count,), math.nan)
    for found in (interval(bad), difference(bad, normal(3)), seeds_interval([bad, bad])):
        assert math.isnan(found.mean)
        assert found.tasks == 0
    assert class_interval(bad, [(0, 1)] * count) is None


# Of equal scores


def test_equal_shares_have_the_exact_interval_of_their_tasks():
    """Clopper and Pearson's, by scipy: what share of all tasks may be another, and then have any score."""
    for count, share in ((2, 1.0), (3, 1.0), (3, 0.0), (7, 0.5), (600, 0.98)):
        low = stats.binomtest(count, count).proportion_ci(0.95, "exact").low
        found = interval(torch.full((count,), share), bounds=SHARE)
        assert (found.low, found.high) == pytest.approx((low * share, low * share + 1 - low))
        assert found.low < found.mean + 1e-9 < found.high + 2e-9
        apart = interval(torch.full((count,), share - 0.5), bounds=SHARES_APART)
        assert (apart.low, apart.high) == pytest.approx((low * (share - 0.5) - 1 + low, low * (share - 0.5) + 1 - low))


def test_equal_scores_without_bounds_have_no_interval():
    for scores in ([0.02] * 3, [0.0, 0.0], [1e9] * 4):
        found = interval(torch.tensor(scores))
        assert (found.low, found.high, found.tasks) == (-math.inf, math.inf, len(scores))


def test_what_differs_by_rounding_is_equal():
    ahead = torch.tensor([0.95 - 0.93, 0.97 - 0.95, 0.33 - 0.31], dtype=torch.float64)
    assert len(set(ahead.tolist())) > 1
    assert not interval(ahead, bounds=SHARES_APART).low > 0
    draws, units = torch.full((5,), 0.9, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1])
    assert interval(draws, units, bounds=SHARE).low < 0.5, "two tasks, whose means are not the same bits"
    assert interval(torch.tensor([1e6, 1e6 + 1.0])).low > 0, "but 1 is no rounding"


def clustered(share, tasks, answers=5, draws=4000):
    """Accuracies of tasks whose answers are all right or all wrong."""
    right = torch.rand(draws, tasks, 1, generator=torch.Generator().manual_seed(1)) < share
    return right.expand(draws, tasks, answers).double().mean(-1)


@pytest.mark.parametrize("tasks", [2, 3, 10])
@pytest.mark.parametrize("share", [0.1, 0.7, 0.9, 0.97])
def test_equal_accuracies_of_clustered_answers_miss_the_truth_at_most_5_times_of_100(share, tasks):
    drawn = clustered(share, tasks)
    equal = [scores for scores in drawn if len(set(scores.tolist())) == 1]
    found = [interval(scores, bounds=SHARE) for scores in equal]
    assert sum(not each.low <= share <= each.high for each in found) <= 0.05 * len(drawn)
    by_answers = [stats.binomtest(int(s.sum()) * 5, tasks * 5).proportion_ci(0.95, "exact") for s in equal[:1]]
    if (share, tasks) == (0.7, 3):
        assert by_answers[0].low > share, "counted by answers, it would miss it each time: a third of all"
        assert len(equal) > 0.3 * len(drawn)


def test_differences_of_equal_accuracies_are_covered():
    draws = [clustered(share, 4, draws=400).roll(place, 0) for place, share in enumerate((0.9, 0.6))]
    apart = [interval(scores, bounds=SHARES_APART) for scores in draws[0] - draws[1]]
    unpaired = [difference(*scores, bounds=SHARE) for scores in zip(*draws, strict=True)]
    for found in (apart, unpaired):
        assert sum(each.low <= 0.3 <= each.high for each in found) / len(found) >= 0.95
    equal, other = torch.ones(5), torch.tensor([0.5, 0.7, 0.9])
    parts = interval(equal, bounds=SHARE), interval(other, bounds=SHARE)
    found = difference(equal, other, bounds=SHARE)
    gap, reach = parts[0].mean - parts[1].mean, parts[1].half_width
    assert found.low == pytest.approx(gap - math.hypot(1 - parts[0].low, reach))
    assert found.high == pytest.approx(gap + reach), "the share of 1 has no more to go"
    assert difference(equal, other).high == math.inf
    assert difference(equal, equal, bounds=SHARE).low < 0


def test_equal_scores_of_several_seeds_have_a_width():
    alone = interval(torch.ones(6), bounds=SHARE)
    same = seeds_interval([torch.ones(6)] * 3, bounds=SHARE)
    assert (same.low, same.high) == (alone.low, alone.high)
    apart = seeds_interval([torch.ones(6)] * 3, same_tasks=False, bounds=SHARE)
    assert apart.low == interval(torch.ones(3), bounds=SHARE).low, "the seeds are what is counted"
    assert seeds_interval([torch.ones(6)] * 3).high == math.inf
    assert math.isinf(seeds_interval([torch.ones(1)] * 3, bounds=SHARE).half_width)
    assert seeds_interval([torch.ones(6)], bounds=SHARE).low == alone.low


def test_equal_scores_say_nothing_of_other_classes():
    assert class_interval(torch.ones(30), [(i % 9, (i + 1) % 9) for i in range(30)]) is None


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_equal_scores_need_as_many_tasks_as_their_interval_says(share):
    found = interval(torch.full((3,), share), bounds=SHARE)
    count = tasks_needed(found, 0.01)
    assert interval(torch.full((count,), share), bounds=SHARE).half_width <= 0.01
    assert interval(torch.full((count - 1,), share), bounds=SHARE).half_width > 0.01
    assert tasks_needed(found, 0.5) == tasks_needed(found, 2.0) == 2


# Over seeds and tasks


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coverage(found):
    return sum(each.low <= 0 <= each.high for each in found) / len(found)


@pytest.mark.parametrize("same_tasks", [True, False])
@pytest.mark.parametrize(("seeds", "tasks", "between"), [(3, 60, 0.1), (5, 40, 0.5), (4, 50, 0.0)])
def test_other_seeds_and_other_tasks_are_covered_95_times_of_100(seeds, tasks, between, same_tasks):
    of_tasks = normal(1000, 1 if same_tasks else seeds, tasks, seed=1)
    scores = between * normal(1000, seeds, 1, seed=2) + of_tasks + 0.7 * normal(1000, seeds, tasks, seed=3)
    found = [seeds_interval(list(table), same_tasks=same_tasks) for table in scores]
    assert 0.93 <= coverage(found) <= 0.97


def test_one_seed_or_equal_seeds_give_the_interval_over_tasks():
    scores = normal(30)
    alone = interval(scores)
    for found in (seeds_interval([scores]), seeds_interval([scores] * 3)):
        assert (found.low, found.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
        assert found.between == 0
    assert seeds_interval([scores] * 3).seeds == 3


def test_the_parts_are_those_of_the_two_way_table():
    """Against the mean squares by numpy."""
    table = normal(4, 20).numpy() + np.arange(4)[:, None]
    found = seeds_interval([torch.from_numpy(row) for row in table])
    seeds, tasks = table.shape
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    mean_square = [
        tasks * table.mean(1).var(ddof=1),
        seeds * table.mean(0).var(ddof=1),
        (rest**2).sum() / ((seeds - 1) * (tasks - 1)),
    ]
    a, b, e = (square / (seeds * tasks) for square in mean_square)
    variance = max(a + b - e, a, b)
    freedom = variance**2 / (a**2 / 3 + b**2 / 19 + e**2 / 57)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5)
    assert found.between == pytest.approx((a - e) ** 0.5)
    assert found.within == pytest.approx(b**0.5)


def test_seeds_with_tasks_of_their_own_are_independent_numbers():
    scores = [normal(10 + seed, seed=seed) for seed in range(4)]
    expected = interval(torch.stack([of_seed.mean() for of_seed in scores]))
    found = seeds_interval(scores, same_tasks=False)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_seeds_on_the_same_tasks_have_as_many():
    with pytest.raises(UserError, match=r"scored on 10, 12 tasks.*same_tasks=False"):
        seeds_interval([normal(10), normal(12)])


# Over classes


def class_scores(classes, tasks, way, *, of_class, luck, seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(tasks, classes, generator=generator).argsort(1)[:, :way]
    effects = of_class * torch.randn(classes, generator=generator, dtype=torch.float64)
    return effects[drawn].mean(1) + luck * torch.randn(tasks, generator=generator, dtype=torch.float64), drawn.tolist()


@pytest.mark.parametrize(("classes", "of_class"), [(20, 0.3), (40, 0.5)])
@pytest.mark.slow
def test_other_classes_are_covered_where_the_interval_over_tasks_is_too_narrow(classes, of_class):
    """TRAPS T23, and Lafargue et al., 2024: many tasks of few classes say little of other classes."""
    drawn = [class_scores(classes, 300, 5, of_class=of_class, luck=0.3, seed=seed) for seed in range(1000)]
    assert 0.92 <= coverage([class_interval(*each) for each in drawn]) <= 0.97
    assert coverage([interval(scores) for scores, _ in drawn]) < 0.7


@pytest.mark.slow
def test_without_class_effects_it_is_the_interval_over_tasks():
    found = [class_scores(20, 200, 5, of_class=0, luck=0.3, seed=seed) for seed in range(200)]
    ratios = [class_interval(*each).half_width / interval(each[0]).half_width for each in found]
    assert 0.99 <= np.median(ratios) <= 1.3
    assert coverage([class_interval(*each) for each in found]) >= 0.94


def test_more_tasks_of_the_same_classes_do_not_narrow_it():
    narrow, wide = (class_scores(20, tasks, 5, of_class=1, luck=0.1, seed=0) for tasks in (6000, 600))
    assert class_interval(*narrow).half_width > 0.8 * class_interval(*wide).half_width
    assert class_interval(*wide).classes == 20


def test_without_several_classes_there_is_none():
    assert class_interval(normal(5), [()] * 5) is None
    assert class_interval(normal(5), [(0, 1, 2)] * 5) is None, "all tasks of the same classes tell nothing"


def test_the_variances_are_those_of_the_dense_moments():
    """By numpy, with tasks of two ways."""
    scores, drawn = class_scores(9, 40, 4, of_class=1, luck=0.2, seed=3)
    drawn = [classes[: 2 + index % 3] for index, classes in enumerate(drawn)]
    shares = np.array([[(number in classes) / len(classes) for number in range(9)] for classes in drawn])
    centered, rest = shares - shares.mean(0), (scores - scores.mean()).numpy()
    products = centered.T @ centered
    weights = [[np.trace(products), 39], [np.square(products).sum(), np.trace(products)]]
    of_classes, luck = np.linalg.solve(weights, [rest @ rest, np.square(centered.T @ rest).sum()])
    parts = of_classes * np.square(shares.mean(0)).sum(), luck / 40
    assert min(parts) > 0
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 8 + parts[1] ** 2 / 39)
    expected = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert class_interval(scores, drawn).half_width == pytest.approx(expected)


def test_many_classes_take_no_long_time():
    """The dense products of 12,000 classes would take minutes, and gigabytes."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(12_000, (600, 20), generator=generator).tolist()
    start = time.process_time()
    assert class_interval(normal(600), [sorted(set(classes)) for classes in drawn]).half_width > 0
    assert time.process_time() - start < 2
