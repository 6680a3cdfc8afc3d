"""Predictions in the user's words."""

import pytest
import torch

from handful.models.results import results, results_of_each
from handful.registry import LEARNERS
from handful.types import Categorical, Gaussian, Point, TaskSpec
from models.test_meta_model import VALUES, examples, model


def test_classes_are_named_and_ranked():
    meta = model()
    task = meta.adapt(torch.randn(6, 4), list("zyxzyx"))
    prediction = Categorical(torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]).log_softmax(-1))
    first, second = results(task, prediction)
    assert (first.label, second.label) == ("y", "x")
    assert list(first.probabilities) == ["x", "y", "z"]
    assert first.probability == first.probabilities["y"] == pytest.approx(0.6652, abs=1e-4)
    assert first.to_json().keys() == {"label", "probability", "probabilities"}
    assert list(results(task, prediction, top=2)[0].probabilities) == ["y", "z"]
    assert results(task, Categorical(torch.zeros(0, 3))) == []


def test_many_predictions_are_shown_as_each_by_itself():
    meta, values = model(), model(LEARNERS["ridge-probe"], VALUES).adapt(*examples(VALUES))
    three, two = meta.adapt(torch.randn(6, 4), list("zyxzyx")), meta.adapt(torch.randn(4, 4), list("baba"))
    made = [
        (three, Categorical(torch.randn(2, 3)), None),
        (two, Categorical(torch.randn(1, 2)), None),
        (values, Point(torch.randn(2, 2)), None),
        (three, Categorical(torch.zeros(0, 3)), None),
        (three, Categorical(torch.randn(1, 3)), 1),
    ]
    assert results_of_each(made) == [results(task, prediction, top=top) for task, prediction, top in made]
    assert results_of_each([]) == []


def test_values_have_their_names_and_bounds():
    task = model(LEARNERS["ridge-probe"], VALUES).adapt(*examples(VALUES))
    [several] = results(task, Point(torch.tensor([[1.0, 2.0]])))
    assert several.to_json() == {"value": {"value 0": 1.0, "value 1": 2.0}}
    one = model(LEARNERS["ridge-probe"], TaskSpec("regression", (4,), 1)).adapt(torch.randn(4, 4), torch.randn(4))
    [found] = results(one, Gaussian(torch.tensor([[3.0]]), torch.tensor([[4.0]])))
    assert list(found.to_json()) == ["value", "deviation", "low", "high"]
    assert list(found.to_json().values()) == pytest.approx([3.0, 2.0, 3 - 3.92, 3 + 3.92], abs=1e-3)
    [several] = results(task, Gaussian(torch.zeros(1, 2), torch.tensor([[4.0, 9.0]])))
    assert several.deviation == {"value 0": 2.0, "value 1": 3.0}
