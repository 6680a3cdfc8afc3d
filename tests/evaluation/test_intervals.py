"""Intervals: right by an independent computation, and honest about units."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from handful.evaluation.intervals import Interval, interval, tasks_needed


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
