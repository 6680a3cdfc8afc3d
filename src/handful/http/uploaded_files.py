"""Examples and inputs in one uploaded file: an archive of class folders, a table, or arrays."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from handful.errors import DataError, within
from handful.http.archives import check_archive
from handful.http.bodies import too_much
from handful.http.images import checked_image
from handful.http.json_inputs import checked_text
from handful.http.limits import DEFAULTS, RequestLimits
from handful.limits import SERVICE
from handful.models.meta_model import MetaModel
from handful.pipelines.pipeline import InputPipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.texts import TextPipeline
from handful.readers.archives import called
from handful.table import Table
from handful.workflows.encoding import opened_examples, opened_inputs


def examples_of_file(path: Path, model: MetaModel, limits: RequestLimits = DEFAULTS) -> tuple[list[Any], list[Any]]:
    """Inputs and labels of an uploaded file as `Service` takes them, which are those of the library.

    path: a .zip, .csv, .parquet or .npz file. What is unpacked lies beside it meanwhile.

    Raises `DataError` for what holds no examples of this model, or is more than the limits; its field is ("file",).
    """
    with (
        _opened(path, model, limits) as pipeline,
        opened_examples(pipeline, path, limits=SERVICE, added=True, inside=path.parent) as (own, raw, labels),
    ):
        named = list(labels) if isinstance(labels, tuple) else labels.tolist()
        return _values(raw.inputs, own, limits), named


def inputs_of_file(path: Path, model: MetaModel, limits: RequestLimits = DEFAULTS) -> list[Any]:
    """Inputs of an uploaded file without labels; see `examples_of_file`."""
    with _opened(path, model, limits) as pipeline, opened_inputs(pipeline, path, SERVICE, inside=path.parent) as raw:
        return _values(raw.inputs, pipeline, limits)


@contextlib.contextmanager
def _opened(path: Path, model: MetaModel, limits: RequestLimits) -> Iterator[InputPipeline]:
    """The pipeline of the model; errors and notes from inside name the file as if it lay nowhere."""
    with within("file"), called(Path(path.name), path):
        if model.pipeline is None:
            raise DataError(
                "The tasks of this model come from a generator: its inputs are arrays in JSON, not files.",
                code="unsupported-media",
            )
        if path.suffix in (".zip", ".npz"):
            check_archive(path, limits)
        yield model.pipeline


def _values(inputs: Any, pipeline: InputPipeline, limits: RequestLimits) -> list[Any]:
    """Values of a reader as `Service` takes them, each by itself."""
    if len(inputs) > limits.inputs:
        raise too_much("The file", limits.inputs, "inputs")
    if isinstance(inputs, np.ndarray) and inputs.size > limits.numbers:
        raise too_much("The file", limits.numbers, "numbers")
    if isinstance(inputs, Table):
        inputs = _rows(inputs, pipeline)
    values = list(inputs)
    for place, value in enumerate(values):
        if isinstance(value, bytes):
            checked_image(value, limits)
        for text in value.values() if isinstance(value, dict) else (value,):
            if isinstance(text, str):
                checked_text(text, limits, ("inputs", place))
    return values


def _rows(table: Table, pipeline: InputPipeline) -> list[Any]:
    """A table's texts, or its rows as mappings."""
    if isinstance(pipeline, TextPipeline):
        table.require([pipeline.text], ", the text")
        return table.sentences(pipeline.text)
    if isinstance(pipeline, TablePipeline):
        return pipeline.alone(table)
    raise DataError(f"This model does not support tables, but {pipeline.described()}.", code="unsupported-media")
