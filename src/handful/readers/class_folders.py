"""Folders of labeled files: the class and split of each file."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from handful.cells import written
from handful.errors import DataError, count_of
from handful.limits import Limits
from handful.notes import note
from handful.readers.paths import existing, files_below, hidden, subfolders

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of the folders of split data, in lower case."""


class Labeled(NamedTuple):
    """A file with its class, and its split if the data are already split."""

    label: str
    file: Path
    on: str | None


def labeled_files(folder: Path, endings: Collection[str], noun: str, limits: Limits) -> list[Labeled]:
    """The files with these endings, each labeled with the name of its folder.

    A folder holds one subfolder per class, or train, test or val with such subfolders. Files deeper in a class folder
    belong to its class, with a note. A folder that contains only another folder is replaced by it.

    noun: the name of the files in messages, "images".

    Raises `DataError` without class folders, or if one of them has no such file.
    """
    folder = existing(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} has no labels. Put labeled {noun} into one subfolder per class.")
    top = _entered(folder, endings)
    found, deeper = [], []
    for on, part in _parts(top, noun) or [(None, top)]:
        for one in subfolders(part):
            files = ending(files_below(one), endings)
            if not files:
                raise DataError(
                    f"The class folder {one} contains no {noun}. Add some, or remove the folder.",
                    code="too-few-examples",
                )
            found += [Labeled(written(one.name) or one.name, file, on) for file in files]
            deeper += [(file, one.name) for file in files if file.parent != one]
    if not found:
        loose, packed = len(ending(top.iterdir(), endings)), ending(top.iterdir(), {".zip"})
        if packed:
            raise DataError(
                f"{top} contains archives, such as {packed[0].name}. Unpack each into a folder named after its class, "
                f"and remove the archive.",
                code="unsupported-media",
            )
        held = f"holds {count_of(loose, noun[:-1]) if loose else f'no {noun}'} and no subfolders"
        raise DataError(
            f"The folder {top} {held}. Make one subfolder per class and put its {noun} in.", code="too-few-examples"
        )
    limits.check(folder, images=len(found))
    if top != folder:
        note("one-folder", f"{folder} contains only one folder: the classes are the folders of {top}.")
    if deeper:
        file, label = deeper[0]
        note(
            "nested",
            f"{folder}: {noun} in subfolders of a class folder belong to its class, such as {file.relative_to(folder)} "
            f"of "
            f"the class {label!r}. If the inner folders are the classes, move them out of the outer ones.",
            count=len(deeper),
        )
    return found


def ending(entries: Iterable[Path], endings: Collection[str]) -> list[Path]:
    """The files with these endings, sorted by name, without hidden ones."""
    return sorted(
        entry for entry in entries if entry.suffix.lower() in endings and entry.is_file() and not hidden(entry)
    )


def _entered(folder: Path, endings: Collection[str]) -> Path:
    """The folder that holds the class folders or parts: this one, or the only one in it that holds folders itself."""
    inside = subfolders(folder)
    if len(inside) == 1 and subfolders(inside[0]) and not ending([*folder.iterdir(), *inside[0].iterdir()], endings):
        return _entered(inside[0], endings)
    return folder


def _parts(folder: Path, noun: str) -> list[tuple[str | None, Path]]:
    """The folders of the splits, if two or more subfolders are so called; those without class folders do not count."""
    named = [(PARTS[one.name.lower()], one) for one in subfolders(folder) if one.name.lower() in PARTS]
    if len(named) < 2:
        return []
    parts: list[tuple[str | None, Path]] = [(on, one) for on, one in named if subfolders(one)]
    if not parts:
        raise DataError(
            f"The folders {' and '.join(one.name for _, one in named)} of {folder} contain no class folders. Make one "
            f"subfolder per class in each of them and put its {noun} in.",
            code="missing-label",
        )
    return parts
