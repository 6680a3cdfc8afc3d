"""A task's own score leaves out whole kin."""

import torch

from handful.evaluation.leave_one_out import kin


def test_kin_are_examples_of_one_group_or_with_equal_inputs_or_by_way_of_others():
    inputs = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [4.0, 5.0], [6.0, 7.0], [4.0, 5.0]])

    def sets(numbers):
        return {
            frozenset(row for row, own in enumerate(numbers.tolist()) if own == number)
            for number in set(numbers.tolist())
        }

    assert sets(kin(inputs, None)) == {frozenset(own) for own in ([0, 2], [1], [3, 5], [4])}
    assert sets(kin(inputs, list("abcdea"))) == {frozenset(own) for own in ([0, 2, 3, 5], [1], [4])}
