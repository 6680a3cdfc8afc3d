"""The user's own images as tasks."""

from typing import Any

import numpy as np

from handful.encoders.images import ImageEncoder
from handful.errors import UserError
from handful.own_code import check_trusted
from handful.pipelines.encoded_images import EncodedImagePipeline
from handful.pipelines.images import ImageInputs, ImagePipeline
from handful.raw_batch import RawBatch
from handful.tasks.data_options import COLUMNS, Options
from handful.tasks.distribution import TaskDistribution
from handful.tasks.own_rows import tasks_of
from handful.tasks.splits import digests

ENCODED = ("encoder", "tune_encoder")


def image_tasks(
    raw: RawBatch, test: RawBatch | None, options: Options, pipeline: ImageInputs | None
) -> TaskDistribution:
    """Tasks from a folder of images; see `open_tasks`.

    test: of the folder to test on.
    """
    options.refuse("a folder of images", *(name for name in COLUMNS if name not in ("label", *ENCODED)), "inputs")
    if pipeline is not None:
        options.refuse("images that a trained model reads with its own", *ENCODED)
    encoder = _encoder(options) if options.encoder else None
    if encoder is None:
        options.refuse("images without an encoder", "tune_encoder")

    def fit(train: np.ndarray, _: list[str] | None) -> ImageInputs:
        how: dict[str, Any] = {"limits": options.limits, "place": raw.origin}
        if encoder is None:
            return ImagePipeline.fit(raw.inputs, train, size=options.image_size, **how)
        return EncodedImagePipeline.fit(raw.inputs, train, encoder=encoder, layers=options.tuned_layers(), **how)

    return tasks_of(raw, fit, lambda part, _: digests(part.inputs), pipeline, options, test=test)


def _encoder(options: Options) -> ImageEncoder:
    assert options.encoder, "asked before"
    if options.image_size:
        raise UserError(
            "The encoder determines the size of images.", field=("image_size",), hint="Remove {image_size}."
        )
    check_trusted(options.encoder, options.trust, "encoder")
    encoder = ImageEncoder(options.encoder)
    encoder.device = options.device
    return encoder
