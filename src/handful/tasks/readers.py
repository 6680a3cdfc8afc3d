"""Reading images and arrays: every fault is a `DataError` that names the file and the way out."""

import contextlib
import difflib
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from handful.errors import DataError
from handful.limits import LOCAL, Limits

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""How images may be stored, whatever the file is called: Pillow would also run a program to read PostScript."""

ARRAYS = ("inputs", "labels", "targets", "task", "group")
"""The keys of an npz file."""


def existing(path: str | Path) -> Path:
    """The path; `DataError` with the nearest name beside it if there is nothing there."""
    path = Path(path).expanduser()
    if path.exists():
        return path
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        beside = []
    nearest = difflib.get_close_matches(path.name, beside, n=1)
    hint = f" Did you mean {path.parent / nearest[0]}?" if nearest else " Check the spelling."
    raise DataError(f"{path} does not exist.{hint}")


# Images


def image_files(path: str | Path) -> list[Path]:
    """One image file, or the image files of a folder by name; other files and hidden ones are passed over."""
    path = existing(path)
    if path.is_file():
        return [path]
    files = _images_in(path)
    if not files:
        raise DataError(f"The folder {path} holds no images (looked for {', '.join(sorted(IMAGES))}).")
    return files


def image_classes(folder: str | Path) -> dict[str, list[Path]]:
    """The image files of each class: a folder holds one subfolder per class, named like it."""
    folder = existing(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, but labeled images are a folder with one subfolder per class.")
    classes = {name.name: _images_in(name) for name in subfolders(folder)}
    if not classes:
        loose = len(_images_in(folder))
        found = f"holds {loose} images and no subfolders" if loose else "is empty"
        raise DataError(f"The folder {folder} {found}. Make one subfolder per class and put its images in.")
    for name, files in classes.items():
        if not files:
            raise DataError(f"The class folder {folder / name} holds no images. Add some, or remove the folder.")
    return classes


def subfolders(folder: Path) -> list[Path]:
    """The subfolders by name, without hidden ones."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGES and entry.is_file() and not entry.name.startswith(".")
    )


def read_image(path: Path, size: int, channels: int, limits: Limits = LOCAL) -> np.ndarray:
    """Decode one image to bytes `(channels, size, size)`.

    It keeps its shape: the longer side becomes `size`, the rest is filled with the median color of its border. Reduced
    with antialiasing; transparency is laid on white; a camera's turning flag is obeyed.
    """
    return framed(_decode(path, size, channels, limits), size)


def framed(image: Image.Image, size: int) -> np.ndarray:
    """A gray ("L") or color ("RGB") image in a square: bytes `(channels, size, size)`."""
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    color = tuple(int(value) for value in np.median(border, axis=0))
    square = ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS, color=color if len(color) > 1 else color[0])
    return np.asarray(square).reshape(size, size, -1).transpose(2, 0, 1).copy()


def sampled_images(files: Sequence[Path], count: int = 20, limits: Limits = LOCAL) -> list[np.ndarray]:
    """A few of the files, evenly spaced, as RGB bytes of at most 84 pixels a side `(h, w, 3)`."""
    images = []
    for index in np.unique(np.linspace(0, len(files) - 1, count).astype(int)):
        image = _decode(files[index], 84, 3, limits)
        image.thumbnail((84, 84))
        images.append(np.asarray(image))
    return images


def _decode(path: Path, size: int, channels: int, limits: Limits) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb check warns at three times our limit; ours follows at once.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(path, formats=FORMATS)
        with image:
            limits.check(path, pixels=image.width * image.height)
            image.draft("RGB" if channels == 3 else "L", (2 * size, 2 * size))  # JPEG: decode no more than needed
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about metadata that nobody asked for
                return _colors(ImageOps.exif_transpose(image), "RGB" if channels == 3 else "L", path)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has far more pixels than any image may have. Make it smaller.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        if isinstance(error, PermissionError | IsADirectoryError):
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
        what = "is empty (0 bytes)" if path.stat().st_size == 0 else "is not an image that can be read"
        raise DataError(f"{path} {what}. Images are expected here: remove it, or replace it by a whole one.") from error


def _colors(image: Image.Image, mode: str, source: Path) -> Image.Image:
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"{source} is an image of floats from {values.min():g} to {values.max():g}; they should be from 0 to "
                "1. Scale them, or give arrays (.npz), which take any."
            )
        image = Image.fromarray((255 * values).round().astype(np.uint8))
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip and not scale
        image = Image.fromarray(np.clip(np.asarray(image) / 257, 0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


# Arrays


@contextlib.contextmanager
def opened_npz(path: Path, limits: Limits = LOCAL) -> Iterator[Any]:
    """An npz file's arrays by name; `DataError` if it is none, or damaged, or holds pickles (never opened)."""
    try:
        with path.open("rb") as file:  # our own handle: NumPy leaves its one open on a damaged file
            if file.read(2) != b"PK":
                raise DataError(f"{path} is not an npz file; write it with numpy.savez(path, inputs=..., ...).")
            file.seek(0)
            arrays = np.load(file, allow_pickle=False)
            limits.check(path, bytes=sum(member.file_size for member in arrays.zip.infolist()))
            yield arrays
    except (MemoryError, OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is a damaged npz file; write it again with numpy.savez. ({error})") from error


def read_arrays(path: str | Path, limits: Limits = LOCAL) -> dict[str, np.ndarray]:
    """The arrays of an npz file by the keys `inputs`, `labels`, `targets`, `task`, `group`; never a pickle."""
    path = existing(path)
    with opened_npz(path, limits) as file:
        keys = list(file.keys())
        arrays = {key: _array(path, file, key) for key in ARRAYS if key in keys}
    if "inputs" not in arrays:
        raise DataError(
            f"{path} has no array 'inputs'. It holds: {', '.join(map(repr, keys)) or 'nothing'}. "
            "Needed: inputs, and labels or targets; task and group if you have them."
        )
    rows = len(arrays["inputs"]) if arrays["inputs"].ndim else 0
    limits.check(path, rows=rows)
    if not rows:
        raise DataError(f"{path}: the array 'inputs' is empty.")
    for key, array in arrays.items():
        if array.ndim == 0 or len(array) != rows:
            raise DataError(f"{path}: {key!r} has shape {array.shape}, but 'inputs' has {rows} rows.")
    return arrays


def _array(path: Path, file: Any, key: str) -> np.ndarray:
    try:
        array: np.ndarray = file[key]
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise
        raise DataError(
            f"{path}: the array {key!r} holds Python objects, which are stored as a pickle and never opened, since a "
            f"pickle can run any code. Save it as numbers or texts, such as {key}=numpy.array({key}.tolist())."
        ) from error
    return array
