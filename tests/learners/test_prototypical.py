"""Prototypical networks against their formulas."""

import pytest
import torch

from contracts.problems import IMAGES, ROWS
from handful.engine.across_tasks import take
from handful.engine.meta_gradient import meta_gradient
from handful.engine.plan import Plan
from handful.learners.learner import Learner
from handful.learners.prototypical import PrototypicalNetwork
from handful.types import Examples, TaskSpec


@pytest.mark.parametrize("problem", [ROWS, IMAGES], ids=str)
def test_logits_are_scaled_mean_squared_distances_to_class_means(problem):
    learner, task = problem.learner(PrototypicalNetwork), problem.task()
    support, query = learner.backbone(task.support.inputs), learner.backbone(task.query.inputs)
    expected = torch.stack(
        [-(query - support[task.support.targets == c].mean(0)).square().mean(-1) for c in range(3)], dim=-1
    )
    state = learner.adapt(task.support, problem.spec)
    logits = learner.predict(state, task.query.inputs).logits
    torch.testing.assert_close(logits, expected * learner.log_scale.exp())


def test_the_loss_of_one_pass_is_that_of_adapting_and_predicting():
    learner, task = ROWS.learner(PrototypicalNetwork), ROWS.task()
    torch.testing.assert_close(learner.meta_loss(task, ROWS.spec), Learner.meta_loss(learner, task, ROWS.spec))


def test_temperature_is_where_the_scale_starts():
    learner = PrototypicalNetwork.build(ROWS.spec, backbone="raw", temperature=2.5)
    torch.testing.assert_close(learner.log_scale.exp(), torch.tensor(2.5))


def test_an_absent_class_is_never_the_answer_nor_changes_the_others():
    learner, task = ROWS.learner(PrototypicalNetwork), ROWS.task()
    present = task.support.targets != 1
    support = Examples(task.support.inputs[present], task.support.targets[present])
    logits = learner.predict(learner.adapt(support, ROWS.spec), task.query.inputs).logits
    whole = learner.predict(learner.adapt(task.support, ROWS.spec), task.query.inputs).logits
    assert (logits.argmax(-1) != 1).all()
    torch.testing.assert_close(logits[:, [0, 2]], whole[:, [0, 2]])


def test_classes_may_have_different_numbers_of_examples():
    learner = PrototypicalNetwork.build(TaskSpec("classification", (1,), 2), backbone="raw")
    support = Examples(torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([0, 0, 1]))
    state = learner.adapt(support, TaskSpec("classification", (1,), 2))
    assert state["prototypes"].tolist() == [[1.0], [10.0]]


def test_the_neighbors_loss_is_that_of_the_paper():
    """Written out example by example; one without a peer counts for nothing."""
    learner = ROWS.learner(PrototypicalNetwork, loss="neighbors")
    task = take(ROWS.tasks(1), 0)
    targets = torch.cat([task.support.targets, task.query.targets]).clone()
    targets[0] = 99
    features = learner.backbone(torch.cat([task.support.inputs, task.query.inputs]))
    scores = -torch.cdist(features, features).square() / features.shape[1] * learner.log_scale.exp()
    terms = []
    for i, own in enumerate(targets.tolist()):
        others = [j for j in range(len(targets)) if j != i]
        peers = [j for j in others if targets[j] == own]
        if peers:
            terms.append(scores[i, others].exp().sum().log() - scores[i, peers].exp().sum().log())
    assert len(terms) == len(targets) - 1
    torch.testing.assert_close(learner._neighbors_loss(features, targets), torch.stack(terms).mean())


def test_the_neighbors_loss_has_the_same_gradient_in_all_plans():
    learner, tasks = ROWS.learner(PrototypicalNetwork, loss="neighbors"), ROWS.tasks(3)
    plans = (Plan("vmap"), Plan("chunks", 2), Plan("loop"))
    first, *rest = (meta_gradient(learner, tasks, ROWS.spec, plan=plan)[1] for plan in plans)
    assert all(gradient.abs().sum() > 0 for gradient in first.values())
    for gradients in rest:
        torch.testing.assert_close(gradients, first)
