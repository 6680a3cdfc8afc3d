"""The input pipeline for arrays in an npz file."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.notes import note
from handful.pipelines.pipeline import (
    InputPipeline,
    as_moments,
    joined,
    numbers,
    shaped,
    target_moments,
)
from handful.pipelines.spread import AS_THEY_ARE, Spread, note_clipped
from handful.raw_batch import INPUT, Place

CHANNELS = (1, 3, 4)
"""Channels of images: gray; red, green, blue; and a fourth, which is unchanged."""


class ArrayPipeline(InputPipeline):
    """Arrays of an npz file: `inputs`, `labels` or `targets`, and optionally `task`, `group` and `order`.

    Bytes (uint8) with more than one axis per example are images `(h, w)`, `(h, w, c)` or `(c, h, w)` and become floats
    from 0 to 1, `(c, h, w)`. Rows of numbers are scaled by column, other arrays as a whole, by the training rows; far
    values are clipped with a note. Raw numbers are unchanged.

    raw_shape: of one example in the file.
    images: whether they are bytes of images.
    spread: of each column, or of all numbers, see `Spread`.
    group, order: the arrays with the groups and the order that the tasks were made with.
    """

    kind = "arrays"

    def __init__(
        self,
        *,
        raw_shape: Sequence[int],
        images: bool = False,
        spread: dict[str, list[Any]] | None = None,
        labels: list[str] | None = None,
        outputs: int = 0,
        target_mean: Sequence[float] = (0.0,),
        target_scale: Sequence[float] = (1.0,),
        group: str | None = None,
        order: str | None = None,
    ) -> None:
        self.raw_shape, self.images, self.group, self.order = tuple(raw_shape), images, group, order
        self.spread = Spread.from_json(spread) if spread else AS_THEY_ARE
        self.labels = labels
        self.outputs = outputs
        self.targets = ("target",) if outputs == 1 else tuple(f"target {i + 1}" for i in range(outputs))
        self.target_mean, self.target_scale = as_moments(target_mean), as_moments(target_scale)
        shape = _channels_first(np.zeros((1, *self.raw_shape), np.uint8)).shape[1:] if images else self.raw_shape
        self.input_shape = tuple(shape) or (1,)

    @classmethod
    def fit(
        cls,
        inputs: np.ndarray,
        rows: np.ndarray,
        *,
        raw: bool = False,
        labels: list[str] | None = None,
        targets: np.ndarray | None = None,
        group: str | None = None,
        order: str | None = None,
    ) -> Self:
        """Fit to the training rows (indices) of the arrays.

        raw: whether the inputs are unchanged.
        """
        images = inputs.dtype == np.uint8 and inputs.ndim > 2 and not raw
        spread = None
        if not images and not raw:
            found = numbers(inputs, "'inputs'")[rows]
            spread = Spread.of(found if inputs.ndim == 2 else found.reshape(-1, 1)).to_json()
            _note_scaled(inputs)
        target_mean, target_scale = [0.0], [1.0]
        if targets is not None:
            target_mean, target_scale = target_moments(numbers(targets, "'targets'")[rows])
        return cls(
            raw_shape=inputs.shape[1:],
            images=images,
            spread=spread,
            labels=labels,
            outputs=0 if targets is None else prod(targets.shape[1:]),
            target_mean=target_mean,
            target_scale=target_scale,
            group=group,
            order=order,
        )

    def settings(self) -> dict[str, Any]:
        """Shapes, spread, labels and the target's scale."""
        return {
            "raw_shape": list(self.raw_shape),
            "images": self.images,
            "spread": self.spread.to_json(),
            "labels": self.labels,
            "outputs": self.outputs,
            "target_mean": self.target_mean.tolist(),
            "target_scale": self.target_scale.tolist(),
        } | {name: key for name, key in (("group", self.group), ("order", self.order)) if key}

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Arrays `(n, *raw_shape)`, flattened or not; images are bytes, which other whole numbers of the raw shape may
        stand for, or floats on the learner's scale."""
        array = np.asarray(values)
        if self.images and array.dtype.kind in "iu" and array.shape[1:] == self.raw_shape:
            array = _bytes(array)
        if self.images and array.dtype != np.uint8:
            return shaped(array, self.input_shape, f"images as bytes (n, {joined(self.raw_shape)}) or floats", place)
        if array.ndim == 2 and array.shape[1] == prod(self.raw_shape):
            array = array.reshape(-1, *self.raw_shape)
        if array.shape[1:] != self.raw_shape:
            raise DataError(
                f"The model needs inputs of shape (n, {joined(self.raw_shape)}), got {array.shape}.",
                code="wrong-shape",
            )
        if self.images:
            return torch.from_numpy(_channels_first(array).copy())
        found = numbers(array, "'inputs'", place=place).reshape(-1, len(self.spread.median))
        scaled, far = self.spread.scaled(found)
        note_clipped("'inputs'", far)
        return torch.from_numpy(scaled).float().reshape(len(array), *self.input_shape)

    @property
    def data_options(self) -> DataOptions:
        """The arrays: `targets` or `labels`, and `task` if the model was trained with tasks."""
        if self.outputs:
            return DataOptions(target="targets", task="task")
        return DataOptions(label="labels", task="task" if self.labels is not None else None)


def array_targets(targets: np.ndarray, source: str) -> np.ndarray:
    """Targets as floats `(n, outputs)`; `DataError` if they have another shape or are not all finite numbers."""
    if targets.ndim > 2 or not targets.size:
        raise DataError(
            f"{source} has shape {targets.shape}, but should hold one number, or a row of numbers, per row.",
            code="wrong-shape",
        )
    return numbers(targets, source).reshape(len(targets), -1)


def _note_scaled(inputs: np.ndarray) -> None:
    """Make a note if standardized numbers may not be measurements: token ids, or zero padding."""
    way_out = "Raw inputs are unchanged."
    if inputs.dtype.kind in "iu":
        note(
            "scaled-inputs",
            f"'inputs' are whole numbers, and are standardized like measurements. {way_out}",
            field=("inputs",),
        )
        return
    ended = int((inputs[:, -1] == 0).reshape(len(inputs), -1).all(1).sum()) if inputs.ndim > 2 else 0
    if ended and inputs.any():
        note(
            "scaled-inputs",
            f"'inputs' end with zeros, like padding, which standardizing changes. {way_out}",
            field=("inputs",),
            count=ended,
        )


def _bytes(array: np.ndarray) -> np.ndarray:
    """Whole numbers as bytes; `DataError` if some do not fit."""
    if array.size and not (array.min() >= 0 and array.max() <= 255):
        raise DataError(
            f"The model needs images as bytes, 0 to 255, but these range from {array.min():,} to {array.max():,}.",
            code="wrong-shape",
        )
    return array.astype(np.uint8)


def _channels_first(images: np.ndarray) -> np.ndarray:
    """Images `(n, h, w)`, `(n, h, w, c)` or `(n, c, h, w)` as `(n, c, h, w)`."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[-1] in CHANNELS and images.shape[1] not in CHANNELS:
        return images.transpose(0, 3, 1, 2)
    return images
