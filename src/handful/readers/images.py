"""Folders of images: which files there are, and of which class."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from handful.cells import written
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import RawBatch
from handful.readers.paths import existing, subfolders
from handful.readers.reader import Reader

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


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

    def origin(self, index: int) -> str:
        """What messages call it."""
        return str(self.files[index])


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
        """The files, by name."""
        if not labeled:
            files = image_files(path, limits)
            return RawBatch(ImageFiles(files, limits), [file.name for file in files])
        classes = image_classes(path, limits)
        files = [file for members in classes.values() for file in members]
        labels = [name for name, members in classes.items() for _ in members]
        ids = [f"{file.parent.name}/{file.name}" for file in files]
        return RawBatch(ImageFiles(files, limits), ids, labels, str(path))
