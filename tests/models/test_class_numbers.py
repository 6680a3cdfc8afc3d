"""Answers of users become the targets that learners see, or an error says which do not fit."""

import pytest
import torch

from handful.errors import DataError
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.class_numbers import LabelReader
from handful.registry import LEARNERS
from handful.types import TaskSpec

CLASSES = TaskSpec("classification", (4,), 3, "permuted")
VALUES = TaskSpec("regression", (4,), 2, "shared")


def reader(spec: TaskSpec) -> LabelReader:
    cls = PrototypicalNetwork if spec.classification else LEARNERS["ridge-probe"]
    return LabelReader(cls.build(spec, backbone="raw"), None)


def test_classes_are_numbered_in_the_order_of_their_names():
    own = reader(CLASSES)
    first, second = own.read(["dog", "cat", "dog"], 3), own.read(torch.tensor([7.0, 7.0, 0.5]), 3)
    assert (first.names, second.names) == (("cat", "dog"), ("0.5", "7"))
    assert first.spec == TaskSpec("classification", (4,), 2, "permuted")
    values = torch.stack([first.values, second.values])
    assert own.scaled([first, second], values, torch.float32).tolist() == [[1, 0, 1], [1, 1, 0]]
    assert values.dtype == torch.int64


def test_answers_that_were_read_before_are_still_counted():
    own = reader(CLASSES)
    assert own.read(["a", "b"], 2) is own.read(["a", "b"], 2)
    with pytest.raises(DataError, match="3 examples and 2 labels"):
        own.read(["a", "b"], 3)


def test_values_have_a_row_for_each_example():
    own = reader(VALUES)
    first, second = own.read([[1, 2], [3, 4]], 2), own.read([[5, 6], [7, 8]], 2)
    assert first.names is None
    targets = own.scaled([first, second], torch.stack([first.values, second.values]), torch.float32)
    assert targets.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("answers", "count", "said"),
    [
        (["a", "b"], 2, "targets are not all numbers"),
        ([1.0, 2.0, 3.0], 2, r"of 2 examples have shape \(3,\)"),
        ([], 0, "at least one example"),
        ([1.0, 2.0], 2, r"of 2 examples have shape \(2,\)"),
    ],
)
def test_values_that_do_not_fit_are_refused(answers, count, said):
    with pytest.raises(DataError, match=said):
        reader(VALUES).read(answers, count)
