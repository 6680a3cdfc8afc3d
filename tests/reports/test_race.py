"""The race in a report: its table, and its picture."""

from itertools import pairwise

import pytest

from handful.reports import plots
from handful.reports.race import RaceResult


def candidate(name, score, *, dropped=None, rounds=(), behind=(0.5, 0.25, 0.75)):
    gap = dict(zip(("mean", "low", "high"), behind, strict=True))
    return {
        "name": name,
        "score": score,
        "behind": gap,
        "adapt_seconds": 0.002,
        "dropped": dropped,
        "rounds": list(rounds),
    }


FIELD = (
    candidate("cnp", 1.0, rounds=[[2.0, 4.0], [5.0, 1.0]], behind=(0.0, 0.0, 0.0)),
    candidate("maml", 2.25, rounds=[[2.0, 2.25]], dropped="after round 1, surely behind cnp"),
    candidate("ridge-probe", 9.0),
    candidate("dummy", None, behind=(None, None, None)),
)


def race(metric="rmse", **facts):
    summary = {"winner": "cnp", "metric": metric, "tasks": 40, "candidates": FIELD, "left_out": {"anp": "it diverged"}}
    return RaceResult.from_json(summary | facts)


def test_the_table_has_every_candidate_and_why_it_is_not_the_one():
    page = race().markdown()
    assert "cnp is the best of 4 candidates on the same 40 validation tasks" in page
    assert "| **cnp** | RMSE 1 |  | 2 ms | kept |" in page
    assert "| maml | RMSE 1.5 | 0.500 (0.250 to 0.750) squared | 2 ms | after round 1, surely behind cnp |" in page
    assert "| dummy | none |  | 2 ms |  |" in page
    assert "| anp |  |  |  | it diverged |" in page
    assert "Tried" not in page
    assert "A trained candidate is kept only if its 60 % interval" in race(start=["ridge-probe", "dummy"]).markdown()
    assert "A trained candidate" not in page


def test_shares_are_apart_by_points_and_what_was_tried_is_there():
    page = race("accuracy", heads=["ridge: kept, gain +0.0100 (+0.0010 to +0.0200)"]).markdown()
    assert "50.0 points (25.0 to 75.0)" in page
    assert page.endswith("Tried on its network:\n\n- ridge: kept, gain +0.0100 (+0.0010 to +0.0200)")


def test_the_picture_marks_those_that_were_dropped_and_names_all_with_a_score():
    (axes,) = plots.race(race()).axes
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(2.0, 1.5)]
    assert {text.get_text() for text in axes.texts} == {"cnp 1.00", "maml 1.50", "ridge-probe 3.00"}
    heights = sorted(text.xyann[1] for text in axes.texts)
    low, high = axes.get_ylim()
    assert all(upper - lower >= 0.054 * (high - low) for lower, upper in pairwise(heights))


@pytest.mark.parametrize(
    ("heights", "found"), [([9, 5, 1], [9, 5, 1]), ([5, 5, 5], [6, 5, 4]), ([9, 2, 2], [9, 2.5, 1.5])]
)
def test_names_move_as_little_as_they_need(heights, found):
    assert plots._apart(heights, 1.0) == pytest.approx(found)
