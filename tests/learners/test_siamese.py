"""Siamese networks against their formulas."""

from itertools import combinations

import numpy as np
import pytest
import torch

from contracts.problems import IMAGES, ROWS
from contracts.test_learners import meta_train, scores
from handful.learners.siamese import ROUNDING, SiameseNetwork
from handful.types import Examples, Task


def features_of(learner, inputs):
    """Sigmoids of a linear layer on the backbone's features, by numpy."""
    with torch.no_grad():
        flat = learner.backbone(inputs).numpy()
    weight, bias = (parameter.detach().numpy() for parameter in learner.embedding.parameters())
    return 1 / (1 + np.exp(-(flat @ weight.T + bias)))


def logit(learner, one, other):
    return float(np.abs(one - other) @ learner.weight.detach().numpy() + learner.bias.item())


@pytest.mark.parametrize("problem", [ROWS, IMAGES], ids=str)
def test_the_loss_is_the_balanced_cross_entropy_of_all_pairs(problem):
    """Pair by pair; the rounding of the absolute value is far smaller than what it is compared with."""
    learner, task = problem.learner(SiameseNetwork, loss="verification"), problem.task()
    features = features_of(learner, torch.cat([task.support.inputs, task.query.inputs]))
    targets = torch.cat([task.support.targets, task.query.targets]).tolist()
    losses = {True: [], False: []}
    for (one, of_one), (other, of_other) in combinations(zip(features, targets, strict=True), 2):
        probability = 1 / (1 + np.exp(-logit(learner, one, other)))
        same = of_one == of_other
        losses[same].append(-np.log(probability if same else 1 - probability))
    expected = (np.mean(losses[True]) + np.mean(losses[False])) / 2
    assert learner.meta_loss(task, problem.spec).item() == pytest.approx(expected, abs=5e-3)


def test_a_class_s_logit_is_the_mean_of_those_of_its_examples():
    learner, task = ROWS.learner(SiameseNetwork), ROWS.task()
    support, queries = (features_of(learner, examples.inputs) for examples in task)
    members = [support[(task.support.targets == c).numpy()] for c in range(3)]
    expected = [[np.mean([logit(learner, query, one) for one in own]) for own in members] for query in queries]
    logits = learner.predict(learner.adapt(task.support, ROWS.spec), task.query.inputs).logits
    np.testing.assert_allclose(logits.detach().numpy(), expected, atol=ROUNDING * learner.weight.abs().sum().item())


def test_likeness_is_symmetric_and_greatest_to_oneself():
    learner, task = ROWS.learner(SiameseNetwork), ROWS.task()
    features = learner._embed(task.query.inputs)
    likeness = learner._same(features.unsqueeze(1), features)
    torch.testing.assert_close(likeness, likeness.mT)
    assert (likeness.argmax(-1) == torch.arange(len(features))).all()


def test_a_task_without_pairs_of_a_kind_has_a_loss():
    """One class has no different pair, and one example each no same one."""
    learner, task = ROWS.learner(SiameseNetwork, loss="verification"), ROWS.task()
    for targets in (torch.zeros(4, dtype=torch.int64), torch.arange(4)):
        halves = [Examples(task.support.inputs[part], targets[part]) for part in (slice(0, 2), slice(2, 4))]
        loss = learner.meta_loss(Task(*halves), ROWS.spec)
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in learner.parameters())


@pytest.mark.parametrize("loss", ["cross-entropy", "verification"])
def test_meta_training_makes_it_tell_new_classes_apart(loss):
    learner, tasks = ROWS.learner(SiameseNetwork, loss=loss), ROWS.tasks(200, seed=10_000)
    before = scores(learner, tasks, ROWS)
    meta_train(learner, ROWS, steps=40)
    gain = scores(learner, tasks, ROWS) - before
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5
