"""Input pipelines: from the user's files and rows to the one tensor per example that learners see.

A pipeline is fitted on the training split alone and saved with the meta-model, so that a file that comes a year later
is treated like those that were trained on.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handful.cells import class_order
from handful.errors import ArtifactError, DataError, UserError
from handful.limits import LOCAL, Limits
from handful.pipelines.image_pixels import framed, read_image, sampled_images
from handful.readers import images
from handful.registry import Registry

PIPELINES: Registry[Any] = Registry("input pipeline", "handful.tasks")


class RawExamples(NamedTuple):
    """Labeled examples of a file. inputs: `(n, *input_shape)`. answers: n label names, or targets in the
    user's units `(n, outputs)`. ids: file names, or row numbers from 1. groups: of each, where the file has some."""

    inputs: Tensor
    answers: list[str] | Tensor
    ids: list[str]
    groups: list[str] | None = None


class InputPipeline(ABC):
    """Turns raw files or rows into `(n, *input_shape)` floats. A subclass with a `kind` is registered under it.

    Attributes:
        kind: its name on disk.
        input_shape: shape of one example.
        group: what tells the group of an example, where the tasks were made with groups, else None.
        labels: names of the classes where they mean the same in every task, in the order of class numbers, else None.
        targets: names of the predicted values (regression), else empty.
        target_mean, target_scale: a scaled target is (value - target_mean) / target_scale; one pair for all outputs,
            so that a squared error has one unit.
        backbone: the network that suits these inputs where none is named; "auto" goes by their shape.
        of_one_task: whether it belongs to one adapted task, and is saved with it.
    """

    kind: ClassVar[str]
    backbone: ClassVar[str] = "auto"
    of_one_task: ClassVar[bool] = False
    input_shape: tuple[int, ...]
    group: str | None = None
    labels: list[str] | None = None
    targets: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" in vars(cls) and not inspect.isabstract(cls):
            PIPELINES.register(cls.kind, cls)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as values that JSON can hold."""

    @abstractmethod
    def examples(self, path: str | Path, limits: Limits = LOCAL) -> RawExamples:
        """Read labeled examples; `DataError` names what is wrong with them."""

    @abstractmethod
    def inputs(self, path: str | Path, limits: Limits = LOCAL) -> tuple[Tensor, list[str]]:
        """Read unlabeled inputs `(n, *input_shape)` and their ids."""

    @abstractmethod
    def of_array(self, array: Any) -> Tensor:
        """Inputs `(n, *input_shape)` of rows or images in memory; `DataError` tells the expected shape."""

    def described(self) -> str:
        """What the inputs are, in words."""
        return f"arrays of shape {self.input_shape}"

    def check_ready(self) -> None:  # noqa: B027 - most need nothing
        """Raise a `UserError` where something that it makes inputs with is not on this machine."""

    def of_task(self, examples: str | Path, target: str | None = None, limits: Limits = LOCAL) -> "InputPipeline":
        """What reads the files of the task with these labeled examples: by default the same for all tasks.

        target: the column to predict, where each task may have one of its own; else a `UserError`.
        """
        if target is not None:
            raise UserError("All tasks of this model have the same columns: leave out --target.")
        return self

    def config(self) -> dict[str, Any]:
        """What `from_config` makes the same pipeline of; JSON can hold it."""
        return {"kind": self.kind, **self.settings()}

    @staticmethod
    def of_kind(kind: str) -> "type[InputPipeline]":
        """The class of pipelines of this kind; `ArtifactError` if there is none."""
        if kind not in PIPELINES:
            raise ArtifactError(f"The saved input pipeline is of an unknown kind {kind!r}.")
        return PIPELINES[kind]  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "InputPipeline":
        """The pipeline that `config()` described; `ArtifactError` if this is no such description."""
        settings = dict(config)
        kind = str(settings.pop("kind", getattr(cls, "kind", None)))
        try:
            return cls.of_kind(kind)(**settings)
        except (TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"The saved input pipeline of kind {kind!r} is incomplete: {error}.") from error

    def scaled(self, values: np.ndarray | Tensor) -> Tensor:
        """Targets in the user's units `(n,)` or `(n, outputs)` as learners see them `(n, outputs)`."""
        scaled = (np.asarray(values, dtype=np.float64) - self.target_mean) / self.target_scale
        return torch.from_numpy(scaled.reshape(len(scaled), -1)).float()

    def unscaled(self, values: Tensor) -> Tensor:
        """Predicted values as learners make them in the user's units, as doubles."""
        return values.double() * self.target_scale + self.target_mean  # in double: a mean may need all its digits

    def check_labels(self, labels: Sequence[str], source: object) -> None:
        """Raise a `DataError` where labels are unknown (shared ones), or all the same (others)."""
        if self.labels is None:
            if len(set(labels)) < 2:
                raise DataError(f"{source} has one class only ({labels[0]!r}). Give examples of at least two classes.")
            return
        unknown = class_order(set(labels) - set(self.labels))
        if unknown:
            raise DataError(
                f"{source} has the label {unknown[0]!r}, which the model was not trained with. "
                f"Its labels: {', '.join(map(repr, self.labels))}."
            )


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
            raise DataError(f"Expected images as bytes (n, height, width) or (n, height, width, 3), got {array.shape}.")
        mode = "L" if self.channels == 1 else "RGB"
        images = [Image.fromarray(image.squeeze(-1) if image.shape[2:] == (1,) else image) for image in array]
        framed = [framed(image.convert(mode), self.size) for image in images]
        pixels = torch.from_numpy(np.stack(framed)) if framed else torch.zeros((0, *self.input_shape))
        return (255 - pixels if self.invert else pixels).float() / 255


def check_one_task(names: Sequence[str], source: object) -> None:
    """Raise a `DataError` where the rows to adapt to are of several tasks, which these names tell apart."""
    tasks = sorted(set(names))
    if len(tasks) > 1:
        raise DataError(
            f"{source} has {len(tasks)} tasks ({', '.join(tasks[:3])}{', ...' if len(tasks) > 3 else ''}), but a model "
            "adapts to one at a time. Give the rows of one."
        )


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; a deviation of 1 for a constant, which then becomes 0."""
    mean, scale = float(values.mean()), float(values.std())
    return mean, scale if scale > 1e-9 * abs(mean) else 1.0


def numbers(array: np.ndarray, what: str, *, gaps: bool = False) -> np.ndarray:
    """An array as floats; `DataError` names the first row that is not finite numbers, or with `gaps` NaN either."""
    try:
        if np.iscomplexobj(array):
            raise TypeError("they are complex")
        floats = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} should hold numbers only ({error}).") from error
    wrong = np.argwhere(np.isinf(floats) if gaps else ~np.isfinite(floats))
    if len(wrong):
        raise DataError(
            f"{what}, row {wrong[0][0] + 1}: {floats[tuple(wrong[0])]} is not a finite number. Correct or remove it."
        )
    return floats


def shaped(array: np.ndarray, shape: tuple[int, ...], expected: str) -> Tensor:
    """Floats `(n, *shape)`, also given flattened."""
    if array.ndim == 2 and array.shape[1] == prod(shape):
        array = array.reshape(-1, *shape)
    if array.shape[1:] != shape:
        raise DataError(f"The model expects {expected}, got an array of shape {array.shape}.")
    return torch.from_numpy(numbers(array, "The inputs")).float()


def joined(shape: Sequence[int]) -> str:
    """A shape without its parentheses."""
    return ", ".join(map(str, shape))


def row_numbers(count: int) -> list[str]:
    """The ids of rows, from 1."""
    return [str(row + 1) for row in range(count)]
