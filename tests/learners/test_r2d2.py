"""The ridge head against the normal equations."""

import pytest
import torch

from contracts.problems import ROWS, VALUES
from handful.learners.r2d2 import R2D2
from handful.types import Examples, TaskSpec


@pytest.mark.parametrize(("examples", "features"), [(4, 9), (9, 4), (6, 6)])
@pytest.mark.parametrize("regularization", [0.01, 1.0, 30.0])
def test_the_head_is_the_ridge_solution_with_few_and_with_many_examples(examples, features, regularization):
    spec = TaskSpec("regression", (features,), 2)
    learner = R2D2.build(spec, backbone="raw", regularization=regularization).double()
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(examples, n, generator=generator, dtype=torch.float64) + 1 for n in (features, 2))
    state = learner.adapt(Examples(inputs, targets), spec)
    x, y = inputs - inputs.mean(0), targets - targets.mean(0)
    strength = learner.log_regularization.exp() * features  # it is relative to the number of features
    weights = torch.linalg.inv(x.mT @ x + strength * torch.eye(features)) @ x.mT @ y
    torch.testing.assert_close(state["weights"].mT, weights)
    torch.testing.assert_close(state["bias"], targets.mean(0) - inputs.mean(0) @ weights)
    torch.testing.assert_close(learner.predict(state, inputs).mean, y.mean(0) + targets.mean(0) + x @ weights)


def test_an_affine_task_is_solved_from_its_support():
    learner = R2D2.build(VALUES.spec, backbone="raw", regularization=1e-9).double()
    task = VALUES.task()
    mean = learner.predict(learner.adapt(task.support, VALUES.spec), task.query.inputs).mean
    torch.testing.assert_close(mean, task.query.targets, rtol=1e-5, atol=1e-5)


def test_values_are_not_shrunk_before_anything_is_learned():
    spec = TaskSpec("regression", (3,), 1)
    inputs = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]])
    learner = R2D2.build(spec, backbone="raw")
    state = learner.adapt(Examples(inputs[:10], targets[:10]), spec)
    assert learner.predict(state, inputs[10:]).loss(targets[10:]).mean() < 0.01 * targets.square().mean()


def test_logits_are_the_regression_of_one_hot_classes_scaled():
    learner, task = ROWS.learner(R2D2), ROWS.task()
    state = learner.adapt(task.support, ROWS.spec)
    outputs = learner.backbone(task.query.inputs) @ state["weights"].mT + state["bias"]
    logits = learner.predict(state, task.query.inputs).logits
    torch.testing.assert_close(logits, outputs * learner.log_scale.exp())
    torch.testing.assert_close(outputs.sum(-1), torch.ones(len(outputs), dtype=torch.float64))


def test_a_constant_target_is_answered_by_itself():
    spec = TaskSpec("regression", (3,), 1)
    learner = R2D2.build(spec, backbone="raw")
    state = learner.adapt(Examples(torch.randn(4, 3), torch.full((4, 1), 7.0)), spec)
    torch.testing.assert_close(learner.predict(state, 100 * torch.randn(5, 3)).mean, torch.full((5, 1), 7.0))
