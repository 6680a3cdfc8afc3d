"""The user's own images as tasks."""

from collections.abc import Sequence
from pathlib import Path

import torch

from handful.cells import class_order, note_case
from handful.errors import DataError
from handful.pipelines.images import ImagePipeline
from handful.readers import images
from handful.readers.paths import subfolders
from handful.tasks.data_options import COLUMNS, Options
from handful.tasks.distribution import SPLITS, Split, TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.own_rows import check_several, completed, everywhere
from handful.tasks.splits import digests, split_names

FOLDERS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""How the folders of a set of images that is split already may be called."""


# Images


def image_tasks(path: Path, options: Options, pipeline: ImagePipeline | None) -> TaskDistribution:
    """Tasks from a folder of images; see `open_tasks`."""
    options.refuse("a folder of images", *COLUMNS)
    given = _split_folders(path)
    parts = {on: images.image_classes(folder, options.limits) for on, folder in (given or {"": path}).items()}
    _check_no_class_twice(path, parts)
    classes = {name: (files, on) for on, part in parts.items() for name, files in part.items()}
    options.limits.check(path, images=sum(len(files) for files, _ in classes.values()))
    names = class_order(classes)
    check_several(names, path)
    note_case(names, path)
    if pipeline is not None and options.splits is None:
        splits = everywhere(len(names))
    elif given:
        splits = _as_given(names, [classes[name][1] for name in names], options, path)
    else:
        splits = split_names(names, options.seed, options.splits)
    train = [file for number in sorted(splits["train"]) for file in classes[names[number]][0]]
    limits = options.limits
    pipeline = pipeline or ImagePipeline.fit(images.ImageFiles(train, limits), options.image_size, limits)
    files = [file for name in names for file in classes[name][0]]
    inputs = pipeline.stored(images.ImageFiles(files, limits), limits)
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(classes[name][0]) for name in names]))
    contents = {name: digests(file.read_bytes() for file in files) for name, (files, _) in classes.items()}
    pool = LabeledPool(inputs, labels, names, splits=splits, seed=options.seed, copy=False)
    return completed(pool, contents, pipeline)


def _split_folders(path: Path) -> dict[str, Path]:
    """The folders of the splits, if that is what the subfolders are: train, test and perhaps val."""
    folders = subfolders(path)
    given: dict[str, Path] = {
        FOLDERS[folder.name.lower()]: folder for folder in folders if folder.name.lower() in FOLDERS
    }
    nested = all(subfolders(folder) for folder in folders)
    whole = len(given) == len(folders) and {"train", "test"} <= set(given)
    return {on: given[on] for on in SPLITS if on in given} if whole and nested else {}


def _check_no_class_twice(path: Path, parts: dict[str, dict[str, list[Path]]]) -> None:
    seen: dict[str, str] = {}
    for on, classes in parts.items():
        for name in classes:
            if name in seen:
                raise DataError(
                    f"{path}: the class {name!r} is in both {seen[name]} and {on}. Tasks are tested on classes never "
                    "trained on: put all images of a class into one of them, or give one folder with all classes."
                )
            seen[name] = on


def _as_given(names: Sequence[str], of_class: Sequence[str], options: Options, path: Path) -> dict[Split, list[int]]:
    """The splits of the folders; without val a fifth of the training classes validates."""
    splits = {on: [number for number, part in enumerate(of_class) if part == on] for on in SPLITS}
    if not splits["val"]:
        if len(splits["train"]) < 2:
            raise DataError(f"{path}: one training class only. Add classes, or a folder val.", code="one-class")
        train = splits["train"]
        parts = split_names([names[number] for number in train], options.seed, options.splits, fractions=(0.8, 0.2))
        splits["train"], splits["val"] = ([train[place] for place in parts[on]] for on in ("train", "val"))
    return splits
