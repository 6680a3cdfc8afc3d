"""The input pipeline for images."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.pipelines.image_pixels import framed, read_image, sampled_images
from handful.pipelines.pipeline import InputPipeline, RawExamples, joined, shaped
from handful.readers import images


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
    def fit(cls, files: Sequence[Path], size: int | None = None, limits: Limits = LOCAL) -> Self:
        """The pipeline for images like these.

        Gray if a sample of them is (channels within 8 of 255 levels: JPEG is not exact); gray images on light paper
        (median pixel above the middle) are inverted. size, if None: 28 for gray ones; for colored ones their own
        longer side, from 28 to 84.
        """
        sample = sampled_images(files, limits=limits)
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

    def decode(self, files: Sequence[Path], limits: Limits = LOCAL) -> Tensor:
        """Image files as bytes `(n, channels, size, size)`, bright ink where `invert` is set."""
        images = np.empty((len(files), *self.input_shape), np.uint8)
        for index, file in enumerate(files):
            images[index] = read_image(file, self.size, self.channels, limits)
        return torch.from_numpy(255 - images if self.invert else images)

    def examples(self, path: str | Path, limits: Limits = LOCAL) -> RawExamples:
        """Read a folder with one subfolder of images per class."""
        classes = images.image_classes(path)
        files = [file for members in classes.values() for file in members]
        labels = [name for name, members in classes.items() for _ in members]
        self.check_labels(labels, path)
        return RawExamples(
            self.decode(files, limits).float() / 255, labels, [f"{f.parent.name}/{f.name}" for f in files]
        )

    def inputs(self, path: str | Path, limits: Limits = LOCAL) -> tuple[Tensor, list[str]]:
        """Read one image file, or a folder of images."""
        files = images.image_files(path)
        return self.decode(files, limits).float() / 255, [file.name for file in files]

    def of_array(self, array: Any) -> Tensor:
        """Bytes `(n, h, w)`, `(n, h, w, 3)` or of the model's own shape, flattened or not, are images as in a file, and
        are resized and inverted like them; floats `(n, *input_shape)`, flattened or not, are taken as they are."""
        array = np.asarray(array)
        if array.dtype == np.uint8 and (
            array.shape[1:] == self.input_shape or array.shape[1:] == (prod(self.input_shape),)
        ):
            array = np.moveaxis(array.reshape(-1, *self.input_shape), 1, -1)
        wanted = f"images as bytes (n, height, width[, 3]), or floats from 0 to 1 (n, {joined(self.input_shape)})"
        if array.dtype != np.uint8 or array.ndim not in (3, 4):
            return shaped(array, self.input_shape, wanted)
        if array.ndim == 4 and array.shape[-1] not in (1, 3):
            raise DataError(
                f"Expected images as bytes (n, height, width) or (n, height, width, 3), got {array.shape}.",
                code="wrong-shape",
            )
        mode = "L" if self.channels == 1 else "RGB"
        images = [Image.fromarray(image.squeeze(-1) if image.shape[2:] == (1,) else image) for image in array]
        squares = [framed(image.convert(mode), self.size) for image in images]
        pixels = torch.from_numpy(np.stack(squares)) if squares else torch.zeros((0, *self.input_shape))
        return (255 - pixels if self.invert else pixels).float() / 255
