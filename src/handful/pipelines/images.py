"""The input pipeline for images."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handful.errors import DataError, within
from handful.limits import LOCAL, Limits
from handful.notes import note
from handful.pipelines.image_decoding import decoded, is_deep
from handful.pipelines.image_pixels import Levels, bytes_of, deep_values, levels_of, shown, values_of
from handful.pipelines.pipeline import InputPipeline, joined, shaped
from handful.raw_batch import INPUT, Place

SAMPLED = 20
"""The number of evenly spaced images that are sampled to describe all."""


class ImageInputs(InputPipeline):
    """A pipeline that takes images.

    levels: the values of black and white in training images of more than 8 bits.
    """

    kind = "images"
    levels: Levels | None = None

    def _each(self, array: np.ndarray) -> np.ndarray:
        """Images `(n, h, w)` or `(n, h, w, c)` of whole numbers, in any memory layout."""
        if len(self.input_shape) == 3 and array.shape[1:] in (self.input_shape, (prod(self.input_shape),)):
            array = np.moveaxis(array.reshape(-1, *self.input_shape), 1, -1)
        if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (1, 3)):
            raise DataError(
                f"Expected images as bytes (n, height, width) or (n, height, width, 3), got {array.shape}.",
                code="wrong-shape",
            )
        if array.ndim == 3 and array.shape[-1] == 3:  # gray images of 3 columns, if it is not one in color
            raise DataError(
                f"Expected images as bytes (n, height, width) or (n, height, width, 3), got one of {array.shape}. Give "
                "a list of images.",
                code="wrong-shape",
            )
        if array.dtype in (np.uint8, np.uint16):
            return array
        if array.size and not (array.min() >= 0 and array.max() <= 255) and self.levels is None:
            raise DataError(
                f"The images have integer values from {array.min():,} to {array.max():,}, but the model was trained on "
                "images of 8 bits: 0 to 255. Scale them.",
                code="wrong-shape",
            )
        return array.astype(np.uint8 if self.levels is None else np.float32)


class ImagePipeline(ImageInputs):
    """Images as floats, black 0 and white 1, `(channels, size, size)`, channels 1 (gray) or 3 (red, green, blue).

    An image keeps its aspect ratio: its longer side becomes `size`, the rest is filled with the median color of its
    border.

    size, channels: see above.
    invert: convert dark ink on light paper to bright ink on 0.
    levels: the values of black and white in training images of more than 8 bits.
    """

    kind = "images"

    def __init__(
        self, *, size: int = 28, channels: int = 1, invert: bool = False, levels: Sequence[float] | None = None
    ) -> None:
        if size < 1 or channels not in (1, 3):
            raise DataError(f"Images are of 1 pixel or more with 1 or 3 channels, not {size} and {channels}.")
        self.size, self.channels, self.invert = size, channels, invert
        self.levels = None if levels is None else Levels(*levels)
        self.input_shape = (channels, size, size)

    @classmethod
    def fit(
        cls,
        values: Any,
        rows: np.ndarray,
        *,
        size: int | None = None,
        limits: Limits = LOCAL,
        place: Place = INPUT,
    ) -> Self:
        """Fit to the training rows (indices) of images: see `stored`, but for arrays of floats.

        Gray if a sample of them is (channels within 8 of 255 levels: JPEG is not exact); gray images on light paper
        (median pixel above the middle) are inverted. Levels: see `sampled`.

        size: if None, 28 for gray ones; for colored ones their own longer side, from 28 to 84.
        """
        sample, levels = sampled(values, rows, limits, place)
        looks = [shown(one, levels, place(index)) for index, one in sample.items()]
        gray = all(int(np.ptp(look.astype(int), axis=-1).max()) <= 8 for look in looks)
        longer = int(np.median([max(look.shape) for look in looks]))
        return cls(
            size=size if size is not None else 28 if gray else min(84, max(28, longer)),
            channels=1 if gray else 3,
            invert=gray and float(np.median([np.median(look) for look in looks])) > 127,
            levels=levels,
        )

    def settings(self) -> dict[str, Any]:
        """Size, channels, inversion, and levels of more than 8 bits."""
        levels = {} if self.levels is None else {"levels": list(self.levels)}
        return {"size": self.size, "channels": self.channels, "invert": self.invert} | levels

    def described(self) -> str:
        """Color, size, number of bits if not 8, and whether light and dark are inverted."""
        color = "gray" if self.channels == 1 else "color"
        levels = "" if self.levels is None else f", {self.levels}"
        return f"{color} images of {self.size} x {self.size} pixels{levels}{', inverted' if self.invert else ''}"

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Images `(n, channels, size, size)`: as bytes, or as floats in their unit if they have more than 8 bits.

        values: the content of image files, images of Pillow, or an array of whole numbers `(h, w)`, `(h, w, 1)` or
            `(h, w, 3)`; in one array also of the model's own shape, flattened or not. Floats from 0 to 1
            `(n, *input_shape)`, flattened or without a channel of gray, are on the learner's scale.
        """
        array = as_array(values)
        if array is not None:
            if array.dtype.kind not in "iu":
                return self._unprepared(array, place)
            values = self._each(array)
        pixels = np.empty((len(values), *self.input_shape), np.uint8 if self.levels is None else np.float32)
        for index in range(len(values)):
            with within("inputs", index):
                image = decoded(values[index], place(index), limits)
                if self.levels is None:
                    pixels[index] = bytes_of(image, self.size, self.channels, place(index))
                else:
                    pixels[index] = values_of(image, self.size, self.channels, self.levels, place(index))
        black, white = self.levels or (0, 255)
        return torch.from_numpy((black + white - pixels).astype(pixels.dtype) if self.invert else pixels)

    def prepare(self, stored: Tensor) -> Tensor:
        """Bytes become 0 to 1, and values in the unit of the levels 0 at black and 1 at white."""
        if self.levels is None:
            return super().prepare(stored)
        return ((stored.double() - self.levels.black) / (self.levels.white - self.levels.black)).float()

    def _unprepared(self, array: np.ndarray, place: Place) -> Tensor:
        """Floats on the learner's scale, converted so that `prepare` restores them."""
        gray = array.shape[1:] == self.input_shape[1:] and self.channels == 1
        wanted = f"images as bytes (n, height, width[, 3]), or floats from 0 to 1 (n, {joined(self.input_shape)})"
        floats = shaped(array[:, None] if gray else array, self.input_shape, wanted, place)
        if self.levels is None:
            return floats
        return floats.double() * (self.levels.white - self.levels.black) + self.levels.black


def sampled(
    values: Any, rows: np.ndarray, limits: Limits, place: Place
) -> tuple[dict[int, Image.Image], Levels | None]:
    """Some of the images at these rows, by row, and the levels of all.

    If one of the sample has more than 8 bits, black and white are those of all at the rows that have: see `levels_of`.
    """

    def image(index: int) -> Image.Image:
        return decoded(values[index], place(index), limits)

    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLED).astype(int))].tolist()
    sample = {index: image(index) for index in chosen}
    levels = None
    if any(map(is_deep, sample.values())):
        deep = ((one, index) for index in rows.tolist() if is_deep(one := image(index)))
        levels = levels_of(deep_values(one, place(index)) for one, index in deep)
        note(
            "levels",
            f"The images have more than 8 bits. The training images have {levels}: the minimum is black and the "
            f"maximum is white.",
        )
    return sample, levels


def as_array(values: Any) -> np.ndarray | None:
    """The values as one array if they are numbers; None if each is a separate image."""
    if hasattr(values, "__array__"):
        return np.asarray(values)
    first = values[0] if isinstance(values, list | tuple) and values else None
    if isinstance(first, list | tuple) or (hasattr(first, "dtype") and np.asarray(first).dtype.kind != "u"):
        try:
            return np.asarray(values)
        except ValueError as error:
            raise DataError(
                f"The images have different shapes ({error}). Give all the same shape.", code="wrong-shape"
            ) from error
    return None
