"""What a report tells beside the ladder: other classes, how many tasks, and the data equivalence."""

import json
import math

import pytest
import torch

from handful.evaluation.data_equivalence import equivalence
from handful.evaluation.intervals import class_interval
from handful.registry import METRICS
from handful.reports import plots
from handful.reports.report import Report
from handful.reports.summary_lines import needed_line
from results import compare, evaluation, noisy

CLASSES = tuple(
    tuple(row) for row in torch.rand(100, 12, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :5].tolist()
)


def report(**more):
    own = evaluation("maml", noisy(0.8), classes=CLASSES)
    return Report("Letters", "letters", [compare(own, evaluation("centroid", noisy(0.5)))], "best", 0, "vmap", **more)


def factor():
    curve = [torch.full((100,), value) for value in (0.5, 0.7, 0.9)]
    return equivalence(noisy(0.8), 1, curve, [1, 4, 16])


def test_the_interval_for_other_classes_stands_beside_the_one_over_tasks():
    written = json.loads(json.dumps(report().to_json()))
    score = written["settings"][0]["rows"][0]["score"]
    expected = class_interval(noisy(0.8), CLASSES)
    assert score["over_classes"]["classes"] == 12
    assert score["over_classes"]["high"] == pytest.approx(expected.high)
    assert "over_classes" not in written["settings"][0]["rows"][1]["score"]
    assert "For other classes of the same kind: maml 80.0" in report().to_markdown({})


def test_the_scores_hold_what_the_interval_for_other_classes_follows_from():
    (setting,) = report().scores_to_json()["settings"]
    again = class_interval(torch.tensor(setting["rows"][0]["scores"]), setting["classes"])
    assert again.classes == 12


def test_it_tells_how_many_tasks_a_wanted_interval_takes():
    """Its half-width shrinks with the square root."""
    own = evaluation("maml", noisy(0.8))
    half = own.score.half_width
    found = report(half_width=half / 3).to_json()["tasks_needed"][0]
    assert found["tasks"] == pytest.approx(900, abs=1)
    assert found["more"] == found["tasks"] - 100
    assert f"needs about {found['tasks']} tasks" in report(half_width=half / 3).to_markdown({})
    assert "100 tasks scored are enough" in needed_line(own, 1.01 * half)


def test_it_does_not_ask_for_draws_of_tasks_that_the_data_does_not_have():
    units = torch.arange(100) % 10
    line = needed_line(evaluation("maml", noisy(0.8), units=units), 0.001)
    assert "which the data does not have" in line


def test_the_data_equivalence_is_told_drawn_and_written():
    found = factor()
    made = report(equivalence=found)
    written = made.to_json()["equivalence"]
    assert written["factor"] == pytest.approx(8)
    assert written["words"] == str(found)
    text = " ".join(made.to_markdown({}).split())
    assert f"needs {found} times as many examples" in text


@pytest.mark.parametrize("own", [0.8, 0.95, 0.1])
def test_the_curve_over_shots_shows_it(own):
    curve = [torch.full((20,), value) for value in (0.5, 0.7, 0.9)]
    found = equivalence(torch.full((20,), own), 1, curve, [1, 4, 16])
    shown = evaluation("maml", noisy(own)).score
    figure = plots.shots_curve({"maml": [(1, shown), (5, shown)]}, METRICS["accuracy"], equivalence=found)
    texts = [text.get_text() for text in figure.axes[0].texts]
    expected = {0.8: "x 8", 0.95: "x 16 or more"}.get(own)
    assert (expected in texts) if expected else not any(texts)
    assert math.isfinite(figure.axes[0].get_xlim()[1])
