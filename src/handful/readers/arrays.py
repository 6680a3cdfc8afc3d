"""Arrays in npz files, which are never unpickled."""

import contextlib
import sys
import tokenize
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import RawBatch, numbered
from handful.readers.archives import DAMAGED_ZIP
from handful.readers.paths import existing
from handful.readers.reader import Reader, row_numbers

ARRAYS = ("inputs", "labels", "targets", "task", "group", "order")
"""The keys of an npz file."""
DAMAGED = (
    *DAMAGED_ZIP,
    MemoryError,
    OSError,
    SyntaxError,
    tokenize.TokenError,
)
"""What reading a damaged file fails with, in NumPy or below."""
KEYS = {"label": "labels", "target": "targets"}
"""The keys that `DataOptions` call otherwise."""


# Arrays


@contextlib.contextmanager
def opened_npz(path: Path, limits: Limits = LOCAL) -> Iterator[Any]:
    """An npz file's arrays by name; `DataError` for other or damaged files, and for pickles (never opened)."""
    try:
        with path.open("rb") as file:  # our own handle: NumPy leaves its one open on a damaged file
            if file.read(2) != b"PK":
                raise DataError(
                    f"{path} is not an npz file; write it with numpy.savez(path, inputs=..., ...).",
                    code="unsupported-media",
                )
            file.seek(0)
            arrays = np.load(file, allow_pickle=False)
            limits.check(path, bytes=sum(member.file_size for member in arrays.zip.infolist()))
            _check_headers(path, arrays.zip, limits)
            yield arrays
    except DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is damaged; write it again with numpy.savez. ({error})", code="unsupported-media"
        ) from error


def _check_headers(path: Path, members: zipfile.ZipFile, limits: Limits) -> None:
    """NumPy allocates what an array's header asks for, before it reads any of it."""
    whole = 0
    for member in members.infolist():
        if not member.filename.endswith(".npy"):
            continue
        with members.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        asked = prod(shape) * dtype.itemsize
        whole += asked
        limits.check(path, bytes=whole)
        if asked > member.file_size and not dtype.hasobject:
            raise ValueError(f"{member.filename} asks for {asked:,} bytes and has {member.file_size:,}")


def read_arrays(path: str | Path, limits: Limits = LOCAL) -> dict[str, np.ndarray]:
    """The arrays of an npz file by the keys `inputs`, `labels`, `targets`, `task`, `group`, `order`; never a pickle."""
    path = existing(path)
    with opened_npz(path, limits) as file:
        keys = list(file.keys())
        arrays = {key: _array(path, file, key) for key in ARRAYS if key in keys}
    if "inputs" not in arrays:
        raise DataError(
            f"{path} has no array 'inputs'. It holds: {', '.join(map(repr, keys)) or 'nothing'}. "
            "Needed: inputs, and labels or targets; optionally task, group and order."
        )
    rows = len(arrays["inputs"]) if arrays["inputs"].ndim else 0
    limits.check(path, rows=rows)
    if not arrays["inputs"].size:
        raise DataError(
            f"{path}: the array 'inputs' is empty, its shape is {arrays['inputs'].shape}.", code="too-few-examples"
        )
    for key, array in arrays.items():
        if array.ndim == 0 or len(array) != rows:
            raise DataError(
                f"{path}: {key!r} has shape {array.shape}, but 'inputs' has {rows} rows.", code="ragged-input"
            )
    return arrays


def _array(path: Path, file: Any, key: str) -> np.ndarray:
    try:
        array: np.ndarray = file[key]
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise
        raise DataError(
            f"{path}: the array {key!r} contains Python objects, stored as a pickle, which is never opened because it "
            f"can run any code. Save it as numbers or texts, such as {key}=numpy.array({key}.tolist()).",
            code="unsupported-media",
        ) from error
    if array.dtype.kind == "U":
        letters = np.ascontiguousarray(array).view(f"{array.dtype.str[0]}u4")
        if ((letters > sys.maxunicode) | ((letters >= 0xD800) & (letters < 0xE000))).any():
            raise ValueError(f"{key!r} contains an invalid character")
    return array


class ArrayReader(Reader):
    """An npz file."""

    name = "arrays"
    described = "an .npz file"
    suffixes = (".npz",)

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """Its arrays, unchanged."""
        arrays = read_arrays(path, limits)
        inputs = arrays.pop("inputs")
        raw = RawBatch(
            inputs,
            row_numbers(len(inputs)),
            numbered(f"{path}, row", 1),
            lambda role: f"{path}: {KEYS.get(role, role)!r}",
        )
        if not labeled:
            return raw
        key = options.target or options.label
        if key and key not in arrays:
            raise DataError(f"{path} has no array {key!r}, which the examples of this model need.", code="wrong-shape")
        return replace(
            raw,
            labels=arrays.get("labels"),
            targets=arrays.get("targets"),
            tasks=arrays.get("task"),
            groups=arrays.get("group"),
            order=arrays.get("order"),
        )
