"""Inputs and examples in JSON, as the service takes them: texts, rows, arrays, and images in base64."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from handful.cells import fault_of, too_large
from handful.errors import DataError, Field, within
from handful.http.bodies import too_much
from handful.http.images import image_of
from handful.http.limits import DEFAULTS, RequestLimits
from handful.serving.names import checked_name

WAY_OUT = 'Give a text, a row as an object of columns, numbers in nested lists, or an image as {"image": "<base64>"}.'
MOST_AXES = 8
"""Of an array."""

Image = Callable[[Any, RequestLimits], bytes]
"""What makes the bytes of an image of what `{"image": ...}` holds."""


class GivenExample(Protocol):
    """An example of a request. label or value: the other is None."""

    input: Any
    label: str | None
    value: float | Mapping[str, float] | None


def inputs_of(
    values: Sequence[Any], limits: RequestLimits = DEFAULTS, *, field: Field = ("inputs",), image: Image = image_of
) -> list[Any]:
    """Inputs of a request as `Service` takes them: texts, dicts, arrays, or the bytes of images.

    values: each a str, a dict of cells, nested lists of numbers, or `{"image": ...}`, as `read_json` gives them.
    field: where they are in the request.
    image: reads what an image is given as; base64 by default.

    Raises `DataError` with the field of the first that is none, or where they are more than the limits.
    """
    return _each([(value, (*field, place)) for place, value in enumerate(values)], limits, field, image)


def inputs_of_each(requests: Sequence[Sequence[Any]], limits: RequestLimits = DEFAULTS) -> list[list[Any]]:
    """Inputs of several requests that are sent as one, whose limits they share; see `inputs_of`.

    requests: the values of each, in the field `(place, "inputs")`.
    """
    places = [
        (value, (place, "inputs", number))
        for place, values in enumerate(requests)
        for number, value in enumerate(values)
    ]
    inputs = iter(_each(places, limits, (), image_of))
    return [list(itertools.islice(inputs, len(values))) for values in requests]


def examples_of(
    examples: Sequence[GivenExample],
    targets: Sequence[str] | None,
    limits: RequestLimits = DEFAULTS,
    *,
    field: Field = ("examples",),
    image: Image = image_of,
) -> tuple[list[Any], list[Any]]:
    """Inputs and labels of a request as `Service` takes them: names of classes, or rows of targets.

    targets: what the model predicts; None for classes.
    field, image: see `inputs_of`.

    Raises `DataError` with the field of the first example that is none.
    """
    places = [(one.input, (*field, place, "input")) for place, one in enumerate(examples)]
    inputs = _each(places, limits, field, image)
    labels: list[Any] = []
    for place, example in enumerate(examples):
        here = (*field, place)
        labels.append(_label(example, here) if targets is None else _targets(example, targets, here))
    return inputs, labels


def _each(values: Sequence[tuple[Any, Field]], limits: RequestLimits, field: Field, image: Image) -> list[Any]:
    if len(values) > limits.inputs:
        raise too_much("The request", limits.inputs, "inputs", field)
    inputs, numbers = [], 0
    for value, place in values:
        inputs.append(one := _input(value, limits, place, image))
        numbers += one.size if isinstance(one, np.ndarray) else 0
        if numbers > limits.numbers:
            raise too_much("The request", limits.numbers, "numbers", field)
    return inputs


def _input(value: Any, limits: RequestLimits, field: Field, image: Image) -> Any:
    if type(value) is list:
        return _array(value, field)
    if type(value) is str:
        return checked_text(value, limits, field)
    if type(value) is not dict or not value:
        raise DataError(f"This is not an input. {WAY_OUT}", field=field)
    if value.keys() == {"image"}:
        with within(*field, "image"):
            return image(value["image"], limits)
    return {name: _cell(cell, limits, (*field, name)) for name, cell in value.items()}


def checked_text(text: str, limits: RequestLimits, field: Field) -> str:
    """The text; `DataError` if it is longer than the limits, or holds a zero."""
    if len(text) > limits.text_bytes or len(text.encode()) > limits.text_bytes:
        raise DataError(
            f"The text has more than {limits.text_bytes:,} bytes of UTF-8.", code="input-too-large", field=field
        )
    if "\0" in text:
        raise DataError("The text holds a zero character. Remove it.", field=field)
    return text


def _cell(cell: Any, limits: RequestLimits, field: Field) -> Any:
    if cell is None or type(cell) is bool:
        return cell
    if type(cell) is str:
        return checked_text(cell, limits, field)
    if type(cell) not in (int, float):
        raise DataError("A cell must be a text, a number, true, false or null.", field=field)
    _check_number(cell, field)
    return cell


def _array(value: list[Any], field: Field) -> np.ndarray:
    """Nested lists of numbers as an array of whole numbers or floats."""
    shape, flat = [len(value)], value
    while list in (kinds := set(map(type, flat))):
        lengths = set(map(len, flat)) if kinds == {list} else set()
        if len(lengths) != 1 or len(shape) == MOST_AXES:
            raise DataError(
                f"The lists have different lengths, or are nested more than {MOST_AXES} deep. Give all rows the same "
                f"length.",
                code="ragged-input",
                field=field,
            )
        shape += lengths
        flat = list(itertools.chain.from_iterable(flat))
    if not kinds <= {int, float}:
        raise DataError("An array must contain only numbers.", field=field)
    try:
        array = np.array(flat, np.float64 if float in kinds else np.int64)
    except OverflowError:
        array = _floats(flat)
    wrong = too_large(array)
    if wrong.any():
        first = np.argwhere(wrong.reshape(shape))[0]
        raise _no_number(array[wrong][0], (*field, *map(int, first)))
    return array.reshape(shape)


def _floats(numbers: Sequence[int | float]) -> np.ndarray:
    """Numbers of which some are too large for 64 bits, and perhaps for a float."""
    return np.array([number if abs(number) < 2**1000 else np.inf for number in numbers], np.float64)


def _check_number(number: int | float, field: Field) -> None:
    [as_float] = _floats([number])
    if too_large(as_float):
        raise _no_number(as_float, field)


def _no_number(number: float, field: Field) -> DataError:
    return DataError(f"A number {fault_of(number)}.", code="non-finite", field=field)


def _label(example: GivenExample, field: Field) -> str:
    if example.value is not None:
        raise DataError("The model predicts classes: give a label, not a value.", field=(*field, "value"))
    if example.label is None:
        raise DataError("The example has no label. Give it one.", code="missing-label", field=field)
    with within(*field, "label"):
        return checked_name(example.label, "label")


def _targets(example: GivenExample, targets: Sequence[str], field: Field) -> list[float]:
    """The targets of an example `(outputs,)`, in the order of the model."""
    value, names = example.value, ", ".join(map(repr, targets))
    if example.label is not None:
        raise DataError(f"The model predicts {names}: give a value, not a label.", field=(*field, "label"))
    if value is None:
        raise DataError(f"The example has no value. Give it {names}.", code="missing-label", field=field)
    if not isinstance(value, Mapping):
        value = dict.fromkeys(targets, value) if len(targets) == 1 else {}
    if value.keys() != set(targets):
        raise DataError(
            f"A value is an object of {names}, or a number if it is only one.",
            code="wrong-shape",
            field=(*field, "value"),
        )
    for name, number in value.items():
        place = (*field, "value", name) if isinstance(example.value, Mapping) else (*field, "value")
        if type(number) not in (int, float):
            raise DataError("A value must be a number.", field=place)
        _check_number(number, place)
    return [float(value[name]) for name in targets]
