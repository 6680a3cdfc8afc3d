"""The problems have the minima and the difficulty that they are said to have."""

import numpy as np
import pytest
import torch

from handful.errors import UserError
from handful.evaluation.scoring import evaluate
from handful.registry import LEARNERS
from handful.tasks.optimization_problems import Quadratics, SmallNetworks


def test_quadratics_are_linear_without_an_intercept_and_queries_have_the_supports_minimum():
    source = Quadratics(dimensions=6).with_sizes(shot=8, query_shot=5)
    minima = []
    for index in range(20):
        task = source.task(index)
        assert [tuple(part.inputs.shape) for part in task] == [(8, 6), (5, 6)]
        minimum, *_ = np.linalg.lstsq(*(part.numpy() for part in task.support), rcond=None)
        np.testing.assert_allclose(task.query.inputs.numpy() @ minimum, task.query.targets, atol=1e-3)
        minima.append(minimum[:, 0])
    assert 0.7 < np.std(minima) < 1.3


def test_teachers_are_curved_functions_of_about_unit_size_that_differ():
    source = SmallNetworks(inputs=3).with_sizes(shot=400)
    shares, sizes = [], []
    for index in range(20):
        inputs, targets = (part.double().numpy() for part in source.task(index).support)
        design = np.column_stack([inputs, np.ones(len(inputs))])
        weights, *_ = np.linalg.lstsq(design, targets, rcond=None)
        shares.append(np.var(targets - design @ weights) / np.var(targets))
        sizes.append(np.var(targets))
    assert 0.05 < np.mean(shares) < 0.9, "neither a plane nor noise"
    assert 0.1 < np.mean(sizes) < 1.5
    assert len({round(size, 6) for size in sizes}) == 20


def test_queries_come_from_the_supports_teacher():
    near = LEARNERS["ridge-probe"].build(SmallNetworks().spec)
    score = evaluate(near, SmallNetworks().split("test"), tasks=40).score
    spread = torch.stack([SmallNetworks().split("test").task(i).query.targets.var() for i in range(40)]).mean()
    assert score.mean < 0.9 * spread, "even a plane says something of the queries"


def test_clusters_are_balanced_and_no_straight_line_divides_them():
    source = SmallNetworks(problem="classification").with_sizes(way=3, shot=20, query_shot=10)
    assert (source.spec.kind, source.spec.outputs, source.spec.labels) == ("classification", 3, "permuted")
    task = source.task(0)
    assert torch.bincount(task.support.targets).tolist() == [20] * 3
    assert torch.bincount(task.query.targets).tolist() == [10] * 3
    test = source.split("test")
    centroid, neighbors = (
        evaluate(LEARNERS[key].build(test.spec, backbone="raw"), test, tasks=60).score.mean
        for key in ("centroid", "neighbors")
    )
    assert 1 / 3 + 0.1 < centroid < neighbors - 0.05


@pytest.mark.parametrize("source", [Quadratics, SmallNetworks])
def test_without_inputs_there_is_no_problem(source):
    with pytest.raises(UserError, match="at least 1"):
        source(**{"dimensions" if source is Quadratics else "inputs": 0})


def test_a_problem_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="regression or classification"):
        SmallNetworks(problem="ranking")
