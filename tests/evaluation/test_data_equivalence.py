"""Data equivalence: known factors are found, with honest intervals and ends."""

import math

import pytest
import torch

from handful.errors import UserError
from handful.evaluation.data_equivalence import equivalence

SIZES = [1, 2, 5, 10, 20, 50]


def accuracies(sizes, tasks=200, *, noise=0.0, generator=None):
    """A conventional curve that rises by the logarithm of the examples, with luck of its own in each task."""
    luck = torch.zeros(len(sizes), tasks) if generator is None else torch.randn(len(sizes), tasks, generator=generator)
    return [0.3 + 0.1 * math.log(size) + noise * row.double() for size, row in zip(sizes, luck, strict=True)]


@pytest.mark.parametrize("factor", [1.0, 3.0, 6.2])
def test_a_known_factor_is_found(factor):
    own = torch.full((200,), 0.3 + 0.1 * math.log(5 * factor))
    found = equivalence(own, 5, accuracies(SIZES), SIZES)
    assert found.factor == pytest.approx(factor, rel=1e-5)
    assert (found.low, found.high) == (0, math.inf), "of equal scores all resamples are the same"
    assert str(found).endswith("(no interval)")
    assert (found.tasks, found.shot) == (200, 5)


def test_of_errors_lower_is_better():
    found = equivalence(
        torch.full((9,), -0.3 - 0.1 * math.log(20)),
        5,
        [-c for c in accuracies(SIZES, 9)],
        SIZES,
        higher_is_better=False,
    )
    assert found.factor == pytest.approx(4, rel=1e-5)


def test_what_is_never_reached_is_a_lower_bound_and_what_is_there_from_the_start_an_upper_one():
    above = equivalence(torch.full((50,), 0.95), 5, accuracies(SIZES, 50), SIZES)
    assert (above.factor, above.low, str(above)) == (math.inf, 0.0, "at least 10")
    below = equivalence(torch.full((50,), 0.1), 5, accuracies(SIZES, 50), SIZES)
    assert (below.factor, below.high, str(below)) == (0.0, math.inf, "at most 0.2")


def test_an_interval_that_leaves_the_curve_is_open():
    generator = torch.Generator().manual_seed(3)
    own = 0.3 + 0.1 * math.log(45) + 0.3 * torch.randn(40, generator=generator, dtype=torch.float64)
    found = equivalence(own - own.mean() + 0.3 + 0.1 * math.log(45), 5, accuracies(SIZES, 40), SIZES)
    assert found.high == math.inf
    assert str(found) == f"9 ({found.low:.2g} or more)"


def test_it_prints_value_and_interval():
    generator = torch.Generator().manual_seed(0)
    own = 0.3 + 0.1 * math.log(31) + 0.1 * torch.randn(200, generator=generator, dtype=torch.float64)
    found = equivalence(own, 5, accuracies(SIZES), SIZES)
    assert str(found) == f"{found.factor:.2g} ({found.low:.2g} to {found.high:.2g})"


def test_a_curve_that_falls_somewhere_is_made_monotone():
    """Dips are pooled with their neighbors: 0.4, 0.6, 0.5 become 0.4, 0.55, 0.55."""
    found = equivalence(torch.full((4,), 0.55), 1, [torch.full((4,), v) for v in (0.4, 0.6, 0.5)], [1, 4, 16])
    assert found.factor == pytest.approx(4, rel=1e-6)


def test_the_best_way_counts_at_each_size():
    ways = [torch.tensor([[0.5] * 3, [0.2] * 3]), torch.tensor([[0.5] * 3, [0.9] * 3])]
    assert equivalence(torch.full((3,), 0.7), 1, ways, [1, 4]).factor == pytest.approx(2, rel=1e-6)


def test_draws_of_one_unit_count_once():
    generator = torch.Generator().manual_seed(0)
    own = 0.5 + 0.1 * torch.randn(10, generator=generator, dtype=torch.float64)
    once = equivalence(own, 1, accuracies(SIZES, 10), SIZES)
    units = torch.arange(10).repeat_interleave(7)
    again = equivalence(own.repeat_interleave(7), 1, accuracies(SIZES, 70), SIZES, units=units)
    assert (again.tasks, again.factor) == (10, pytest.approx(once.factor))
    assert again.low == pytest.approx(once.low)


@pytest.mark.slow
def test_the_interval_covers_the_factor_95_times_of_100():
    """Learner and curve share the luck of each task, as paired tasks do."""
    generator = torch.Generator().manual_seed(0)
    covered, experiments, truth = 0, 200, 4.0
    for _ in range(experiments):
        luck = 0.1 * torch.randn(100, generator=generator, dtype=torch.float64)
        curve = [scores + luck for scores in accuracies(SIZES, 100, noise=0.05, generator=generator)]
        own = 0.3 + 0.1 * math.log(5 * truth) + luck
        own = own + 0.05 * torch.randn(100, generator=generator, dtype=torch.float64)
        found = equivalence(own, 5, curve, SIZES)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / experiments <= 0.98


def test_sizes_that_do_not_ascend_are_refused():
    with pytest.raises(UserError, match="ascending"):
        equivalence(torch.zeros(3), 1, [torch.zeros(3)] * 2, [4, 1])
