"""Matching networks against their formulas."""

import numpy as np
import pytest
import torch

from contracts.problems import IMAGES, ROWS, SHARED, VALUES
from contracts.test_learners import meta_train, scores
from handful.learners.matching import MatchingNetwork
from handful.types import Examples


def attention_of(learner, task):
    """The softmax of scaled cosines `(queries, n)`, by numpy."""
    with torch.no_grad():
        support, queries = (learner.backbone(examples.inputs).numpy() for examples in task)
        scale = learner.log_scale.exp().item()
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(support, axis=1)
    weights = np.exp(scale * queries @ support.T / np.maximum(lengths, 1e-12))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("problem", [ROWS, IMAGES, SHARED], ids=str)
def test_probabilities_are_the_attention_on_each_class(problem):
    learner, task = problem.learner(MatchingNetwork), problem.task()
    expected = attention_of(learner, task) @ np.eye(3)[task.support.targets.numpy()]
    logits = learner.predict(learner.adapt(task.support, problem.spec), task.query.inputs).logits
    np.testing.assert_allclose(logits.detach().numpy(), np.log(expected), atol=1e-9)


def test_values_are_the_attended_mean_of_the_targets():
    learner, task = VALUES.learner(MatchingNetwork), VALUES.task()
    expected = attention_of(learner, task) @ task.support.targets.numpy()
    mean = learner.predict(learner.adapt(task.support, VALUES.spec), task.query.inputs).mean
    np.testing.assert_allclose(mean.detach().numpy(), expected, atol=1e-9)


def test_the_order_of_the_support_does_not_matter():
    learner, task = ROWS.learner(MatchingNetwork), ROWS.task()
    order = torch.randperm(len(task.support.inputs), generator=torch.Generator().manual_seed(0))
    mixed = Examples(*(leaf[order] for leaf in task.support))
    first, second = (learner.predict(learner.adapt(s, ROWS.spec), task.query.inputs) for s in (task.support, mixed))
    torch.testing.assert_close(first.logits, second.logits)


def test_sharp_attention_leaves_logits_and_gradients_finite():
    """In plain probabilities the other classes would be 0, and their logarithms infinite."""
    learner, task = ROWS.learner(MatchingNetwork, temperature=1e4), ROWS.task()
    task.query.targets.zero_()
    loss = learner.meta_loss(task, ROWS.spec)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in learner.parameters())


def test_an_absent_class_is_never_the_answer_nor_changes_the_others():
    learner, task = SHARED.learner(MatchingNetwork), SHARED.task()
    present = task.support.targets != 1
    support = Examples(task.support.inputs[present], task.support.targets[present])
    logits = learner.predict(learner.adapt(support, SHARED.spec), task.query.inputs).logits
    expected = attention_of(learner, task._replace(support=support)) @ np.eye(3)[support.targets.numpy()]
    assert (logits.argmax(-1) != 1).all()
    np.testing.assert_allclose(logits.detach().numpy()[:, [0, 2]], np.log(expected[:, [0, 2]]), atol=1e-9)


@pytest.mark.parametrize("problem", [ROWS, VALUES], ids=str)
def test_meta_training_makes_it_better_on_new_tasks(problem):
    learner, tasks = problem.learner(MatchingNetwork), problem.tasks(60, seed=10_000)
    before = scores(learner, tasks, problem)
    meta_train(learner, problem, steps=40)
    gain = scores(learner, tasks, problem) - before
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5


def test_temperature_is_where_the_scale_starts():
    learner = MatchingNetwork.build(ROWS.spec, backbone="raw", temperature=2.5)
    torch.testing.assert_close(learner.log_scale.exp(), torch.tensor(2.5))
