"""Inputs and examples of requests: what each shape becomes, and where what is none of them is."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.errors import DataError, HandfulError
from handful.http.bodies import read_json
from handful.http.json_inputs import examples_of, inputs_of
from handful.http.limits import DEFAULTS, RequestLimits
from handful.notes import collecting
from handful.pipelines.arrays import ArrayPipeline
from handful.pipelines.rows import TablePipeline
from handful.serving.inputs import all_written, values, written
from handful.table import Table

few = settings(max_examples=80, deadline=None, database=None, derandomize=True)
ROWS = Table("rows", pa.table({"size": [1.0, 2.0, None], "color": ["red", "blue", "red"], "at": ["25.5.2024"] * 3}))

TABLE = TablePipeline.fit(ROWS, np.arange(3))


def example(**fields):
    return SimpleNamespace(**{"input": [0.5], "label": None, "value": None} | fields)


def refused(values, code, *field, limits=DEFAULTS):
    with pytest.raises(DataError) as error:
        inputs_of(read_json(json.dumps(values).encode()), limits)
    assert (error.value.code, error.value.field) == (code, ("inputs", *field))
    assert "MARK" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("café", "café"),
        ({"a": 1, "b": None, "c": True, "d": "x", "e": -0.5}, {"a": 1, "b": None, "c": True, "d": "x", "e": -0.5}),
        ({"image": base64.b64encode(b"\x89PNG").decode()}, b"\x89PNG"),
    ],
)
def test_texts_rows_and_images(value, wanted):
    assert inputs_of([value]) == [wanted]
    assert written(inputs_of([value])[0]) == written(wanted)


@pytest.mark.parametrize(
    "value", [[0.5, 1], [1, 2], [[1, 2], [3, 4]], [[[0.1]], [[2]]], [2**63, 1], [-(2**63)], [], [[], []], [1e30]]
)
def test_arrays_are_those_of_the_library(value):
    [array] = inputs_of([value])
    assert np.array_equal(array, np.array(value, float if 2**63 in value else None))
    assert array.dtype in (np.int64, np.float64)
    assert written(array) == written(np.array(value, array.dtype))


@pytest.mark.parametrize("wrong", ["MARK", "1", True, False, None, {"MARK": 1}])
@pytest.mark.parametrize("place", [[0.5, 1, "X"], ["X"], [[1, 2], ["X", 4]], [[[1.5, "X"]]]])
def test_only_numbers_are_numbers(wrong, place):
    refused([[1], json.loads(json.dumps(place).replace('"X"', json.dumps(wrong)))], "invalid-data", 1)


@pytest.mark.parametrize("value", [[1, [2]], [[1], 2], [[1, 2], [3]], [[[1], [2]], [[3]]], [["MARK", []]], [[], [1]]])
def test_ragged_lists_are_refused(value):
    refused([value], "ragged-input", 0)


def test_lists_that_are_too_deep_are_refused():
    refused([eval("[" * 9 + "1" + "]" * 9)], "ragged-input", 0)
    assert inputs_of([eval("[" * 8 + "1" + "]" * 8)])[0].shape == (1,) * 8


@pytest.mark.parametrize("number", [1e39, -1e39, 1e31, 1.7e308, 10**39, -(10**400)])
def test_numbers_that_are_infinite_in_a_model_have_their_place(number):
    refused([[0.5], [[1, 2], [number, 3]]], "non-finite", 1, 1, 0)
    refused([{"a": 1, "b": number}], "non-finite", 0, "b")
    with pytest.raises(DataError) as error:
        examples_of([example(value=1), example(value={"price": number})], ["price"])
    assert (error.value.code, error.value.field) == ("non-finite", ("examples", 1, "value", "price"))


@pytest.mark.parametrize("value", [1, 0.5, None, True, {}])
def test_what_is_no_input_is_refused(value):
    refused(["a", value], "invalid-data", 1)


@pytest.mark.parametrize("cell", [[1], {"MARK": 1}, "a\0MARK"])
def test_what_is_no_cell_is_refused(cell):
    refused([{"a": 1}, {"a": 1, "b": cell}], "invalid-data", 1, "b")


@pytest.mark.parametrize(
    "image", [None, 1, "MARK!", "ab=", "iVBO\nRw==", "data:image/png;base64,QQ==", "é", "QQ==QQ=="]
)
def test_what_is_no_base64_is_refused(image):
    refused([{"image": image}], "invalid-data", 0, "image")


def test_limits_of_one_request():
    refused(["a"] * 4, "payload-too-large", limits=RequestLimits(inputs=3))
    refused([[1, 2], [[3], [4]]], "payload-too-large", limits=RequestLimits(numbers=3))
    refused(["a", "é" * 16385], "input-too-large", 1)
    refused([{"a": "a" * 32769}], "input-too-large", 0, "a")
    refused([{"image": "QUJD"}], "input-too-large", 0, "image", limits=RequestLimits(image_bytes=2))
    refused(["a\0"], "invalid-data", 0)
    assert inputs_of(["é" * 16384])
    assert RequestLimits().shown()["text_bytes"] == 32768


def test_examples_of_classes():
    inputs, labels = examples_of([example(label="cafe\u0301"), example(input="b", label="x")], None)
    assert (inputs[1], labels) == ("b", ["caf\u00e9", "x"])


def test_examples_of_values():
    three = [example(value=3), example(value=0.5), example(value={"price": 2.5})]
    assert examples_of(three, ["price"])[1] == [[3.0], [0.5], [2.5]]
    assert examples_of([example(value={"b": 1, "a": 2.5})], ["a", "b"])[1] == [[2.5, 1.0]]


@pytest.mark.parametrize(
    ("targets", "fields", "code", "field"),
    [
        (None, {"value": 1.0}, "invalid-data", ("value",)),
        (None, {}, "missing-label", ()),
        (None, {"label": ""}, "invalid-request", ("label",)),
        (None, {"label": "a\u202eb"}, "invalid-request", ("label",)),
        (None, {"label": "a", "input": [[1], 2]}, "ragged-input", ("input",)),
        (["price"], {"label": "a"}, "invalid-data", ("label",)),
        (["price"], {}, "missing-label", ()),
        (["price"], {"value": {"prize": 1}}, "wrong-shape", ("value",)),
        (["price"], {"value": "1"}, "invalid-data", ("value",)),
        (["price"], {"value": True}, "invalid-data", ("value",)),
        (["a", "b"], {"value": 1}, "wrong-shape", ("value",)),
        (["a", "b"], {"value": {"a": 1}}, "wrong-shape", ("value",)),
    ],
)
def test_examples_that_do_not_fit_have_their_place(targets, fields, code, field):
    good = example(value=dict.fromkeys(targets, 1.0)) if targets else example(label="a")
    with pytest.raises(HandfulError) as error:
        examples_of([good, example(**fields)], targets)
    assert (error.value.code, error.value.field) == (code, ("examples", 1, *field))


NUMBERS = st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
CELLS = st.none() | st.booleans() | NUMBERS | st.text(max_size=4) | st.sampled_from(["1,5", "3.4.2024", "NA", "red"])
NESTED = st.recursive(
    NUMBERS | st.sampled_from([True, "1", None]), lambda inner: st.lists(inner, max_size=3), max_leaves=9
)


def only_expected(given, pipeline):
    """Whatever is given, the pipeline gets finite inputs, or someone says what is wrong."""
    try:
        with collecting():
            stored = pipeline.stored(values(all_written(inputs_of(read_json(json.dumps(given).encode())))))
    except HandfulError:
        return
    assert stored.isfinite().all()
    assert stored.shape == (len(given), *pipeline.input_shape)


@few
@given(st.lists(st.dictionaries(st.sampled_from(["size", "color", "at"]), CELLS, min_size=2), min_size=1, max_size=3))
def test_any_cells_are_read_or_refused(rows):
    only_expected(rows, TABLE)


@few
@given(st.lists(NESTED, min_size=1, max_size=3))
def test_any_lists_are_read_or_refused(inputs):
    only_expected(inputs, ArrayPipeline(raw_shape=(3,)))
