"""Successive halving in steps, and the schedule of a candidate that is corrected or runs out of time."""

import pytest

from handful.workflows.race_steps import LAST_PART, Course, rounds, targets


@pytest.mark.parametrize(
    ("candidates", "counts"), [(0, []), (1, [1, 1]), (2, [2, 1]), (6, [6, 2, 1]), (10, [10, 3, 1])]
)
def test_a_third_goes_on_down_to_one(candidates, counts):
    assert rounds(candidates) == counts


def test_candidates_share_the_time_of_a_round_equally():
    """Two, of which one takes steps twice as long: 60 s in the first round, 30 s each, and 60 s in the last."""
    fast, slow = (targets(120, [2, 1], per_step, 2.0, 5) for per_step in (0.1, 0.2))
    assert fast == [280, 280 + 500]
    assert slow == [140, 140 + 250]
    assert targets(0.0, [3, 1], 1.0, 1.0, 5) == [1, 2], "there is a step in each round, however short the time"


def test_a_schedule_that_is_not_corrected_is_that_of_the_first_steps():
    course = Course(100)
    assert course.total == 100
    assert [course.position(step) for step in (0, 50, 99)] == [0, 50, 99]


@pytest.mark.parametrize("corrected", [60, 200])
def test_a_corrected_schedule_goes_on_from_where_it_was_to_its_end(corrected):
    course = Course(100, corrected=corrected, corrected_at=40)
    places = [course.position(step) for step in range(corrected + 1)]
    assert course.total == corrected
    assert places[:41] == list(range(41))
    assert places == sorted(places)
    assert places[-1] == pytest.approx(100)


@pytest.mark.parametrize("corrected", [None, 80])
def test_out_of_time_the_schedule_jumps_to_its_last_part(corrected):
    course = Course(100, corrected=corrected, corrected_at=40, ending=50, ending_steps=5)
    assert course.total == 55
    assert course.position(49) < 70
    assert course.position(50) == pytest.approx(100 * (1 - LAST_PART))
    assert course.position(55) == pytest.approx(100)


def test_where_the_last_part_has_begun_there_is_no_jump_back():
    course = Course(100, ending=98, ending_steps=5)
    assert course.position(98) == 98
    assert course.position(103) == pytest.approx(100)
