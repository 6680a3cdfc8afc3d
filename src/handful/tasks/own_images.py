"""The user's own images as tasks."""

import numpy as np

from handful.pipelines.images import ImagePipeline
from handful.raw_batch import RawBatch
from handful.tasks.data_options import COLUMNS, Options
from handful.tasks.distribution import TaskDistribution
from handful.tasks.own_rows import tasks_of
from handful.tasks.splits import digests


def image_tasks(
    raw: RawBatch, test: RawBatch | None, options: Options, pipeline: ImagePipeline | None
) -> TaskDistribution:
    """Tasks from a folder of images; see `open_tasks`. test: of the folder to test on."""
    options.refuse("a folder of images", *(name for name in COLUMNS if name != "label"), "inputs")

    def fit(train: np.ndarray, _: list[str] | None) -> ImagePipeline:
        return ImagePipeline.fit(raw.inputs, train, size=options.image_size, limits=options.limits, place=raw.origin)

    return tasks_of(raw, fit, lambda part, _: digests(part.inputs), pipeline, options, test=test)
