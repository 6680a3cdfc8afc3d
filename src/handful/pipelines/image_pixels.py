"""Pixels: decoded images as square arrays of numbers."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from handful.cells import too_large
from handful.errors import DataError
from handful.notes import note
from handful.pipelines.image_decoding import is_deep

HIGH = 65_535
"""White of 16 bits."""


class Levels(NamedTuple):
    """The values of black and white, in images of more than 8 bits."""

    black: float
    white: float

    def __str__(self) -> str:
        """The levels in words, with the number of bits if the range is complete."""
        bits = int(self.white + 1).bit_length() - 1
        known = self.black == 0 and self.white == 2**bits - 1 and bits >= 8
        return f"{f'{bits} bits' if known else 'values'} from {_number(self.black)} to {_number(self.white)}"


def levels_of(arrays: Iterable[np.ndarray]) -> Levels:
    """The levels of images: all of the bits that their whole numbers take, 0 to 1, or their least and largest value."""
    least, largest, whole = np.inf, -np.inf, True
    for values in arrays:
        least, largest = min(least, float(values.min())), max(largest, float(values.max()))
        whole = whole and values.dtype.kind in "iu"
    if whole and least >= 0:  # cameras have 8, 10, 12, 14 or 16 bits
        bits = max(8, int(largest).bit_length())
        return Levels(0, 2 ** (bits + bits % 2) - 1)
    if least >= 0 and largest <= 1:
        return Levels(0, 1)
    return Levels(least, largest if largest > least else least + 1)


def deep_values(image: Image.Image, source: str) -> np.ndarray:
    """The values of an image of more than 8 bits `(h, w)`; `DataError` if one is not finite."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        wrong = np.argwhere(too_large(values) | np.isnan(values))
        if len(wrong):
            row, column = wrong[0].tolist()
            raise DataError(
                f"{source}: the pixel in row {row}, column {column} is {values[row, column]:g}, which marks a missing "
                f"value (and {len(wrong) - 1} more). Fill them with real values.",
                code="non-finite",
            )
    return values


def shown(image: Image.Image, levels: Levels | None, source: str) -> np.ndarray:
    """A preview of an image: bytes `(h, w, 3)`, 84 pixels a side at the most."""
    image = in_color(image, levels, source)
    image.thumbnail((84, 84))
    return np.asarray(image)


def in_color(image: Image.Image, levels: Levels | None, source: str) -> Image.Image:
    """An image in RGB of 8 bits; one of more by its levels, and without these as `bytes_of` scales it."""
    if is_deep(image):
        values = deep_values(image, source)
        if levels is None:
            image = _of_8_bits(values, source)
        else:
            share = (values - levels.black) / (levels.white - levels.black)
            image = Image.fromarray((255 * share.clip(0, 1)).round().astype(np.uint8))
    return image.convert("RGB")


def bytes_of(image: Image.Image, size: int, channels: int, source: str) -> np.ndarray:
    """An image in a square, as bytes `(channels, size, size)`.

    It keeps its shape: the longer side becomes `size`, the rest is filled with the median color of its border. Reduced
    with antialiasing. One of 16 bits, or of floats from 0 to 1, is scaled; another is a `DataError`.
    """
    if is_deep(image):
        image = _of_8_bits(deep_values(image, source), source)
    image = image.convert("RGB" if channels == 3 else "L")
    return _framed(image, size).reshape(size, size, -1).transpose(2, 0, 1).copy()


def values_of(image: Image.Image, size: int, channels: int, levels: Levels, source: str) -> np.ndarray:
    """An image in a square as `bytes_of`, but as floats `(channels, size, size)` in the unit of `levels`.

    Black and white of 8 bits become those of the levels. Values are clipped at one range beyond the levels.
    """
    width = levels.white - levels.black
    if is_deep(image):
        values = deep_values(image, source).astype(np.float32)
        bound = values.clip(levels.black - width, levels.white + width)
        if not np.array_equal(bound, values):
            note(
                "beyond-levels",
                f"Images have pixels far outside the range of the training images ({levels}), which are clipped.",
            )
        planes = [bound] * channels
    else:
        note(
            "other-depth",
            f"Images of 8 bits are read with black and white mapped to those of the training images ({levels}).",
        )
        pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
        planes = list(
            (pixels / 255 * width + levels.black).astype(np.float32).reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
        )
    # Reduced images overshoot at edges; those of 8 bits stop at black and white, too.
    black, white = min(levels.black, *(plane.min() for plane in planes)), max(levels.white, *(p.max() for p in planes))
    return np.stack([_framed(Image.fromarray(plane), size).clip(black, white) for plane in planes])


def _of_8_bits(values: np.ndarray, source: str) -> Image.Image:
    """Values `(h, w)` of more than 8 bits as an image of 8, by their full range."""
    if values.dtype.kind == "u":
        note("other-depth", f"Images of 16 bits are read with white as {HIGH:,}: the training images have 8 bits.")
        return Image.fromarray((values / 257).round().astype(np.uint8))
    if values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:
        return Image.fromarray((255 * values).round().astype(np.uint8))
    raise DataError(
        f"{source} has values from {_number(values.min())} to {_number(values.max())} in 32 bits, without a defined "
        f"white; the model was trained on images of 8 bits. Save the image with 8 bits, or train on images like it.",
        code="unsupported-media",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.7g}"


def _framed(image: Image.Image, size: int) -> np.ndarray:
    """An image ("L", "RGB" or "F") in a square `(size, size)` or `(size, size, 3)`."""
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    color = np.median(border, axis=0)
    fill: Any = float(color[0]) if image.mode == "F" else tuple(map(int, color))
    return np.asarray(ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS, color=fill))
