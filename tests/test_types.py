"""The nouns: what a spec makes of its facts, and losses that never broadcast."""

import pytest
import torch

from handful.errors import UserError
from handful.types import Categorical, Examples, Gaussian, Point, Task, TaskSpec, to_device

MEAN = torch.zeros(4, 2)


def test_values_mean_the_same_in_every_task():
    assert TaskSpec("regression", (3,), 2).labels == "shared"
    assert TaskSpec("regression", (3,), 2, "permuted") == TaskSpec("regression", (3,), 2, "shared")
    assert TaskSpec("classification", (3,), 2).labels == "permuted"


@pytest.mark.parametrize("targets", [MEAN[:, :1], MEAN[0], MEAN[:, 0], MEAN.unsqueeze(0), MEAN[:1], MEAN.repeat(1, 2)])
@pytest.mark.parametrize("prediction", [Point(MEAN), Gaussian(MEAN, MEAN + 1)], ids=["point", "gaussian"])
def test_a_loss_of_values_refuses_targets_of_another_shape(prediction, targets):
    with pytest.raises(UserError, match=r"targets.*\(4, 2\)"):
        prediction.loss(targets)


@pytest.mark.parametrize("variance", [MEAN[:, :1] + 1, MEAN[0] + 1, torch.ones(())])
def test_a_likelihood_refuses_a_variance_of_another_shape(variance):
    with pytest.raises(UserError, match=r"variance.*\(4, 2\)"):
        Gaussian(MEAN, variance).loss(MEAN)


@pytest.mark.parametrize("targets", [MEAN, torch.zeros(4, 1, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)])
def test_a_loss_of_classes_refuses_what_is_no_class_index_for_each_example(targets):
    with pytest.raises(UserError, match=r"class indices.*\(4,\)"):
        Categorical(MEAN).loss(targets)


@pytest.mark.parametrize("targets", [MEAN[:, :1].long(), torch.zeros((), dtype=torch.int64), MEAN])
def test_accuracy_refuses_what_is_no_class_index_for_each_example(targets):
    assert Categorical(MEAN).correct(torch.tensor([0, 1, 0, 1])).tolist() == [True, False, True, False]
    with pytest.raises(UserError, match=r"class indices.*\(4,\)"):
        Categorical(MEAN).correct(targets)


def test_losses_of_stacked_tasks_are_those_of_each():
    means, targets = torch.arange(12.0).reshape(2, 3, 2), torch.ones(2, 3, 2)
    for whole, parts in (
        (Point(means), [Point(mean) for mean in means]),
        (Gaussian(means, means + 1), [Gaussian(mean, mean + 1) for mean in means]),
    ):
        each = torch.stack([part.loss(own) for part, own in zip(parts, targets, strict=True)])
        assert torch.equal(whole.loss(targets), each)


def test_a_tree_on_another_device_keeps_its_structure_and_what_is_no_tensor():
    task = Task(Examples(MEAN, MEAN), Examples(MEAN, MEAN))
    tree = {"task": task, "noise": [None, 3]}
    moved = to_device(tree, "meta")
    assert moved["noise"] == [None, 3]
    assert isinstance(moved["task"].query, Examples)
    assert moved["task"].query.targets.is_meta
    assert to_device(task, "cpu").support.inputs is MEAN
