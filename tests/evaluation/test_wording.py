"""Numbers are written as a reader takes them in, and with no more digits than their intervals leave certain."""

import math

import pytest

from handful.evaluation.intervals import Interval
from handful.evaluation.wording import difference, estimate


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


def test_a_difference_has_its_sign_and_accuracies_are_in_points():
    assert difference(known(0.0123, 0.0047), "accuracy") == "+1.2 ± 0.5"
    assert difference(known(-0.0001, 0.0047), "accuracy") == "+0.0 ± 0.5", "no minus zero"
    assert difference(known(-0.0123, 0.0045), "mse") == "-0.0123 ± 0.0045"
    assert difference(known(4.72e-05, 0.043), "mse") == "+0.000 ± 0.043"
