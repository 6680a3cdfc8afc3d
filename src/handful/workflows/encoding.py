"""Encoding of the user's files for models: tensors, labels and ids."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from handful.cells import written
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.pipelines.images import ImageInputs
from handful.pipelines.labels import class_names
from handful.pipelines.own_tables import OwnTablePipeline
from handful.pipelines.pipeline import InputPipeline
from handful.raw_batch import RawBatch
from handful.readers.archives import unpacked
from handful.readers.images import ImageReader
from handful.readers.paths import reading
from handful.readers.reader import read, reader_of
from handful.readers.table_folders import single_table


class EncodedExamples(NamedTuple):
    """The labeled examples of one task.

    pipeline: of the task, which encodes its later inputs, too.
    inputs: `(n, *input_shape)`.
    labels: n class names, or targets in the user's units `(n, outputs)`.
    ids: file names, or row numbers from 1.
    groups: of each example, if the file has them.
    rows: of a table with columns of its own: each example as `OwnTablePipeline.alone` gives it; else none.
    """

    pipeline: InputPipeline
    inputs: Tensor
    labels: tuple[str, ...] | Tensor
    ids: list[str]
    groups: list[str] | None
    rows: Sequence[Mapping[str, Any]] = ()


def encoded_examples(
    pipeline: InputPipeline,
    path: str | Path,
    target: str | None = None,
    limits: Limits = LOCAL,
    options: DataOptions | None = None,
    *,
    added: bool = False,
) -> EncodedExamples:
    """Read the labeled examples of a task; `DataError` names their fault.

    target: the column to predict, if the model's tasks are tables with differing columns; None: the model's.
    options: the format of the file (see `DataOptions.for_file`).
    added: whether they are added to others, so that all may be of one class.
    """
    with opened_examples(pipeline, path, target, limits, options, added=added) as (of_task, raw, labels):
        groups = None if raw.groups is None else list(class_names(raw.groups, raw.named("group")))
        inputs = of_task.encode(raw.inputs, limits, raw.origin)
        rows = of_task.alone(raw.inputs) if isinstance(of_task, OwnTablePipeline) else ()
        return EncodedExamples(of_task, inputs, labels, list(raw.ids), groups, rows)


def encoded_inputs(
    pipeline: InputPipeline, path: str | Path, limits: Limits = LOCAL, options: DataOptions | None = None
) -> tuple[Tensor, list[str]]:
    """Read unlabeled inputs `(n, *input_shape)` and their ids; `DataError` names their fault.

    options: the format of the file (see `DataOptions.for_file`).
    """
    with opened_inputs(pipeline, path, limits, options) as raw:
        return pipeline.encode(raw.inputs, limits, raw.origin), list(raw.ids)


@contextlib.contextmanager
def opened_examples(
    pipeline: InputPipeline,
    path: str | Path,
    target: str | None = None,
    limits: Limits = LOCAL,
    options: DataOptions | None = None,
    *,
    added: bool = False,
    inside: Path | None = None,
) -> Iterator[tuple[InputPipeline, RawBatch, tuple[str, ...] | Tensor]]:
    """The pipeline of a task, its raw examples in a file, and their labels: see `encoded_examples`.

    inside: the folder in which archives are unpacked while the context lasts; by default the system's.
    """
    with unpacked(path, limits, inside) as content:
        path = _checked(content, pipeline)
        raw = read(path, options=pipeline.data_options.for_file(options), labeled=True, limits=limits)
        of_task = pipeline.of_task(raw.inputs, target)
        if of_task is not pipeline:
            raw = read(path, options=of_task.data_options.for_file(options), labeled=True, limits=limits)
        given = raw.targets if of_task.targets else raw.labels
        if given is None:
            raise DataError(
                f"{path} does not contain labeled examples for this model, which takes: {of_task.described()}.",
                code="unsupported-media",
            )
        of_task.check_unit(raw)
        if pipeline.data_options.task and raw.tasks is not None:
            _check_one_task(raw)
        named = raw.named("target" if of_task.targets else "label")
        yield of_task, raw, of_task.encode_labels(given, named, added=added)


@contextlib.contextmanager
def opened_inputs(
    pipeline: InputPipeline,
    path: str | Path,
    limits: Limits = LOCAL,
    options: DataOptions | None = None,
    *,
    inside: Path | None = None,
) -> Iterator[RawBatch]:
    """Raw unlabeled inputs in a file; inside: see `opened_examples`."""
    with unpacked(path, limits, inside) as content:
        path = _checked(content, pipeline)
        yield read(path, options=pipeline.data_options.for_file(options), limits=limits)


def id_with(name: str, path: Path, id_: str) -> str:
    """The id of an input among those of several files: the name of its file or folder, and its own id."""
    if id_ == path.name:  # that of the only input of a file is its name
        return name
    return os.path.join(name, id_) if path.is_dir() else f"{name}:{id_}"


def _checked(path: Path, pipeline: InputPipeline) -> Path:
    """The path to read: the given one, or the only table of a folder. Raises `DataError` for images, or an unreadable
    folder, if the model takes other inputs.
    """
    with reading(path):
        path = single_table(path)
        if isinstance(reader_of(path), ImageReader) and not isinstance(pipeline, ImageInputs):
            raise DataError(
                f"{path} does not contain inputs for this model, which takes: {pipeline.described()}.",
                code="unsupported-media",
            )
    return path


def _check_one_task(raw: RawBatch) -> None:
    """Raise `DataError` for examples of several tasks; a missing task name counts as the same task."""
    tasks = sorted({name for name in map(written, raw.tasks) if name is not None})
    if len(tasks) > 1:
        raise DataError(
            f"{raw.called('task')} has {len(tasks)} tasks ({', '.join(tasks[:3])}{', ...' if len(tasks) > 3 else ''}), "
            "but a model adapts to one task at a time. Keep the rows of one task."
        )
