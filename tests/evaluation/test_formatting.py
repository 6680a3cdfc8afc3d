"""Numbers are written as a reader takes them in, and with no more digits than their intervals leave certain."""

import math
from dataclasses import replace

import pytest
import torch

from handful.evaluation.formatting import difference, estimate, nats, percent, points
from handful.evaluation.intervals import SHARE, SHARES_APART, Interval, interval


def known(mean, half_width):
    return Interval(mean, mean - half_width, mean + half_width, 100)


@pytest.mark.parametrize(
    ("mean", "half_width", "text"),
    [
        (0.3972, 0.0404, "0.397 ± 0.040"),
        (0.000489, 0.00018, "0.00049 ± 0.00018"),
        (4.72e-05, 0.043, "0.000 ± 0.043"),
        (-4.72e-05, 0.043, "0.000 ± 0.043"),
        (12345.6, 678.0, "12,346 ± 680"),
        (1234.5, 0.05, "1,234 ± 0.050"),
        (0.3972, 0.0, "0.397 ± 0.0"),
        (0.3972, math.inf, "0.397"),
        (4.72e-05, math.nan, "4.72e-05"),
    ],
)
def test_an_estimate_has_no_digits_below_those_of_its_interval(mean, half_width, text):
    assert estimate(known(mean, half_width)) == text


def test_an_interval_whose_mean_is_not_its_middle_is_told_by_its_ends():
    """That of equal scores."""
    three = interval(torch.ones(3), bounds=SHARE)
    assert percent(three) == "100.0 (29.2 to 100.0) %"
    assert percent(interval(torch.full((3,), 0.5), bounds=SHARE)) == "50.0 ± 35.4 %"
    ahead = interval(torch.full((3,), 0.02), bounds=SHARES_APART)
    assert difference(ahead, share=True) == "+2.0 (-70.2 to +71.3)"
    assert points(ahead) == "2.0 points (-70.2 to +71.3)"
    behind = interval(torch.full((3,), -0.02), bounds=SHARES_APART)
    assert difference(behind, share=True) == "-2.0 (-71.3 to +70.2)"
    assert points(behind) == points(ahead), "of the one that is ahead"
    assert points(known(-0.05, 0.01)) == "5.0 ± 1.0 points"
    assert points(known(0.05, math.inf)) == "5.0 points"


def test_what_diverged_is_told_beside_each_score():
    some = replace(known(0.5, 0.1), diverged=3)
    assert percent(some) == "50.0 ± 10.0 % (3 diverged)"
    assert estimate(some) == "0.50 ± 0.10 (3 diverged)"
    assert nats(some) == "0.500 ± 0.100 nats (3 diverged)"
    assert estimate(replace(known(math.nan, 0.1), diverged=3)) == "diverged"


def test_a_difference_has_its_sign_and_accuracies_are_in_points():
    assert difference(known(0.0123, 0.0047), share=True) == "+1.2 ± 0.5"
    assert difference(known(-0.0001, 0.0047), share=True) == "+0.0 ± 0.5", "no minus zero"
    assert difference(known(-0.0123, 0.0045), share=False) == "-0.0123 ± 0.0045"
    assert difference(known(4.72e-05, 0.043), share=False) == "+0.000 ± 0.043"
