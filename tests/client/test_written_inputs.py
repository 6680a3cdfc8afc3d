"""What a user gives, as JSON has it."""

import numpy as np
import pytest
import torch

from handful.client.written_inputs import are_numbers, listed_labels, written_inputs, written_labels
from handful.errors import DataError


def test_texts_rows_images_and_arrays(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    row = {"price": np.float32(0.5), "shop": "a", "open": True, "gone": None, "empty": float("nan"), "n": np.int64(3)}
    assert written_inputs(["text"]) == ["text"]
    assert written_inputs([b"\x89PNG", bytearray(b"\x89PNG"), tmp_path / "a.png"]) == [{"image": b"\x89PNG"}] * 3
    assert written_inputs([row]) == [{"price": 0.5, "shop": "a", "open": True, "gone": None, "empty": None, "n": 3}]
    lists = [[[0, 1], [2, 3]]]
    for given in (lists, np.array(lists), torch.tensor(lists), [torch.tensor(lists[0])]):
        assert written_inputs(given) == lists
    assert written_inputs(np.array([[0.1]], np.float32)) == [[np.float32(0.1)]]
    assert written_inputs([]) == []


def test_a_data_frame_is_its_rows():
    class Frame:
        columns = ("a", "b")

        def to_dict(self, how):
            assert how == "records"
            return [{"a": 1, "b": None}]

    assert written_inputs(Frame()) == [{"a": 1, "b": None}]


@pytest.mark.parametrize(
    ("value", "code", "place"),
    [
        ("\ud800", "invalid-data", ()),
        ([1.0, float("nan")], "non-finite", ()),
        ([[1], [1, 2]], "ragged-input", ()),
        ({"a": float("inf")}, "invalid-data", ("a",)),
        ({"a": [1]}, "invalid-data", ("a",)),
        (object(), "unsupported-media", ()),
        (["a", "b"], "unsupported-media", ()),
    ],
)
def test_what_is_no_input_is_refused_with_its_number(value, code, place):
    with pytest.raises(DataError, match=r"^Input 1: ") as caught:
        written_inputs([[0.0], value])
    assert (caught.value.code, caught.value.field) == (code, ("inputs", 1, *place))


@pytest.mark.parametrize("inputs", ["text", b"image", {"a": 1}])
def test_one_input_is_no_list_of_them(inputs):
    with pytest.raises(DataError, match="Give a list"):
        written_inputs(inputs)
    with pytest.raises(DataError, match="Give a list"):
        listed_labels(inputs)


def test_labels_and_values():
    assert written_labels(listed_labels(np.array(["a", "b"])), None) == ["a", "b"]
    assert written_labels(listed_labels(torch.tensor([3, 4])), None) == ["3", "4"]
    assert written_labels(listed_labels(np.array([3, 4])), ["y"]) == [3.0, 4.0]
    assert written_labels(listed_labels(np.array([[3], [4]])), ["y"]) == [3.0, 4.0]
    assert written_labels(listed_labels(torch.tensor([[1, 2]])), ["x", "y"]) == [{"x": 1.0, "y": 2.0}]
    assert written_labels([{"price": np.float64(1)}, {"price": 2}], ["price"]) == [{"price": 1.0}, {"price": 2.0}]
    assert are_numbers([1, 2.0, {"a": 1}])
    assert not are_numbers(["1", 2])


@pytest.mark.parametrize(
    ("label", "targets"), [(None, None), (float("nan"), None), (float("nan"), ["y"]), ("a", ["y"]), ([1, 2], ["y"])]
)
def test_what_is_no_label_is_refused_with_its_number(label, targets):
    with pytest.raises(DataError, match=" 1 is ") as caught:
        written_labels([1, label], targets)
    assert caught.value.field == ("labels", 1)
