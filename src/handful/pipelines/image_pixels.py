"""Pixels: from an image to bytes in a square."""

import io
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from handful.errors import DataError
from handful.limits import LOCAL, Limits

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""How images may be stored, whatever the file is called: Pillow would also run a program to read PostScript."""


_check: ContextVar[Callable[[tuple[int, int]], None] | None] = ContextVar("pixels", default=None)
"""What decides about the size of an image while it is decoded here."""
_check_of_pillow: Callable[..., None] = Image._decompression_bomb_check


def _check_pixels(size: tuple[int, int], **options: Any) -> None:
    """What Pillow asks before it allocates an image: its own bound is one of the whole process, and not ours to set."""
    check = _check.get()
    if check is None:
        _check_of_pillow(size, **options)
    else:
        check(size)


Image._decompression_bomb_check = _check_pixels


def pixels_of(value: Any, size: int, channels: int, source: str, limits: Limits = LOCAL) -> np.ndarray:
    """One image as bytes `(channels, size, size)`.

    It keeps its shape: the longer side becomes `size`, the rest is filled with the median color of its border. Reduced
    with antialiasing; transparency is laid on white; a camera's turning flag is obeyed.

    value: what its file holds, an image of Pillow, or an array `(h, w)`, `(h, w, 1)` or `(h, w, 3)` as Pillow takes it.
    source: what messages call it.
    """
    return framed(decoded(value, "RGB" if channels == 3 else "L", source, limits), size)


def framed(image: Image.Image, size: int) -> np.ndarray:
    """A gray ("L") or color ("RGB") image in a square: bytes `(channels, size, size)`."""
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    color = tuple(int(value) for value in np.median(border, axis=0))
    square = ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS, color=color if len(color) > 1 else color[0])
    return np.asarray(square).reshape(size, size, -1).transpose(2, 0, 1).copy()


def decoded(value: Any, mode: str, source: str, limits: Limits = LOCAL) -> Image.Image:
    """One image in color ("RGB") or gray ("L"), turned as its camera was held; see `pixels_of`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about metadata
            token = _check.set(lambda size: limits.check(source, pixels=size[0] * size[1]))
            try:
                image = _opened(value)
                _check_pixels(image.size)
                return _colors(ImageOps.exif_transpose(image), mode, source)
            finally:
                _check.reset(token)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        what = "is empty (0 bytes)" if value == b"" else "is not an image that can be read"
        raise DataError(
            f"{source} {what}. Images are expected here: remove it, or replace it by a whole one.",
            code="unsupported-media",
        ) from error


def _opened(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return Image.open(io.BytesIO(value), formats=FORMATS)
    array = np.asarray(value)
    return Image.fromarray(array.squeeze(-1) if array.shape[2:] == (1,) else array)


def _colors(image: Image.Image, mode: str, source: str) -> Image.Image:
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
