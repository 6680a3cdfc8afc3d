"""Folders of images: the files and their classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from handful.cells import class_order
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import Place, RawBatch
from handful.readers.class_folders import ending, labeled_files
from handful.readers.listed_images import listed_images
from handful.readers.paths import existing, files_below, names_within, note_passed_over
from handful.readers.reader import Reader

COMMON = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
IMAGES = frozenset(COMMON | {".avif", ".jp2", ".j2k", ".heic", ".heif"})
"""How files of images end, whether or not this machine has what reads them."""


class ImageFiles(Sequence[bytes]):
    """The content of image files, each read on access: many photos may not fit into memory."""

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
    """One image file, or all image files below a folder by name; other files and hidden ones are passed over."""
    path = existing(path)
    if path.is_file():
        return [path]
    files = ending(files_below(path), IMAGES)
    if not files:
        raise DataError(
            f"The folder {path} contains no images (looked for {', '.join(sorted(IMAGES))}).", code="too-few-examples"
        )
    limits.check(path, images=len(files))
    return files


class ImageReader(Reader):
    """One image, or a folder of them; labeled ones are as `listed_images` or `labeled_files` has them."""

    name = "images"
    described = "an image, or a folder of images"
    suffixes = tuple(sorted(IMAGES))

    def matches(self, path: Path) -> bool:
        """Folders, and files that end so or have no ending."""
        return path.is_dir() or super().matches(path) or not path.suffix

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """The files by name; of labeled ones class by class, in the order of classes."""
        folder = path if path.is_dir() else path.parent
        if not labeled:
            files = self.files(path, options, limits)
            if folder == path:
                note_passed_over(path, set(files))
            return RawBatch(ImageFiles(files, limits), names_within(folder, files), _named(files))
        found, sources = listed_images(path, IMAGES, options, limits)
        if not found:
            options.refuse("class folders of images, whose names are the labels", "label")
            found = labeled_files(path, IMAGES, "images", limits)
        limits.check(path, images=len(found))
        rank = {name: number for number, name in enumerate(class_order(name for name, _, _ in found))}
        labels, files, splits = map(list, zip(*sorted(found, key=lambda one: rank[one.label]), strict=True))
        if folder == path:
            note_passed_over(path, {*files, *sources})
        return RawBatch(
            ImageFiles(files, limits),
            names_within(folder, files),
            _named(files),
            lambda _: str(path),
            labels=labels,
            splits=splits if len(set(splits)) > 1 else None,
        )

    def files(self, path: Path, options: DataOptions, limits: Limits) -> list[Path]:
        """The images that are inputs."""
        return image_files(path, limits)


def _named(files: Sequence[Path]) -> Place:
    return lambda place: str(files[place])
