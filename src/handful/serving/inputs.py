"""What a user gives as one input, as bytes that a store keeps, and back."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from handful.errors import DataError

TYPES = {"u": "int64", "i": "int64", "f": "float64"}
"""How numbers are kept, by NumPy's kind of them; bytes stay bytes, which images are made of."""


EXACT = 2**53
"""Below which all whole numbers are floats."""


class Written(NamedTuple):
    """An input as bytes: equal inputs give equal ones.

    media: "text", "image" (the content of its file), "row" (JSON), or "array", its type and shape.
    """

    media: str
    content: bytes


Given: TypeAlias = Sequence[Written] | np.ndarray
"""Inputs as a store keeps them; or vectors `(n, width)` of doubles, which mean the same as each of them written."""


def written(value: Any, place: int = 0) -> Written:
    """One input as a store keeps it.

    value: a text, the bytes of an image, a mapping of columns, or an array of numbers in lists, of NumPy or of PyTorch.
    place: its number, for messages.

    Raises `DataError` for anything else.
    """
    try:
        if isinstance(value, str):
            return Written("text", value.encode())
        if isinstance(value, bytes | bytearray):
            return Written("image", bytes(value))
        if isinstance(value, Mapping):
            cells = {str(name): _cell(cell) for name, cell in value.items()}
            return Written("row", json.dumps(cells, sort_keys=True, ensure_ascii=False).encode())
        return _array(value)
    except UnicodeEncodeError as error:
        raise DataError(
            f"Input {place} is not text: it contains {error.object[error.start]!a}.", field=("inputs", place)
        ) from error
    except DataError as error:
        raise error.about(f"Input {place}", "inputs", place) from error


def all_written(inputs: Sequence[Any] | np.ndarray) -> list[Written]:
    """Inputs as a store keeps them; `DataError` names the first that is none."""
    if isinstance(inputs, str | bytes | Mapping):
        raise DataError("The inputs are a single text, image or row. Give a list.", field=("inputs",))
    return [written(value, place) for place, value in enumerate(inputs)]


def taken(inputs: Sequence[Any] | np.ndarray) -> Given:
    """Inputs that are predicted and not kept: an array of vectors as it is, all else as `all_written` makes it."""
    plain = isinstance(inputs, np.ndarray) and inputs.ndim == 2 and inputs.dtype == np.float64
    return inputs if plain and not isinstance(inputs, np.ma.MaskedArray) else all_written(inputs)


def kind_of(inputs: Given) -> object:
    """What inputs, one at least, share with others that they may be `joined` with."""
    return ("vectors", inputs.shape[1]) if isinstance(inputs, np.ndarray) else inputs[0].media


def joined(several: Sequence[Given]) -> Given:
    """Inputs of one kind, one after another; an array is a new one."""
    if isinstance(several[0], np.ndarray):
        return np.concatenate(several)
    return [one for inputs in several for one in inputs]


def values(inputs: Given) -> Any:
    """Inputs as pipelines take them: a list, or where they are arrays one array `(n, *shape)`.

    Raises `DataError` if they are of several kinds or shapes.
    """
    if isinstance(inputs, np.ndarray):
        return inputs
    first = inputs[0].media
    kinds = [one.media.split()[0] for one in inputs]
    for place, one in enumerate(inputs):
        if kinds[place] != kinds[0] or (kinds[0] == "array" and one.media.split()[2:] != first.split()[2:]):
            raise DataError(
                f"Input {place} is {_called(one.media)}, but the first is {_called(first)}. Give inputs of one kind "
                "and shape.",
                code="ragged-input",
                field=("inputs", place),
            )
    read = [value(one) for one in inputs]
    return np.stack(read) if kinds[0] == "array" else read


def value(one: Written) -> Any:
    """An input as it was given: a text, bytes, a dict or an array."""
    kind, *facts = one.media.split()
    if kind == "text":
        return one.content.decode()
    if kind == "image":
        return one.content
    if kind == "row":
        return json.loads(one.content)
    dtype, *shape = facts
    return np.frombuffer(one.content, dtype).reshape([int(size) for size in shape])


def encoded_bytes(inputs: Tensor) -> list[bytes]:
    """Encoded inputs `(n, ...)` as bytes, each by itself."""
    return [save({"input": row.detach().cpu().clone(memory_format=torch.contiguous_format)}) for row in inputs]


def encoded_tensor(content: bytes) -> Tensor:
    """One of them again."""
    return load(content)["input"]


def _cell(cell: Any) -> str | int | float | bool | None:
    cell = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT:
        return int(cell)  # one number, however it is written
    if cell is None or isinstance(cell, str | bool | int) or (isinstance(cell, float) and math.isfinite(cell)):
        if isinstance(cell, str):
            cell.encode()
        return cell
    raise DataError(f"A cell is a text, a finite number, a boolean or None, not {cell!r:.60}.")


def _array(given: Any) -> Written:
    try:
        array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError("its rows have different lengths or are not numbers.", code="ragged-input") from error
    if array.dtype.kind not in TYPES:
        raise DataError(
            f"{type(given).__name__} is not an input: give a text, the bytes of an image, a row as a mapping of "
            f"columns, "
            "or numbers.",
            code="unsupported-media",
        )
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError("it has integers of more than 63 bits. Give them as floats.", code="non-finite")
    dtype = "uint8" if array.dtype == np.uint8 else TYPES[array.dtype.kind]
    return Written(" ".join(["array", dtype, *map(str, array.shape)]), array.astype(dtype).tobytes())


def _called(media: str) -> str:
    kind, *facts = media.split()
    return (
        f"an array of shape ({', '.join(facts[1:])})"
        if kind == "array"
        else f"{'an' if kind == 'image' else 'a'} {kind}"
    )
