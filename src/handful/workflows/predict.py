"""From an adapted task and the user's inputs to predictions."""

import functools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from handful.data_options import DataOptions
from handful.engine.devices import device_named
from handful.errors import DataError, HandfulError
from handful.limits import LOCAL, Limits
from handful.models.adapted_task import AdaptedTask
from handful.models.lookup import model_of
from handful.models.results import results
from handful.readers.class_folders import ending
from handful.readers.images import IMAGES, ImageReader
from handful.readers.paths import existing, files_below, note_passed_over, reading
from handful.readers.reader import reader_of
from handful.readers.tables import table_files
from handful.workflows.adapt import pipeline_of
from handful.workflows.encoding import encoded_inputs, id_with

ARRAYS = {".npz"}
LINE = "Standard input, line {}"


def predict_from_files(
    task: Path,
    inputs: Sequence[str | Path],
    model: Path | None = None,
    *,
    lines: BinaryIO | None = None,
    device: str = "cpu",
    trust: Sequence[str] = (),
    limits: Limits = LOCAL,
    options: DataOptions | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Rows of predictions as they are made: each has the id of its input and the fields of its `Result`.

    The inputs of a file are predicted at once, and so are those of a folder of images, or of one with a text in each
    file; of another folder, and of several paths, one file after the other. An id is the name of a file or the number
    of a row from 1, after the path if the inputs are several files.

    task: its file.
    inputs: files and folders.
    model: the path of the meta-model, if it is not found by its digest.
    lines: of JSON, each an input: an object with the columns of a row, a text, or numbers. Each is predicted as soon as
        it is read, after the files, and its id is its number.
    device: one of `handful.engine.devices.DEVICES`.
    trust: see `MetaModel.from_pretrained`.
    limits, options: of each file (see `DataOptions.for_file`).

    Raises `DataError` for unreadable inputs; for a missing path, before anything is predicted.
    """
    adapted = AdaptedTask.load(task)
    meta = model_of(adapted, task, given=model, trust=trust).to(device_named(device))
    pipeline = pipeline_of(meta.for_task(adapted))

    def rows(values: Tensor, ids: Sequence[str]) -> list[dict[str, Any]]:
        found = results(adapted, meta.predict(adapted, values))
        return [{"id": id_} | result.to_json() for id_, result in zip(ids, found, strict=True)]

    for path, name in _named(list(map(existing, inputs))):
        values, ids = encoded_inputs(pipeline, path, limits, options)
        yield rows(values, [id_with(name, path, id_) if name else id_ for id_ in ids])
    if lines is None:
        return
    most = min(limits.bytes, sys.maxsize - 1) + 1
    for number, line in enumerate(iter(functools.partial(lines.readline, most), b""), start=1):
        if not line.strip():
            continue
        try:
            limits.check("It", bytes=len(line))
            yield rows(pipeline.encode([_read(line)], limits), [str(number)])
        except HandfulError as error:
            raise error.about(LINE.format(number)) from error


def _named(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """The paths to predict one by one, each with its prefix in ids, which is empty if it is the only one."""
    for path in paths:
        called = str(path) if len(paths) > 1 else ""
        files = _files_of(path)
        yield from ((file, os.path.join(called, file.name)) for file in files)
        if not files:
            yield path, called


def _files_of(folder: Path) -> list[Path]:
    """The tables and arrays of a folder by name; none if the folder is itself a batch of images or texts."""
    with reading(folder):
        if not folder.is_dir() or not isinstance(reader_of(folder), ImageReader) or ending(files_below(folder), IMAGES):
            return []
        files = sorted([*table_files(folder), *ending(folder.iterdir(), ARRAYS)])
        if files:
            note_passed_over(folder, files)
        return files


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            "This line is not JSON. Write one input per line: an object with the columns of a row, a text in quotes, "
            "or a list of numbers. Or use a file.",
            code="unsupported-media",
        ) from error
