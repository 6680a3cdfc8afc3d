"""The input pipeline for images."""

from math import prod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.pipelines.image_pixels import decoded, pixels_of
from handful.pipelines.pipeline import InputPipeline, joined, shaped
from handful.raw_batch import INPUT, Place

SAMPLED = 20
"""How many images, evenly spaced, tell what all are like."""


class ImagePipeline(InputPipeline):
    """Images as floats from 0 to 1, `(channels, size, size)`, channels 1 (gray) or 3 (red, green, blue).

    An image keeps its shape: its longer side becomes `size`, the rest is filled with the median color of its border.
    invert: turn dark ink on light paper into bright ink on 0.
    """

    kind = "images"

    def __init__(self, *, size: int = 28, channels: int = 1, invert: bool = False) -> None:
        if size < 1 or channels not in (1, 3):
            raise DataError(f"Images are of 1 pixel or more with 1 or 3 channels, not {size} and {channels}.")
        self.size, self.channels, self.invert = size, channels, invert
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
        (median pixel above the middle) are inverted. size, if None: 28 for gray ones; for colored ones their own
        longer side, from 28 to 84.
        """
        sample = []
        for index in rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLED).astype(int))].tolist():
            image = decoded(values[index], "RGB", place(index), limits)
            image.thumbnail((84, 84))
            sample.append(np.asarray(image))
        gray = all(int(np.ptp(image.astype(int), axis=-1).max()) <= 8 for image in sample)
        longer = int(np.median([max(image.shape) for image in sample]))
        invert = gray and float(np.median([np.median(image) for image in sample])) > 127
        return cls(size=size or (28 if gray else min(84, max(28, longer))), channels=1 if gray else 3, invert=invert)

    def settings(self) -> dict[str, Any]:
        """Size, channels and inversion."""
        return {"size": self.size, "channels": self.channels, "invert": self.invert}

    def described(self) -> str:
        """Color and size, and whether light and dark are exchanged."""
        color = "gray" if self.channels == 1 else "color"
        return f"{color} images of {self.size} x {self.size} pixels{', inverted' if self.invert else ''}"

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Images as bytes `(n, channels, size, size)`, or floats as they are given.

        values: each what its file holds, an image of Pillow, or an array of whole numbers `(h, w)`, `(h, w, 1)` or
        `(h, w, 3)`; in one array also of the model's own shape, flattened or not. Floats from 0 to 1
        `(n, *input_shape)`, flattened or without a channel of gray, are as learners see them.
        """
        array = _as_array(values)
        if array is not None:
            if array.dtype.kind != "u":
                gray = array.shape[1:] == self.input_shape[1:] and self.channels == 1
                wanted = (
                    f"images as bytes (n, height, width[, 3]), or floats from 0 to 1 (n, {joined(self.input_shape)})"
                )
                return shaped(array[:, None] if gray else array, self.input_shape, wanted, place)
            values = self._each(array)
        pixels = np.empty((len(values), *self.input_shape), np.uint8)
        for index in range(len(values)):
            pixels[index] = pixels_of(values[index], self.size, self.channels, place(index), limits)
        return torch.from_numpy(255 - pixels if self.invert else pixels)

    def _each(self, array: np.ndarray) -> np.ndarray:
        """Images `(n, h, w)` or `(n, h, w, c)`, whichever way their array is laid out."""
        if array.shape[1:] in (self.input_shape, (prod(self.input_shape),)):
            array = np.moveaxis(array.reshape(-1, *self.input_shape), 1, -1)
        if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (1, 3)):
            raise DataError(
                f"Expected images as bytes (n, height, width) or (n, height, width, 3), got {array.shape}.",
                code="wrong-shape",
            )
        return array


def _as_array(values: Any) -> np.ndarray | None:
    """The values as one array, where they are numbers; None where each is an image of its own."""
    if hasattr(values, "__array__"):
        return np.asarray(values)
    first = values[0] if isinstance(values, list | tuple) and values else None
    if isinstance(first, list | tuple) or (hasattr(first, "dtype") and np.asarray(first).dtype.kind != "u"):
        return np.asarray(values)
    return None
