"""Relation networks against their formulas."""

import numpy as np
import pytest
import torch

from contracts.problems import IMAGES, ROWS
from contracts.test_learners import check_meta_gradient, check_meta_gradients_agree, meta_train, scores
from handful.learners.relation import RelationNetwork


def logits_of(learner, task):
    """Relation scores `(queries, way)` pair by pair, by numpy."""
    with torch.no_grad():
        support, queries = (learner.backbone(examples.inputs).numpy() for examples in task)
    first, first_bias, second, *second_bias = (value.detach().numpy() for value in learner.relation.parameters())
    rows = []
    for query in queries:
        rows.append([])
        for c in range(3):
            mean = support[(task.support.targets == c).numpy()].mean(0)
            hidden = first @ np.concatenate([mean, query, np.abs(mean - query)]) + first_bias
            rows[-1].append((second @ (hidden / (1 + np.exp(-hidden))) + sum(second_bias)).item())
    return np.array(rows)


@pytest.mark.parametrize("problem", [ROWS, IMAGES], ids=str)
def test_logits_are_what_the_relation_module_says_of_class_and_query(problem):
    learner, task = problem.learner(RelationNetwork), problem.task()
    logits = learner.predict(learner.adapt(task.support, problem.spec), task.query.inputs).logits
    np.testing.assert_allclose(logits.detach().numpy(), logits_of(learner, task), atol=1e-9)


def test_the_paper_s_loss_is_the_squared_error_of_scores():
    learner, task = ROWS.learner(RelationNetwork, loss="mse"), ROWS.task()
    relations = 1 / (1 + np.exp(-logits_of(learner, task)))
    expected = np.mean((relations - np.eye(3)[task.query.targets.numpy()]) ** 2)
    assert learner.meta_loss(task, ROWS.spec).item() == pytest.approx(expected, abs=1e-9)


def test_the_paper_s_loss_has_the_exact_gradient_in_all_plans():
    check_meta_gradient(ROWS.learner(RelationNetwork, loss="mse"), ROWS)
    check_meta_gradients_agree(ROWS.learner(RelationNetwork, loss="mse"), ROWS)


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_meta_training_makes_it_tell_new_classes_apart(loss):
    learner, tasks = ROWS.learner(RelationNetwork, loss=loss), ROWS.tasks(60, seed=10_000)
    before = scores(learner, tasks, ROWS)
    meta_train(learner, ROWS, steps=40)
    gain = scores(learner, tasks, ROWS) - before
    assert gain.mean() > 0.15
