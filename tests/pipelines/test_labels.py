"""Labels and targets are the same from all types, or refused."""

import datetime
from collections import deque
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import torch

from handful.errors import DataError
from handful.pipelines.labels import class_names, target_values
from handful.raw_batch import Origin, numbered

DAY = datetime.date(2020, 1, 31)


class Column:
    """A column of a data frame, as far as it is looked at; iterating one with 32 bits gives doubles."""

    def __init__(self, values, dtype=None):
        self.values = np.array(values, dtype)

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __iter__(self):
        return iter(self.values.tolist())


class NA:
    """As pandas has it: compared with anything it is neither true nor false."""

    def __eq__(self, other):
        return self

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


SAME = {
    "texts": (["b", "a", "b"], [tuple("bab"), np.array(["b", "a", "b"]), Column(["b", "a", "b"], object)]),
    "bytes": (["b", "é"], [[b"b", "é".encode()], np.array([b"b", "é".encode()]), np.array(["b", "é"], object)]),
    "numpy texts": (["b", "a"], [np.array(["b", "a"], np.dtypes.StringDType()), [np.str_("b"), "a"], deque("ba")]),
    "pyarrow texts": (
        ["b", "a", "b"],
        [
            pa.array(["b", "a", "b"]),
            pa.array(["b", "a", "b"]).dictionary_encode(),
            pa.chunked_array([["b"], ["a", "b"]]),
            list(pa.array(["b", "a", "b"])),
        ],
    ),
    "whole numbers": (
        [3, 10, 3],
        [
            (3, 10, 3),
            ["3", "10", "3.0"],
            [3.0, "10", Decimal("3.0")],
            *(np.array([3, 10, 3], kind) for kind in ("i1", "u1", ">i2", "u8", "f2", "f4", "f8", "g", object)),
            *(torch.tensor([3, 10, 3]).to(kind) for kind in (torch.int8, torch.uint8, torch.int64, torch.float16)),
            *(torch.tensor([3, 10, 3]).to(kind) for kind in (torch.bfloat16, torch.float32, torch.float64)),
            torch.tensor([3.0, 10.0, 3.0], requires_grad=True),
            list(torch.tensor([3, 10, 3])),
            list(np.array([[3], [10], [3]]).reshape(3, 1)[:, 0]),
            pa.array([3, 10, 3]),
            Column([3, 10, 3]),
        ],
    ),
    "numbers": (
        [0.1, 2.5],
        [
            *(np.array([0.1, 2.5], kind) for kind in ("f2", "f4", "f8")),
            *(torch.tensor([0.1, 2.5], dtype=kind) for kind in (torch.float16, torch.float32, torch.float64)),
            list(torch.tensor([0.1, 2.5])),
            pa.array([0.1, 2.5], pa.float32()),
            Column([0.1, 2.5], "f4"),
            ["0.1", "2.5"],
        ],
    ),
    "truth": (
        [True, False],
        [np.array([True, False]), torch.tensor([True, False]), [np.True_, np.False_], ["true", "FALSE"]],
    ),
    "dates": ([DAY], [np.array([DAY], "M8[D]"), pa.array([DAY]), np.array([DAY], object)]),
    "moments": (
        [datetime.datetime(2020, 1, 31, 12)],
        [np.array(["2020-01-31T12"], f"M8[{unit}]") for unit in ("s", "us", "ns")],
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_labels_of_any_type_are_those_of_a_list(kind):
    plain, others = SAME[kind]
    expected = class_names(plain)
    assert len(set(expected)) == len(set(plain))
    for other in others:
        assert class_names(other) == expected, repr(other)


@pytest.mark.parametrize("missing", [None, "", float("nan"), np.float32("nan"), np.datetime64("NaT"), NA(), b""])
@pytest.mark.parametrize("container", [list, lambda labels: np.array(labels, object)])
def test_a_missing_label_is_no_class(missing, container):
    with pytest.raises(DataError, match="The labels, example 1: the label is missing"):
        class_names(container(["a", missing, "b"]))


def test_missing_labels_of_arrays_are_no_classes():
    for labels in (
        np.array([1.0, np.nan]),
        torch.tensor([1.0, torch.nan]),
        np.ma.array([1, 2], mask=[False, True]),
        pa.array(["a", None]),
        pa.array([1, None]),
        Column(["a", None], object),
    ):
        with pytest.raises(DataError, match="example 1: the label is missing"):
            class_names(labels)
    with pytest.raises(DataError, match=r"x\.npz, row 2: the label is missing"):
        class_names(np.array(["a", ""]), Origin("x.npz: 'labels'", numbered("x.npz, row", 1)))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("abc", "of type str"),
        (b"abc", "of type bytes"),
        ({"a": 1, "b": 2}, "of type dict"),
        ({"a", "b"}, "of type set"),
        ((label for label in "ab"), "of type generator"),
        (None, "of type NoneType"),
        (7, "of type int"),
        (np.array("a"), r"have shape \(\)"),
        (torch.tensor(1), r"have shape \(\)"),
        (np.array([["a"], ["b"]]), r"have shape \(2, 1\)"),
        (torch.tensor([[1], [2]]), r"have shape \(2, 1\)"),
        ([["a", "b"], ["b"]], r"example 0: \['a', 'b'\] are several labels"),
        (["a", ("b", "a")], r"example 1: \('b', 'a'\) are several labels"),
        (["a", "b", "a|c"], r"example 2: 'a\|c' are several labels"),
        ([[], "b"], r"example 0: \[\] is not a label"),
        (["a", {"b": 1}], "example 1: .* is not a label"),
        ([torch.tensor([1]), torch.tensor([2])], "example 0: .* is not a label"),
        ([np.array([1, 0]), np.array([0, 1])], "example 0: .* is not a label"),
        (["a", object()], "example 1: .* is not a label"),
        ([1j, 2], "example 0: 1j is not a label"),
        (np.array([1j, 2]), "example 0: .* is not a label"),
        (torch.tensor([1j, 2]), "example 0: .* is not a label"),
        (np.array([1, 2], "m8[s]"), "example 0: .* is not a label"),
        (np.array([(1, 2)], "i4,i4"), "example 0: .* is not a label"),
        ([b"a", b"\xff"], "example 1: .* is not text in UTF-8"),
        (torch.tensor([0.1, 2.0], dtype=torch.bfloat16), "have too few bits"),
        (torch.eye(2)[0].to_sparse(), "cannot be read"),
    ],
)
def test_what_is_no_row_of_labels_is_refused(labels, said):
    with pytest.raises(DataError, match=said):
        class_names(labels)


VALUES = [[1.5, -2.0], [0.0, 3.0], [7.0, 1.0]]


@pytest.mark.parametrize(
    "targets",
    [
        tuple(map(tuple, VALUES)),
        np.array(VALUES),
        np.array(VALUES, ">f4"),
        np.array(VALUES)[::-1, ::-1][::-1, ::-1],
        np.array(VALUES, object),
        np.asfortranarray(VALUES),
        torch.tensor(VALUES),
        torch.tensor(VALUES, dtype=torch.bfloat16),
        torch.tensor(VALUES, requires_grad=True),
        list(torch.tensor(VALUES)),
        [[Decimal(value) for value in row] for row in VALUES],
        Column(VALUES),
    ],
)
def test_targets_of_any_type_are_those_of_a_list(targets):
    found = target_values(targets, 3, 2)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert found.tolist() == VALUES


def test_one_target_per_example_may_be_a_row_or_a_column():
    for targets in ([1, 2], [[1], [2]], torch.tensor([1, 2]).byte(), pa.array([1, 2]), np.array([[1], [2]], "u1")):
        assert target_values(targets, 2, 1).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("targets", "count", "outputs", "said"),
    [
        (np.zeros((2, 12)), 12, 2, r"\(2, 12\), but the model predicts 2 values .* \(12, 2\)\. Transpose them"),
        (torch.zeros(2, 12).tolist(), 12, 2, "Transpose them"),
        (torch.zeros(24), 12, 2, r"of 12 examples have shape \(24,\), .* should be \(12, 2\)\.$"),
        (torch.zeros(3, 4), 12, 1, r"predicts 1 value for each: they should be \(12, 1\)\.$"),
        (torch.zeros(1, 12), 12, 1, "Transpose them"),
        (torch.zeros(12, 2, 1), 12, 2, r"have shape \(12, 2, 1\)"),
        (torch.zeros(12), 12, 2, r"have shape \(12,\)"),
        (torch.zeros(12, 3), 12, 2, r"have shape \(12, 3\)"),
        (torch.tensor(1.0), 1, 1, r"have shape \(\)"),
        ([], 1, 1, r"have shape \(0,\)"),
        ([[1, 2], [3]], 2, 2, "not all numbers"),
        (["1", "2"], 2, 1, "not all numbers .*they are <U"),
        ([1.0, "2"], 2, 1, "not all numbers .*they are <U"),
        (np.array([1.0, "2"], object), 2, 1, "not all numbers .*they are object"),
        ("12", 2, 1, "not all numbers"),
        ({"a": 1}, 1, 1, "not all numbers"),
        ([1j, 2], 2, 1, "not all numbers .*complex"),
        (torch.tensor([1j, 2]), 2, 1, "not all numbers .*complex"),
        (np.array([1, 2], "M8[D]"), 2, 1, "not all numbers"),
        (torch.eye(2).to_sparse(), 2, 2, "not all numbers"),
        ([1.0, NA()], 2, 1, "not all numbers"),
    ],
)
def test_targets_that_are_not_one_per_example_are_refused(targets, count, outputs, said):
    with pytest.raises(DataError, match=said):
        target_values(targets, count, outputs)


def test_missing_targets_are_nan_which_no_task_takes():
    for targets in ([1.0, None], np.ma.array([1.0, 2.0], mask=[False, True]), pa.array([1.0, None])):
        assert target_values(targets, 2, 1).isnan().tolist() == [[False], [True]]


@pytest.mark.parametrize("targets", [np.ones((2, 1)), torch.ones(2, 1, dtype=torch.float64), np.ones(2)])
def test_targets_share_no_memory_with_their_caller(targets):
    found = target_values(targets, 2, 1)
    targets[:] = 7
    assert found.tolist() == [[1], [1]]


def test_a_list_of_one_label_is_that_label():
    assert class_names([["a"], ("b",), "c|d"]) == ("a", "b", "c|d")
