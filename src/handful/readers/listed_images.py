"""Images whose labels are in a file beside them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from handful.cells import written
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.notes import note
from handful.readers.class_folders import PARTS, Labeled, ending
from handful.readers.paths import files_below, subfolders
from handful.readers.tables import beginning, table_files, table_reader, text_of
from handful.table import Table

LABELS = ("label", "labels", "class", "class_name", "category")
"""Names of a column of labels, in lower case, if a table has several candidates."""


class Listing(NamedTuple):
    """A table that lists images.

    paths: its column that names them.
    images: those beside it, by what may name them.
    """

    file: Path
    table: Table
    paths: str
    images: Mapping[str, Path]

    @property
    def others(self) -> list[str]:
        """Its columns except the one that names images."""
        return [name for name in self.table.names if name != self.paths]

    def files(self) -> list[Path]:
        """The image of each row; `DataError` for the first missing one."""
        names = list(map(_path, self.table.cells(self.paths)))
        for row, name in enumerate(names):
            if name not in self.images:
                raise DataError(
                    f"{self.table.place(row)}: the image {name!r} is not beside {self.file}.", code="not-found"
                )
        return [self.images[name] for name in names]


def listed_images(
    source: Path, endings: frozenset[str], options: DataOptions, limits: Limits
) -> tuple[list[Labeled], set[Path]]:
    """The images that a file, or those in a folder and in its folders of parts, give labels of; and these files.

    Such a file is a table with a column of paths and one of labels (`metadata.csv` of Hugging Face, Kaggle's
    `train.csv`) or a column of 0 and 1 for each class (`_classes.csv` of Roboflow), or a .json file of easyfsl with
    `class_names` and `class_roots`. Its part is named by its folder or by itself.
    """
    found: dict[Path, Labeled] = {}
    sources: set[Path] = set()
    folder = source if source.is_dir() else source.parent
    inside = subfolders(folder) if source.is_dir() else []
    lists: dict[Path, dict[Path, str] | Listing] = {}
    for place in [folder, *(one for one in inside if one.name.lower() in PARTS)]:
        images: dict[str, Path] | None = None
        for file in table_files(place) if source.is_dir() else [source]:
            if "submission" in file.name.lower():  # of Kaggle: names of the test images, with a label for all
                continue
            of_roots = _of_class_roots(file, endings, options, limits)
            if of_roots is None:
                images = _by_name(place, endings) if images is None else images
                listing = _listing(file, images, options, limits)
                if listing and listing.others:
                    lists[file] = listing
            else:
                lists[file] = of_roots
    columns = _label_columns([one for one in lists.values() if isinstance(one, Listing)], options)
    for file, one in lists.items():
        if isinstance(one, Listing) and file not in columns:
            continue
        labels = _of_table(one, columns[file]) if isinstance(one, Listing) else one
        if labels:
            sources.add(file)
        on = PARTS.get(file.stem.lower()) or PARTS.get(file.parent.name.lower())
        for image, label in labels.items():
            if found.setdefault(image, Labeled(label, image, on)).label != label:
                raise DataError(f"{file}: {image} has two labels, {found[image].label!r} and {label!r}. Give it one.")
    if sources and source.is_dir():
        first = min(sources).relative_to(folder)
        note("listed", f"{folder}: the labels are those of files such as {first}.", count=len(sources))
    return list(found.values()), sources


def listed_files(file: Path, endings: frozenset[str], options: DataOptions, limits: Limits) -> list[Path]:
    """The images that a file lists, each once, with labels or without; see `listed_images`."""
    labels = _of_class_roots(file, endings, options, limits)
    if labels is not None:
        return list(labels)
    listing = _listing(file, _by_name(file.parent, endings), options, limits)
    if listing is None:
        raise DataError(f"{file} has no column that names images beside it.", code="wrong-shape")
    return list(dict.fromkeys(listing.files()))


def _by_name(folder: Path, endings: frozenset[str]) -> dict[str, Path]:
    """The images below a folder by what may name them: their path, or their name with or without its ending."""
    images = ending(files_below(folder), endings)
    names: dict[str, list[Path]] = {}
    for image in images:
        for name in {image.name, image.stem, image.relative_to(folder).with_suffix("").as_posix()}:
            names.setdefault(name, []).append(image)
    alone = {name: own[0] for name, own in names.items() if len(own) == 1}
    return alone | {image.relative_to(folder).as_posix(): image for image in images}


def _label_columns(listings: Sequence[Listing], options: DataOptions) -> dict[Path, str | None]:
    """The column of labels of each table by its file; None for a column of 0 and 1 for each class.

    If one has a usual name of labels, tables without one, such as Kaggle's `test.csv`, are ignored.
    """
    named: dict[Path, str | None] = {}
    for one in listings:
        if options.label:
            known = [options.label] if options.label in one.table.names else []
        else:
            known = [name for name in one.others if name.strip().lower() in LABELS]
        if len(known) == 1:
            named[one.file] = known[0]
    if named:
        if without := [one.file for one in listings if one.file not in named]:
            note("tables-without-labels", f"{without[0]} has no column of labels and is ignored.", count=len(without))
        return named
    if listings and options.label:
        listings[0].table.require([options.label], ", the label")
    alone = {one.file: one.others[0] if len(one.others) == 1 else None for one in listings}
    if len(candidates := sorted(set(filter(None, alone.values())))) > 1:
        raise DataError(
            f"{listings[0].file.parent} has {len(listings)} tables that name images, but the column of labels is "
            f"ambiguous: {' or '.join(map(repr, candidates))}.",
            code="missing-label",
            hint="Name it with {label}.",
        )
    return alone


def _of_table(listing: Listing, label: str | None) -> dict[Path, str]:
    """The label of each image that a table lists."""
    table = listing.table
    labels = table.texts(label) if label else _of_one_column_each(table, listing.others)
    found: dict[Path, str] = {}
    for row, (image, cell) in enumerate(zip(listing.files(), labels, strict=True)):
        if cell is not None and found.setdefault(image, cell) != cell:
            name = image.relative_to(listing.file.parent).as_posix()
            raise DataError(f"{table.place(row)}: {name!r} has another label above, but images have only one label.")
    unlabeled = labels.count(None)
    if unlabeled:
        note("unlabeled", f"{listing.file}: rows without a label are left out.", count=unlabeled)
    return found


def _listing(file: Path, images: Mapping[str, Path], options: DataOptions, limits: Limits) -> Listing | None:
    """A table by the column that names most images; None if it names none, or is not a table."""
    reader = table_reader(file)
    if not images or reader is None:
        return None
    try:
        table = reader.table(file, options, limits)
    except DataError:  # annotations of another kind, which are passed over
        return None
    named = {name: sum(_path(cell) in images for cell in table.cells(name)) for name in table.names}
    paths = max(named, key=named.__getitem__, default="")
    return Listing(file, table, paths, images) if named.get(paths) else None


def _path(cell: Any) -> str:
    return str(written(cell) or "").replace("\\", "/").removeprefix("./")


def _of_one_column_each(table: Table, names: list[str]) -> list[str | None]:
    """The labels of rows that have 1 in the column of their class and 0 in the others; None if all are 0."""
    columns = [list(map(str, table.names_in(name))) for name in names]
    if not all(cell in ("0", "1") for column in columns for cell in column):
        raise DataError(
            f"{table.name} names images, but its column of labels is not named. Its columns: "
            f"{', '.join(map(repr, table.names))}.",
            code="missing-label",
            hint="Name it with {label}.",
        )
    labels: list[str | None] = []
    for row, cells in enumerate(zip(*columns, strict=True)):
        of_row = [name.strip() for name, cell in zip(names, cells, strict=True) if cell == "1"]
        if len(of_row) > 1:
            raise DataError(
                f"{table.place(row)} has the labels {' and '.join(map(repr, of_row[:3]))}, but each image has one "
                f"label. Keep one, or remove the row."
            )
        labels.append(of_row[0] if of_row else None)
    return labels


def _of_class_roots(
    file: Path, endings: frozenset[str], options: DataOptions, limits: Limits
) -> dict[Path, str] | None:
    """The images in the folders that easyfsl's .json file lists with the names of their classes."""
    if file.suffix.lower() != ".json" or '"class_roots"' not in beginning(file):
        return None
    text = text_of(file, options, limits)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # the reader of tables says what is wrong
        return None
    if not isinstance(content, dict) or not {"class_names", "class_roots"} <= set(content):
        return None
    names, roots = content["class_names"], content["class_roots"]
    if not (isinstance(names, list) and isinstance(roots, list) and len(names) == len(roots)):
        raise DataError(f"{file}: class_names and class_roots should be lists of the same length.")
    found: dict[Path, str] = {}
    for name, root in zip(names, roots, strict=True):
        images = ending(files_below(file.parent / str(root)), endings) if (file.parent / str(root)).is_dir() else []
        if not images:
            raise DataError(f"{file}: the folder {root!r} of the class {name!r} is missing or contains no images.")
        found |= dict.fromkeys(images, written(name) or str(name))
    return found
