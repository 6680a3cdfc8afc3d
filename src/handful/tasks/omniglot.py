"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from handful.errors import DataError
from handful.tasks.distribution import SPLITS, Split, seeded
from handful.tasks.pipelines import ImagePipeline
from handful.tasks.pool import LabeledPool
from handful.tasks.readers import existing, image_files, opened_npz, subfolders

KEYS = ("images", "alphabet", "character", "vinyals_split")
PARTS = ("images_background", "images_evaluation")


class Omniglot(LabeledPool):
    """Handwritten characters, 28x28, from a path; each rotation by 90 degrees is a class of its own.

    *Human-level concept learning through probabilistic program induction* (Lake et al., 2015),
    https://www.science.org/doi/10.1126/science.aab3050. The path is an npz file with `images` (characters, drawings,
    28, 28) in bytes with bright ink, `alphabet`, `character` and `vinyals_split` (the split of *Matching Networks*,
    4112/688/1692 classes); or the official folder with `images_background` (trains, but for a fifth of its characters
    drawn by the seed, which validates) and `images_evaluation` (tests). Rotations of a character share its split.
    """

    key = "omniglot"
    pipeline = ImagePipeline(size=28, channels=1, invert=True)

    def __init__(self, path: str | Path, *, seed: int = 0) -> None:
        drawings = _read(existing(path), seed)
        images = torch.from_numpy(drawings.images).unsqueeze(1)
        characters = len(drawings.names)
        labels = torch.from_numpy(drawings.characters)
        splits: dict[Split, Sequence[int]] = {
            on: [turn * characters + i for turn in range(4) for i, split in enumerate(drawings.splits) if split == on]
            for on in SPLITS
        }
        super().__init__(
            torch.cat([torch.rot90(images, turn, (2, 3)) for turn in range(4)]),
            torch.cat([labels + turn * characters for turn in range(4)]),
            [f"{name}/rotated-{90 * turn}" for turn in range(4) for name in drawings.names],
            splits=splits,
            seed=seed,
        )


class _Drawings(NamedTuple):
    images: np.ndarray  # (n, 28, 28) bytes, bright ink
    characters: np.ndarray  # (n,) ids
    names: list[str]
    splits: list[str]


def _read(path: Path, seed: int) -> _Drawings:
    if path.is_file():
        return _read_npz(path)
    if all((path / part).is_dir() for part in PARTS):
        return _read_folders(path, seed)
    files = sorted(path.glob("omniglot*28*.npz"))
    if files:
        return _read_npz(files[0])
    raise DataError(
        f"{path} is not Omniglot: it has no folders {' and '.join(PARTS)} (unzip images_background.zip and "
        "images_evaluation.zip of github.com/brendenlake/omniglot there) and no omniglot_28.npz."
    )


def _read_npz(path: Path) -> _Drawings:
    with opened_npz(path) as file:
        if not set(KEYS) <= set(file.keys()):
            raise DataError(f"{path} is not Omniglot: it lacks some of the arrays {', '.join(KEYS)}.")
        images, alphabets, names, splits = (file[key] for key in KEYS)
    if images.ndim != 4 or images.shape[2:] != (28, 28) or images.dtype != np.uint8:
        raise DataError(f"{path}: images should be bytes (characters, drawings, 28, 28), not {images.shape}.")
    count, drawers = images.shape[:2]
    return _Drawings(
        images.reshape(-1, 28, 28),
        np.repeat(np.arange(count), drawers),
        [f"{alphabet}/{name}" for alphabet, name in zip(alphabets.tolist(), names.tolist(), strict=True)],
        splits.tolist(),
    )


def _read_folders(path: Path, seed: int) -> _Drawings:
    images: list[np.ndarray] = []
    characters: list[np.ndarray] = []
    names: list[str] = []
    splits: list[str] = []
    for part in PARTS:
        folders = [character for alphabet in subfolders(path / part) for character in subfolders(alphabet)]
        order = torch.randperm(len(folders), generator=seeded(seed)).tolist()
        held_out = set(order[: max(1, len(folders) // 5)])
        for number, folder in enumerate(folders):
            drawings = Omniglot.pipeline.decode(image_files(folder)).squeeze(1).numpy()
            images.append(drawings)
            characters.append(np.full(len(drawings), len(names)))
            names.append(f"{folder.parent.name}/{folder.name}")
            splits.append("test" if part == PARTS[1] else "val" if number in held_out else "train")
    if not images:
        raise DataError(f"{path}: the folders {' and '.join(PARTS)} hold no alphabets with character folders.")
    return _Drawings(np.concatenate(images), np.concatenate(characters), names, splits)
