"""The user's own arrays as tasks."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from handful.data_options import RAW
from handful.errors import DataError, UserError
from handful.pipelines.arrays import ArrayPipeline, array_targets
from handful.pipelines.pipeline import numbers
from handful.raw_batch import RawBatch
from handful.tasks.data_options import COLUMNS, Options
from handful.tasks.distribution import TaskDistribution
from handful.tasks.own_rows import tasks_of
from handful.tasks.splits import digests


def array_tasks(
    path: Path, raw: RawBatch, test: RawBatch | None, options: Options, pipeline: ArrayPipeline | None
) -> TaskDistribution:
    """Tasks from an npz file; see `open_tasks`.

    test: of the file to test on.
    """
    options.refuse("an npz file, whose keys determine that", *COLUMNS, "image_size")
    raw = _as_taken(path, raw, pipeline)
    test = test and _as_taken(options.test, test, pipeline)

    def fit(train: np.ndarray, labels: list[str] | None) -> ArrayPipeline:
        group, order = None if raw.groups is None else "group", None if raw.order is None else "order"
        return ArrayPipeline.fit(
            raw.inputs,
            train,
            raw=options.inputs == RAW,
            labels=labels,
            targets=raw.targets,
            group=group,
            order=order,
        )

    def digested(part: RawBatch, _: ArrayPipeline | None) -> list[str]:
        given = part.groups, part.labels, part.order, part.targets, part.tasks
        facts = (np.asarray(array).tolist() for array in given if array is not None)
        return digests(zip((row.tobytes() for row in part.inputs), *facts, strict=True))

    return tasks_of(raw, fit, digested, pipeline, options, test=test)


def _as_taken(path: object, raw: RawBatch, pipeline: ArrayPipeline | None) -> RawBatch:
    """Arrays with targets and moments as numbers; an error if keys are missing or do not fit the model."""
    valued = raw.targets is not None
    if valued == (raw.labels is not None):
        raise DataError(f"{path} needs either 'labels' (classes) or 'targets' (numbers) beside 'inputs'.")
    if valued and raw.tasks is None:
        raise DataError(f"{path} has 'targets' but no 'task': add an array with the task of each row.")
    if pipeline is not None and bool(pipeline.outputs) != valued:
        raise UserError(f"The model predicts {'numbers' if pipeline.outputs else 'classes'}, but {path} has none.")
    if valued:
        raw = replace(raw, targets=array_targets(raw.targets, raw.called("target")))
    return raw if raw.order is None else replace(raw, order=numbers(raw.order, f"{path}: 'order'"))
