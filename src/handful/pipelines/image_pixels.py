"""Pixels: from an image file to bytes in a square."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from handful.errors import DataError
from handful.limits import LOCAL, Limits

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""How images may be stored, whatever the file is called: Pillow would also run a program to read PostScript."""


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
        raise DataError(
            f"{path} has far more pixels than any image may have. Make it smaller.", code="payload-too-large"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        if isinstance(error, PermissionError | IsADirectoryError):
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
        what = "is empty (0 bytes)" if path.stat().st_size == 0 else "is not an image that can be read"
        raise DataError(
            f"{path} {what}. Images are expected here: remove it, or replace it by a whole one.",
            code="unsupported-media",
        ) from error


def _colors(image: Image.Image, mode: str, source: Path) -> Image.Image:
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"{source} is an image of floats from {values.min():g} to {values.max():g}; they should be from 0 to "
                "1. Scale them, or give arrays (.npz), which take any.",
                code="unsupported-media",
            )
        image = Image.fromarray((255 * values).round().astype(np.uint8))
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip and not scale
        image = Image.fromarray(np.clip(np.asarray(image) / 257, 0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
