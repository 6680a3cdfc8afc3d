"""Folders of images: which files there are, and of which class."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from handful.cells import class_order, written
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import Place, RawBatch
from handful.readers.paths import existing, note_passed_over, subfolders
from handful.readers.reader import Reader

COMMON = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
IMAGES = frozenset(COMMON | {".avif", ".jp2", ".j2k", ".heic", ".heif"})
"""How files of images end, whether or not this machine has what reads them."""

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""How the folders of a set of images that is split already may be called."""


class ImageFiles(Sequence[bytes]):
    """What image files hold, each read when it is asked for: many photos may not fit into memory."""

    def __init__(self, files: Sequence[Path], limits: Limits = LOCAL) -> None:
        self.files, self.limits = files, limits

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...
    def __getitem__(self, index: int | slice) -> "bytes | ImageFiles":
        """The content of one file; `DataError` if it cannot be read, or is larger than the limits."""
        if isinstance(index, slice):
            return ImageFiles(self.files[index], self.limits)
        try:
            self.limits.check(self.files[index], bytes=self.files[index].stat().st_size)
            return self.files[index].read_bytes()
        except OSError as error:
            raise DataError(f"{self.files[index]} cannot be read ({error.strerror}).") from error


def image_files(path: str | Path, limits: Limits = LOCAL) -> list[Path]:
    """One image file, or the image files of a folder by name; other files and hidden ones are passed over."""
    path = existing(path)
    if path.is_file():
        return [path]
    files = _images_in(path)
    if not files:
        raise DataError(
            f"The folder {path} holds no images (looked for {', '.join(sorted(IMAGES))}).", code="too-few-examples"
        )
    limits.check(path, images=len(files))
    return files


def image_classes(folder: str | Path, limits: Limits = LOCAL) -> dict[str, list[Path]]:
    """The image files of each class: a folder holds one subfolder per class, named like it."""
    folder = existing(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, but labeled images are a folder with one subfolder per class.")
    classes: dict[str, list[Path]] = {}
    for one in subfolders(folder):
        files = _images_in(one)
        if not files:
            raise DataError(
                f"The class folder {one} holds no images. Add some, or remove the folder.", code="too-few-examples"
            )
        classes.setdefault(written(one.name) or one.name, []).extend(files)
        limits.check(folder, images=sum(map(len, classes.values())))
    if not classes:
        loose = len(_images_in(folder))
        found = f"holds {loose} images and no subfolders" if loose else "is empty"
        raise DataError(
            f"The folder {folder} {found}. Make one subfolder per class and put its images in.", code="too-few-examples"
        )
    return classes


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGES and entry.is_file() and not entry.name.startswith(".")
    )


class ImageReader(Reader):
    """One image, or a folder of them; labeled ones are a folder with one subfolder per class."""

    name = "images"
    described = "an image, or a folder of images"
    suffixes = tuple(sorted(IMAGES))

    def matches(self, path: Path) -> bool:
        """Folders, and files that end so or have no ending."""
        return path.is_dir() or super().matches(path) or not path.suffix

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """The files by name; of labeled ones class by class, in the order of classes."""
        if not labeled:
            files = image_files(path, limits)
            if path.is_dir():
                note_passed_over(path, [path], set(files))
            return RawBatch(ImageFiles(files, limits), [file.name for file in files], _named(files))
        parts = _split_folders(path)
        found = [
            (name, file, on)
            for on, folder in (parts or {"": path}).items()
            for name, members in image_classes(folder, limits).items()
            for file in members
        ]
        limits.check(path, images=len(found))
        rank = {name: number for number, name in enumerate(class_order(name for name, _, _ in found))}
        labels, files, splits = map(list, zip(*sorted(found, key=lambda one: rank[one[0]]), strict=True))
        folders = {path, *parts.values(), *(file.parent for file in files)}
        note_passed_over(path, sorted(folders), {*files, *folders})
        return RawBatch(
            ImageFiles(files, limits),
            [file.relative_to(path).as_posix() for file in files],
            _named(files),
            lambda _: str(path),
            labels=labels,
            splits=splits if parts else None,
        )


def _split_folders(path: Path) -> dict[str, Path]:
    """The folders of the splits, if that is what the subfolders are: train, test and perhaps val."""
    folders = subfolders(path) if path.is_dir() else []
    given = {SPLIT_FOLDERS[folder.name.lower()]: folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS}
    nested = all(subfolders(folder) for folder in folders)
    whole = len(given) == len(folders) and {"train", "test"} <= set(given)
    return {on: given[on] for on in ("train", "val", "test") if on in given} if whole and nested else {}


def _named(files: Sequence[Path]) -> Place:
    return lambda place: str(files[place])
