"""Images as tasks with classes drawn anew, in the sizes that are asked for."""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from handful.errors import DataError
from handful.pipelines.images import ImagePipeline
from handful.tasks.distribution import SPLITS, Split, TaskDistribution
from handful.tasks.glyphs import Glyphs
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.omniglot import Omniglot

HELD_OUT = 12
"""Classes of tiered_imagenet_64 that are validated on, of its 61 for training; its "val" classes are the test."""
SIZES = {
    "glyphs": (1, 28, 28),
    "omniglot": (1, 28, 28),
    "emoji_32": (3, 32, 32),
    "tiered_imagenet_64": (3, 64, 64),
}
"""The images' own sizes, from which `choose_size` chooses; letters are of one size."""


SETS = tuple(SIZES)


def tasks_of(name: str, data: Path, size: int | None = None) -> TaskDistribution:
    """A set of images. data: the folder of the option `--data`. size: pixels a side, by default their own."""
    if name == "glyphs":
        return Glyphs()
    if name == "omniglot":
        return Omniglot(_existing(data / "omniglot" / "omniglot_28.npz"))
    return _emoji(data, size) if name == "emoji_32" else _tiered(data, size)


def _emoji(data: Path, size: int | None) -> TaskDistribution:
    with np.load(_existing(data / "emoji_32" / "emoji.npz")) as file:
        drawings, present, split = file["images"], file["present"], file["split"].tolist()
    labels, styles = np.nonzero(present)
    numbers = {on: [label for label, own in enumerate(split) if own == on] for on in SPLITS}
    return _pool(_resized(list(drawings[labels, styles]), size), labels, len(drawings), numbers)


def _tiered(data: Path, size: int | None) -> TaskDistribution:
    photos, labels, counts = [], [], []
    for part in ("train", "val"):
        with np.load(_existing(data / "tiered_imagenet_64" / f"{part}.npz")) as file:
            jpeg, offsets = file["jpeg"], file["offsets"]
            photos += [
                np.asarray(Image.open(io.BytesIO(jpeg[start:end].tobytes())).convert("RGB"))
                for start, end in pairwise(offsets)
            ]
            labels.append(file["label"].astype(np.int64) + sum(counts))
            counts.append(len(file["name"]))
    order = np.random.default_rng(0).permutation(counts[0]).tolist()
    numbers = {"val": order[:HELD_OUT], "train": order[HELD_OUT:], "test": range(counts[0], sum(counts))}
    return _pool(_resized(photos, size), np.concatenate(labels), sum(counts), numbers)


def _pool(images: np.ndarray, labels: np.ndarray, classes: int, numbers: dict[Split, Sequence[int]]) -> LabeledPool:
    pool = LabeledPool(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels).long(),
        [str(number) for number in range(classes)],
        splits=numbers,
    )
    pool.pipeline = ImagePipeline(size=images.shape[1], channels=3)
    return pool


def _resized(images: list[np.ndarray], size: int | None) -> np.ndarray:
    if size is None or size == len(images[0]):
        return np.stack(images)
    shrunk = (Image.fromarray(image).resize((size, size), Image.Resampling.BOX) for image in images)
    return np.stack([np.asarray(image) for image in shrunk])


def _existing(file: Path) -> Path:
    if not file.exists():
        raise DataError(f"{file} does not exist.")
    return file
