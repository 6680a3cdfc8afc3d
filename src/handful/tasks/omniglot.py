"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from handful import streams
from handful.errors import DataError
from handful.pipelines.images import ImagePipeline
from handful.readers.arrays import opened_npz
from handful.readers.paths import existing, subfolders
from handful.readers.reader import read
from handful.tasks.distribution import SPLITS, Split
from handful.tasks.labeled_pool import LabeledPool

KEYS = ("images", "alphabet", "character", "vinyals_split", "part")
ALPHABET_FOLDERS = ("images_background", "images_evaluation")


class Omniglot(LabeledPool):
    """Handwritten characters, 28x28, from a path; each rotation by 90 degrees is a class of its own.

    *Human-level concept learning through probabilistic program induction* (Lake et al., 2015),
    https://www.science.org/doi/10.1126/science.aab3050. The path is an npz file with `images` (characters, drawings,
    28, 28) in bytes with bright ink, `alphabet`, `character`, `vinyals_split` and `part`; or the official folder with
    `images_background` and `images_evaluation`. Rotations of a character share its split.

    split: "vinyals" is that of *Matching Networks* as prototypical networks use it (4112/688/1692 classes), which needs
        an npz file; "lake" tests on the evaluation alphabets, trains on the background alphabets and validates on a
        fifth of these, drawn by the seed. None: "vinyals" if available.
    one_alphabet: the classes of a task are of one alphabet, turned alike, as in Lake's trials.
    """

    key = "omniglot"
    pipeline = ImagePipeline(size=28, channels=1, invert=True)

    def __init__(
        self,
        path: str | Path,
        *,
        split: Literal["vinyals", "lake"] | None = None,
        one_alphabet: bool = False,
        seed: int = 0,
    ) -> None:
        drawings = _read(existing(path))
        if split == "vinyals" and drawings.vinyals is None:
            raise DataError(f"{path}: the vinyals split needs an npz file. Remove the split, or use split='lake'.")
        of_characters = _lake(drawings, seed) if split == "lake" or drawings.vinyals is None else drawings.vinyals
        images = torch.from_numpy(drawings.images).unsqueeze(1)
        characters = len(drawings.names)
        labels = torch.from_numpy(drawings.characters)
        splits: dict[Split, Sequence[int]] = {
            on: [turn * characters + i for turn in range(4) for i, part in enumerate(of_characters) if part == on]
            for on in SPLITS
        }
        alphabets = torch.from_numpy(np.unique(drawings.alphabets, return_inverse=True)[1])
        count = int(alphabets.max()) + 1
        super().__init__(
            torch.cat([torch.rot90(images, turn, (2, 3)) for turn in range(4)]),
            torch.cat([labels + turn * characters for turn in range(4)]),
            [f"{name}/rotated-{90 * turn}" for turn in range(4) for name in drawings.names],
            splits=splits,
            families=torch.cat([alphabets + turn * count for turn in range(4)]) if one_alphabet else None,
            seed=seed,
            copy=False,
        )


class _Drawings(NamedTuple):
    images: np.ndarray  # (n, 28, 28) bytes, bright ink
    characters: np.ndarray  # (n,) ids
    alphabets: list[str]  # of each character, as all that follows
    names: list[str]
    parts: list[str]
    vinyals: list[str] | None


def _lake(drawings: _Drawings, seed: int) -> list[str]:
    """The split of each character: by its alphabet."""
    background = sorted(
        {a for a, part in zip(drawings.alphabets, drawings.parts, strict=True) if part == ALPHABET_FOLDERS[0]}
    )
    order = torch.randperm(len(background), generator=streams.alphabet_order(seed)).tolist()
    held_out = {background[i] for i in order[: max(1, len(background) // 5)]}
    return [
        "test" if part == ALPHABET_FOLDERS[1] else "val" if alphabet in held_out else "train"
        for alphabet, part in zip(drawings.alphabets, drawings.parts, strict=True)
    ]


def _read(path: Path) -> _Drawings:
    if path.is_file():
        return _read_npz(path)
    if all((path / part).is_dir() for part in ALPHABET_FOLDERS):
        return _read_folders(path)
    files = sorted(path.glob("omniglot*28*.npz"))
    if files:
        return _read_npz(files[0])
    raise DataError(
        f"{path} is not Omniglot: it has no folders {' and '.join(ALPHABET_FOLDERS)} (unzip images_background.zip and "
        "images_evaluation.zip of github.com/brendenlake/omniglot there) and no omniglot_28.npz."
    )


def _read_npz(path: Path) -> _Drawings:
    with opened_npz(path) as file:
        if not set(KEYS) <= set(file.keys()):
            raise DataError(f"{path} is not Omniglot: it lacks some of the arrays {', '.join(KEYS)}.")
        images, alphabets, names, vinyals, parts = (file[key] for key in KEYS)
    if images.ndim != 4 or images.shape[2:] != (28, 28) or images.dtype != np.uint8:
        raise DataError(
            f"{path}: images should be bytes (characters, drawings, 28, 28), not {images.shape}.", code="wrong-shape"
        )
    count, drawers = images.shape[:2]
    return _Drawings(
        images.reshape(-1, 28, 28),
        np.repeat(np.arange(count), drawers),
        alphabets.tolist(),
        [f"{alphabet}/{name}" for alphabet, name in zip(alphabets.tolist(), names.tolist(), strict=True)],
        parts.tolist(),
        vinyals.tolist(),
    )


def _read_folders(path: Path) -> _Drawings:
    folders = [
        (part, alphabet, character)
        for part in ALPHABET_FOLDERS
        for alphabet in subfolders(path / part)
        for character in subfolders(alphabet)
    ]
    if not folders:
        raise DataError(
            f"{path}: the folders {' and '.join(ALPHABET_FOLDERS)} hold no alphabets with character folders.",
            code="too-few-examples",
        )
    read_ones = [read(folder) for _, _, folder in folders]
    images = [Omniglot.pipeline.stored(one.inputs, place=one.origin).squeeze(1).numpy() for one in read_ones]
    return _Drawings(
        np.concatenate(images),
        np.repeat(np.arange(len(images)), [len(drawings) for drawings in images]),
        [alphabet.name for _, alphabet, _ in folders],
        [f"{alphabet.name}/{folder.name}" for _, alphabet, folder in folders],
        [part for part, _, _ in folders],
        None,
    )
