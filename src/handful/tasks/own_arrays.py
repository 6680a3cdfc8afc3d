"""The user's own arrays as tasks."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from handful.errors import DataError, UserError
from handful.pipelines.arrays import ArrayPipeline, array_targets
from handful.pipelines.pipeline import numbers
from handful.raw_batch import RawBatch
from handful.tasks.data_options import COLUMNS, Options
from handful.tasks.distribution import TaskDistribution
from handful.tasks.own_rows import tasks_of
from handful.tasks.splits import digests


def array_tasks(path: Path, raw: RawBatch, options: Options, pipeline: ArrayPipeline | None) -> TaskDistribution:
    """Tasks from an npz file; see `open_tasks`."""
    options.refuse("an npz file, whose keys tell", *COLUMNS, "image_size")
    valued = raw.targets is not None
    if valued == (raw.labels is not None):
        raise DataError(f"{path} needs either 'labels' (classes) or 'targets' (numbers) beside 'inputs'.")
    if valued and raw.tasks is None:
        raise DataError(f"{path} has 'targets' but no 'task': add an array that tells which task each row belongs to.")
    if pipeline is not None and bool(pipeline.outputs) != valued:
        raise UserError(f"The model predicts {'numbers' if pipeline.outputs else 'classes'}, but {path} does not.")
    facts = [array for array in (raw.groups, raw.labels, raw.order, raw.targets, raw.tasks) if array is not None]
    if valued:
        raw = replace(raw, targets=array_targets(raw.targets, raw.called("target")))
    if raw.order is not None:
        raw = replace(raw, order=numbers(raw.order, f"{path}: 'order'"))

    def fit(train: np.ndarray, labels: list[str] | None) -> ArrayPipeline:
        group, order = None if raw.groups is None else "group", None if raw.order is None else "order"
        return ArrayPipeline.fit(raw.inputs, train, labels=labels, targets=raw.targets, group=group, order=order)

    def digested(_: ArrayPipeline) -> list[str]:
        return digests(zip((row.tobytes() for row in raw.inputs), *(fact.tolist() for fact in facts), strict=True))

    return tasks_of(raw, fit, digested, pipeline, options)
