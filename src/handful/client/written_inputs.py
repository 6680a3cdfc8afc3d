"""What a user gives as inputs, labels and values, as JSON has them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handful.errors import DataError


def written_inputs(inputs: Any) -> list[Any]:
    """Inputs as the wire has them, but images as `{"image": bytes}`: see `handful.client.content`.

    inputs: texts; rows as mappings or a data frame; images as the bytes of their files, or as `Path`s of these; arrays
        of numbers in lists, of NumPy or of PyTorch, or one of them all `(n, *shape)`.

    Raises `DataError` for anything else, with its number.
    """
    if isinstance(inputs, str | bytes | Path | Mapping):
        raise DataError("The inputs are a single text, image or row. Give a list.", field=("inputs",))
    if hasattr(inputs, "to_dict") and hasattr(inputs, "columns"):
        inputs = inputs.to_dict("records")
    return [_named(value, place) for place, value in enumerate(inputs)]


def _named(value: Any, place: int) -> Any:
    try:
        return _written(value)
    except DataError as error:
        raise error.about(f"Input {place}", "inputs", place) from error


def _written(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Path):
        return _image(value.read_bytes())
    if isinstance(value, bytes | bytearray):
        return _image(bytes(value))
    if isinstance(value, Mapping):
        return {str(name): _cell(cell, str(name)) for name, cell in value.items()}
    return _numbers(value)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"it is not text: it contains {value[error.start]!a}.") from error
    return value


def _image(content: bytes) -> dict[str, bytes]:
    return {"image": content}


def _cell(cell: Any, column: str) -> Any:
    """A cell of a row; None for a missing one."""
    value = cell.item() if isinstance(cell, np.generic) else cell
    if value is None or value != value:  # NaN, NaT, NA
        return None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DataError(f"{column!r} is {value!r:.60}, not a text, finite number or boolean.", field=(column,))


def _numbers(value: Any) -> Any:
    """An array as nested lists."""
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (ValueError, TypeError) as error:
        raise DataError("its rows have different lengths or are not numbers.", code="ragged-input") from error
    if array.dtype.kind not in "uif":
        raise DataError(
            f"{type(value).__name__} is not an input: give a text, an image as bytes or a Path, a row as a mapping of "
            "columns, or numbers.",
            code="unsupported-media",
        )
    if not np.isfinite(array).all():
        raise DataError("a number is not finite. Correct or remove it.", code="non-finite")
    return array.tolist()


def listed_labels(labels: Any) -> list[Any]:
    """Labels in a list, whatever holds them, as values of Python; an iterator of them is at its end then.

    Raises `DataError` for what is one label.
    """
    if isinstance(labels, str | bytes | Mapping):
        raise DataError("The labels are a single label. Give a list.", field=("labels",))
    given = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    return [label.item() if isinstance(label, np.generic) else label for label in given]


def written_labels(labels: Sequence[Any], targets: Sequence[str] | None) -> list[Any]:
    """Labels or values as the wire has them.

    labels: n class names, which may be numbers, or n values: each a number, a mapping of names to numbers, or several
        numbers in the order of the targets; see `listed_labels`.
    targets: names of the values; None: these are class names.

    Raises `DataError` for what is none, with its number.
    """
    given = enumerate(labels)
    return [_label(one, place) if targets is None else _value(one, place, targets) for place, one in given]


def are_numbers(labels: Sequence[Any]) -> bool:
    """Whether labels may be values: whether each is a number, or has several; see `listed_labels`."""
    return all(isinstance(label, int | float | Mapping | list | tuple) for label in labels)


def _label(label: Any, place: int) -> str:
    if label is None or label != label or not isinstance(label, str | int | float):
        raise DataError(
            f"Label {place} is {label!r:.60}, not the name of a class.", code="missing-label", field=("labels", place)
        )
    return _text(label) if isinstance(label, str) else str(label)


def _value(value: Any, place: int, targets: Sequence[str]) -> Any:
    if isinstance(value, list | tuple) and len(value) == len(targets):
        value = dict(zip(targets, value, strict=True)) if len(targets) > 1 else value[0]
    if isinstance(value, Mapping):
        return {str(name): _number(one, place) for name, one in value.items()}
    return _number(value, place)


def _number(value: Any, place: int) -> float:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(
            f"Value {place} is {value!r:.60}, not a finite number.", code="non-finite", field=("labels", place)
        )
    return float(value)
