"""Labels and targets of any type from other libraries, converted to plain ones, or a `DataError`."""

import datetime
import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.cells import note_case, written
from handful.errors import DataError, count_of
from handful.raw_batch import Origin, numbered

LABELS = (str, Real, np.bool_, Decimal, datetime.date)
"""Types of labels beside bytes; the text forms of other types do not identify a class."""
WAY_OUT = "Give a list with one text or number per example."


PYTHON = Origin("The labels", numbered("The labels, example"))
"""Labels that come without a file."""


def class_names(labels: Any, origin: Origin = PYTHON) -> tuple[str, ...]:
    """The class names `(n,)` of labels, in the form that files have.

    labels: n texts, bytes in UTF-8, numbers, truth values or dates, in a list, a tuple, or whatever has NumPy's
        `__array__`: arrays, tensors, columns of data frames.

    Raises `DataError` for another shape, for a missing label (None, NaN, NA, ""), and for anything else that is not a
    label; makes a note of names that differ only in case.
    """
    names: dict[Any, str] = {}
    row = _row(labels, origin)
    if set(map(type, row)) <= {str, int}:
        for place, label in enumerate(row):  # the usual ones, each but once
            if label not in names:
                names[label] = _class_name(label, origin, place)
        found = tuple(names[label] for label in row)
    else:
        found = tuple(_class_name(label, origin, place) for place, label in enumerate(row))
    _check_single(found, origin)
    note_case(found, origin.whole, origin.noun)
    return found


def class_numbers(names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """The number of each name: its place among the classes `(n,)`."""
    places = {name: place for place, name in enumerate(classes)}
    return torch.tensor([places[name] for name in names], dtype=torch.long, device="cpu")


def target_values(targets: Any, count: int, outputs: int) -> Tensor:
    """The targets of `count` examples `(count, outputs)`, as doubles that share no memory with what was given.

    targets: `(count, outputs)`, or `(count,)` for one output, in a list or whatever has `__array__`.

    Raises `DataError` for another shape, since reshaping would mix examples, and for values that are not real numbers.
    """
    values = real_numbers(targets)
    shape = tuple(values.shape)
    if shape == (count, outputs) or (outputs == 1 and shape == (count,)):
        return values.reshape(count, outputs)
    hint = " Transpose them." if shape == (outputs, count) else ""
    raise DataError(
        f"The targets of {count_of(count, 'example')} have shape {shape}, but the model predicts "
        f"{count_of(outputs, 'value')} for each: they should be ({count}, {outputs}).{hint}",
        code="wrong-shape",
    )


def _row(labels: Any, origin: Origin) -> Sequence[Any]:
    """One label per example."""
    kind = type(labels).__name__
    if isinstance(labels, Tensor):
        labels = _array_of(labels, origin)
    if hasattr(labels, "__array__"):
        array = np.asarray(labels)
        if array.ndim != 1:
            raise DataError(
                f"{origin.whole} have shape {array.shape}, but should be one for each example: (n,).",
                code="wrong-shape",
            )
        row: list[Any] = array.tolist() if array.dtype.kind in "biuU" else list(array)
        if isinstance(labels, np.ma.MaskedArray):
            row = [None if masked else label for label, masked in zip(row, np.ma.getmaskarray(labels), strict=True)]
        return row
    if not isinstance(labels, Sequence) or isinstance(labels, str | bytes | bytearray):
        raise DataError(f"{origin.whole} are of type {kind}. {WAY_OUT}")
    return labels


def _array_of(labels: Tensor, origin: Origin) -> np.ndarray:
    if labels.is_floating_point() and labels.dtype not in (torch.float16, torch.float32, torch.float64):
        labels = labels.double()  # NumPy lacks the type
        if not torch.equal(labels, labels.round()):
            raise DataError(f"{origin.whole} have too few bits: 0.1 would become 0.1001. {WAY_OUT}")
    try:
        return labels.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:
        raise DataError(f"{origin.whole} cannot be read ({error}). {WAY_OUT}") from error


def _check_single(names: Sequence[str], origin: Origin) -> None:
    """Raise `DataError` about a name such as `a|b`, where a or b is a class of its own."""
    classes = set(names)
    for place, name in enumerate(names):
        if "|" in name and any(part.strip() in classes for part in name.split("|")):
            raise _several(name, origin, place)


def _several(label: object, origin: Origin, place: int) -> DataError:
    return DataError(
        f"{origin.place(place)}: {label!r} are several {origin.noun}s, but each example has one class. Give it one, or "
        f"remove it."
    )


def _class_name(label: Any, origin: Origin, place: int) -> str:
    if isinstance(label, list | tuple) and len(label) == 1:
        label = label[0]
    elif isinstance(label, list | tuple) and label:
        raise _several(label, origin, place)
    if isinstance(label, Tensor | np.ndarray) and label.ndim == 0:
        label = _row(label.reshape(1), origin)[0]
    if hasattr(label, "as_py"):  # a value of pyarrow
        label = label.as_py()
    if isinstance(label, np.datetime64):
        label = label.item() if not isinstance(label.item(), int) else label.astype("datetime64[us]").item()
    elif isinstance(label, np.floating):
        label = float(str(label))  # 0.1 in 32 bits is 0.1, and not 0.10000000149
    try:
        label = label.decode() if isinstance(label, bytes) else label
    except UnicodeDecodeError as error:
        raise DataError(f"{origin.place(place)}: {label!r} is not text in UTF-8.", code="unsupported-media") from error
    known = isinstance(label, LABELS) and not isinstance(label, np.timedelta64) and label not in (math.inf, -math.inf)
    name = written(label) if known or not hasattr(label, "__len__") else ""
    if name is None:
        raise DataError(
            f"{origin.place(place)}: the {origin.noun} is missing. Remove the example, or give it one.",
            code="missing-label",
        )
    if not known:
        raise DataError(f"{origin.place(place)}: {label!r:.60} is not a label. {WAY_OUT}")
    return name


def real_numbers(targets: Any) -> Tensor:
    """Targets of any shape as copied doubles; missing ones are NaN; `DataError` for values that are not real
    numbers."""
    try:
        if isinstance(targets, Tensor):
            if targets.is_complex() or targets.layout != torch.strided:
                raise TypeError(f"they are {targets.dtype}, {targets.layout}")
            return targets.detach().to(torch.float64, copy=True)
        if isinstance(targets, np.ma.MaskedArray):
            targets = np.ma.filled(targets.astype(np.float64), np.nan)
        array = np.asarray(targets)
        if array.dtype.kind not in "biufO" or any(isinstance(value, str | bytes) for value in array.flat):
            raise TypeError(f"they are {array.dtype}")
        return torch.from_numpy(array.astype(np.float64, order="C"))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(f"The model predicts numbers, but the targets are not all numbers ({error}).") from error
