"""A task's own score leaves out whole kin."""

import torch

from evaluation.toys import Clusters, Large
from handful.evaluation.leave_one_out import kin, left_out
from handful.registry import LEARNERS


def test_kin_are_examples_of_one_group_or_with_equal_inputs_or_by_way_of_others():
    inputs = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [4.0, 5.0], [6.0, 7.0], [4.0, 5.0]])

    def sets(numbers):
        return {
            frozenset(row for row, own in enumerate(numbers.tolist()) if own == number)
            for number in set(numbers.tolist())
        }

    assert sets(kin(inputs, None)) == {frozenset(own) for own in ([0, 2], [1], [3, 5], [4])}
    assert sets(kin(inputs, list("abcdea"))) == {frozenset(own) for own in ([0, 2, 3, 5], [1], [4])}


def test_a_large_network_sees_each_example_once():
    """And not as often as there are others."""
    tasks = Clusters(inputs=Clusters().inputs[:, 30:]).with_sizes(way=3, shot=4)
    learner = LEARNERS["protonet"].build(tasks.spec, backbone=lambda shape: Large(*shape))
    support, groups = tasks.batch([0, 1]).support, torch.arange(12).expand(2, -1)
    rows = learner.backbone.rows
    rows.clear()
    scores, diverged = left_out(learner, support, tasks.spec, groups)
    assert sum(rows) == 24
    learner.features_only = False
    rows.clear()
    plain, same = left_out(learner, support, tasks.spec, groups)
    assert sum(rows) == 24 * 12
    assert torch.equal(scores, plain)
    assert torch.equal(diverged, same)
    assert len(set(scores.flatten().tolist())) > 1
