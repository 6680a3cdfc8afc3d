"""Input pipelines: they encode the user's values as one tensor per example.

A pipeline is fitted on the training split only and saved with the meta-model, so that later files are encoded like the
training files.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from handful.cells import class_order, fault_of, too_large, unmasked
from handful.data_options import DataOptions
from handful.errors import ArtifactError, DataError, UserError
from handful.limits import LOCAL, Limits
from handful.notes import note
from handful.own_code import check_trusted
from handful.pipelines.labels import PYTHON, class_names, target_values
from handful.pipelines.spread import Spread
from handful.raw_batch import INPUT, Origin, Place, RawBatch, numbered
from handful.registry import Registry

WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64)
MOST = 2**24
"""The largest whole number below which all are exact in 32-bit floats."""
FAR_TARGET = 50
"""Standard deviations from the mean, from which on a target is more likely a mistake, or in another unit."""

PIPELINES: Registry[Any] = Registry("input pipeline", "handful.pipelines")


class InputPipeline(ABC):
    """Turns raw values into `(n, *input_shape)` floats. A subclass with a `kind` is registered under it.

    kind: its name on disk.
    input_shape: shape of one example.
    group: the column of groups, if the tasks were made with groups, else None.
    order: the column of time, if the support of the tasks preceded their queries, else None.
    labels: names of the classes in the order of class numbers, if all tasks share them, else None.
    targets: names of the predicted values (regression), else empty.
    unit: of the targets, if the training file writes one.
    target_mean, target_scale: `(outputs,)`, doubles; a scaled target is (value - target_mean) / target_scale. If
        targets are not scaled, `(1,)` for all outputs.
    backbone: the default network for these inputs; "auto" chooses by their shape.
    backbone_options: of that network.
    encoded: whether inputs are vectors of a pretrained encoder, or inputs of a tuned one.
    tuned: whether that encoder is a part of the learner, which trains it.
    per_task: whether each task has a pipeline of its own, fitted to its examples; see `of_task`.
    of_one_task: whether it is such a one, which is saved with its adapted task.
    """

    kind: ClassVar[str]
    backbone: str = "auto"
    backbone_options: Mapping[str, Any] = MappingProxyType({})
    encoded: bool = False
    tuned: bool = False
    per_task: ClassVar[bool] = False
    of_one_task: ClassVar[bool] = False
    input_shape: tuple[int, ...]
    group: str | None = None
    order: str | None = None
    labels: list[str] | None = None
    targets: tuple[str, ...] = ()
    unit: str = ""
    target_mean: Tensor = torch.zeros(1, dtype=torch.float64, device="cpu")
    target_scale: Tensor = torch.ones(1, dtype=torch.float64, device="cpu")

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" in vars(cls) and not inspect.isabstract(cls):
            PIPELINES.register(cls.kind, cls)

    def unencoded(self) -> "InputPipeline | None":
        """The same for inputs of its frozen encoder, not vectors, for a learner that tunes it; None without such an
        encoder.
        """
        return None

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as values that JSON can hold."""

    @abstractmethod
    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Inputs as stored in memory `(n, *stored_shape)`: images of 8 bits as bytes, everything else as floats.

        values: n values from readers or Python, see each pipeline.
        limits: on the size of one.
        place: their names in messages.

        Raises `DataError` for values that cannot be inputs.
        """

    def stored_alone(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """The same as `stored` of each value by itself, and the same errors: for values of several users."""
        return self.stored(values, limits, place)

    def prepare(self, stored: Tensor) -> Tensor:
        """The result of `stored` on the learner's scale: floats `(n, *input_shape)`."""
        return prepared(stored)

    def encode(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Inputs `(n, *input_shape)` of values, from wherever they come; see `stored`."""
        check_dense(values)
        return self.prepare(self.stored(unmasked(values), limits, place))

    def encode_labels(self, values: Any, origin: Origin = PYTHON, *, added: bool = False) -> tuple[str, ...] | Tensor:
        """Names of classes `(n,)`, or targets in the user's units `(n, outputs)`, as doubles.

        values: see `class_names` and `target_values`.
        origin: their names in messages.
        added: whether they are added to others, so that all may be the same.

        Raises `DataError` for invalid ones, for unknown labels (shared ones), and for a single class (others).
        """
        if self.targets:
            try:
                targets = target_values(values, len(values), len(self.targets))
            except DataError as error:
                raise error if origin == PYTHON else error.about(origin.whole) from error
            numbers(targets.numpy(), origin.whole)
            return targets
        names = class_names(values, origin)
        if self.labels is not None or not added:
            self.check_labels(names, origin.whole)
        return names

    @property
    def data_options(self) -> DataOptions:
        """The columns in files of this model's tasks, beside the inputs."""
        return DataOptions()

    def described(self) -> str:
        """A description of the inputs."""
        return f"arrays of shape {self.input_shape}"

    def check_ready(self) -> None:  # noqa: B027 - most need nothing
        """Raise `UserError` if something that it needs is not on this machine."""

    def encoder_folder(self) -> Path | None:
        """The files of the encoder of its inputs, frozen or tuned; None without an encoder with files."""
        return None

    def of_task(self, values: Any, target: str | None = None) -> "InputPipeline":
        """The pipeline of the task with these labeled examples from a reader: by default the same for all tasks.

        target: the column to predict, if tasks may differ in it; else a `UserError`.
        """
        if target is not None:
            raise UserError("All tasks of this model have the same target.", hint="Remove {target}.")
        return self

    def release(self) -> None:  # noqa: B027 - most have nothing to give back
        """Free the memory of the encoder, which is loaded again when needed."""

    def config(self) -> dict[str, Any]:
        """The description from which `from_config` makes the same pipeline, as JSON values."""
        return {"kind": self.kind, **self.settings()}

    @staticmethod
    def of_kind(kind: str) -> "type[InputPipeline]":
        """The class of pipelines of this kind; `ArtifactError` for an unknown kind."""
        if kind not in PIPELINES:
            raise ArtifactError(f"The saved input pipeline is of an unknown kind {kind!r}.")
        return PIPELINES[kind]  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, config: dict[str, Any], trust: Sequence[str] = ()) -> "InputPipeline":
        """The pipeline that `config()` described.

        trust: names of packages, with their sub-packages, of which an encoder of one's own may be built.

        Raises `ArtifactError` for another description, or an encoder of an untrusted package.
        """
        settings = dict(config)
        check_trusted(settings.get("encoder", ""), trust, "encoder")
        kind = str(settings.pop("kind", getattr(cls, "kind", None)))
        try:
            return cls.of_kind(kind)(**settings)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ArtifactError(f"The saved input pipeline of kind {kind!r} is incomplete: {error}.") from error

    def scaled(self, values: np.ndarray | Tensor) -> Tensor:
        """Targets in the user's units `(n,)` or `(n, outputs)`, scaled for learners `(n, outputs)`.

        Makes a note of targets far from those of the training. Raises `DataError` for another number of outputs.
        """
        columns = torch.as_tensor(np.asarray(values, dtype=np.float64).reshape(len(values), -1))
        outputs = len(self.target_scale)
        if outputs not in (1, columns.shape[1]):
            raise DataError(f"The model predicts {outputs} target values, but these have {columns.shape[1]}.")
        scaled = (columns - self.target_mean) / self.target_scale
        far = scaled.abs() > FAR_TARGET
        if far.any():
            row, output = far.nonzero()[0].tolist()
            mean, scale = (facts.expand(columns.shape[1])[output] for facts in (self.target_mean, self.target_scale))
            note(
                "far-targets",
                f"Targets such as {columns[row, output]:g} are more than {FAR_TARGET} standard deviations from the "
                f"mean of the training ({mean:g} ± {scale:g}). Check for mistakes, and for another unit.",
                count=int(far.sum()),
            )
        return scaled.float()

    def unscaled(self, values: Tensor) -> Tensor:
        """Values predicted by learners, converted to the user's units, as doubles."""
        return values.double() * self.target_scale + self.target_mean  # in double: a mean may need all its digits

    def check_unit(self, raw: RawBatch) -> None:
        """Raise `DataError` for targets in another unit than those of the training."""
        if raw.targets is not None and raw.unit != self.unit:
            raise DataError(
                f"{raw.called('target')} is in {raw.unit or 'no unit'}, but the model was trained on "
                f"{self.unit or 'numbers without a unit'}. Convert the targets to the unit of the training."
            )

    def check_labels(self, labels: Sequence[str], source: object) -> None:
        """Raise `DataError` for unknown labels (shared ones), or a single class (others)."""
        if self.labels is None:
            if len(set(labels)) < 2:
                raise DataError(
                    f"{source} has only one class ({labels[0]!r}). Give examples of at least two classes.",
                    code="one-class",
                )
            return
        unknown = class_order(set(labels) - set(self.labels))
        if unknown:
            raise DataError(
                f"{source} has the label {unknown[0]!r}, which is not one of the model's. Its labels: "
                f"{', '.join(map(repr, self.labels))}.",
                code="unknown-label",
            )


def prepared(stored: Tensor) -> Tensor:
    """Stored inputs as floats: bytes of images become 0 to 1."""
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored


def check_dense(values: Any, what: str = "The inputs") -> None:
    """Raise `DataError` for sparse matrices and tensors, with the method that makes them dense."""
    if isinstance(values, Tensor) and values.layout != torch.strided:
        way = "to_dense"
    elif hasattr(values, "toarray"):
        way = "toarray"
    else:
        return
    raise DataError(f"{what} are a sparse matrix. Make them dense with .{way}().", code="wrong-shape")


def floats(inputs: Tensor) -> Tensor:
    """Whole numbers `(n, ...)`, also those of tokens, as equal floats of 32 bits; floats and bytes as they are.

    Raises `DataError` that names the first row with a number that has none.
    """
    if inputs.dtype not in WHOLE:
        return inputs
    whole = inputs.long()
    wrong = ((whole > MOST) | (whole < -MOST)).nonzero()
    if len(wrong):
        raise DataError(
            f"Example {int(wrong[0][0])} of the inputs holds {int(inputs[tuple(wrong[0])])}: inputs are 32-bit "
            f"floats, which are exact for whole numbers up to {MOST:,}. Scale or renumber them.",
        )
    return inputs.float()


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; a deviation of 1 for a constant, which then becomes 0."""
    mean, scale = float(values.mean()), float(values.std())
    return mean, scale if scale > 1e-9 * abs(mean) else 1.0


def target_moments(targets: np.ndarray) -> tuple[list[float], list[float]]:
    """Means and deviations, as `moments`, of each output of targets `(n,)` or `(n, outputs)`.

    Values so far away that an input would be clipped are left out: beside one misprint all others would be equal.
    """
    columns = targets.reshape(len(targets), -1)
    near = Spread.of(columns).near(columns)
    found = [moments(column[kept]) for column, kept in zip(columns.T, near.T, strict=True)]
    return [mean for mean, _ in found], [scale for _, scale in found]


def as_moments(values: Sequence[float]) -> Tensor:
    """Means or deviations as a pipeline holds them: doubles `(outputs,)`."""
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def numbers(array: np.ndarray, what: str, *, gaps: bool = False, place: Place | None = None) -> np.ndarray:
    """An array as floats; `DataError` names the first cell that is not a number, or beyond the largest one.

    what, place: the names of the array and its rows in messages.
    gaps: NaN is allowed.
    """
    try:
        if np.iscomplexobj(array):
            raise TypeError("they are complex")
        floats = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} should hold numbers only ({error}).") from error
    wrong = np.argwhere(too_large(floats) if gaps else too_large(floats) | np.isnan(floats))
    if len(wrong):
        where = (place or numbered(f"{what}, row", 1))(int(wrong[0][0]))
        column = f", column {wrong[0][1] + 1}" if floats.ndim == 2 and floats.shape[1] > 1 else ""
        number = floats[tuple(wrong[0])]
        raise DataError(
            f"{where}{column}: {number:g} {fault_of(number)}. Correct or remove it.",
            code="non-finite",
        )
    return floats


def shaped(array: np.ndarray, shape: tuple[int, ...], expected: str, place: Place = INPUT) -> Tensor:
    """Floats `(n, *shape)`, also given flattened."""
    if array.ndim == 2 and array.shape[1] == prod(shape):
        array = array.reshape(-1, *shape)
    if array.shape[1:] != shape:
        raise DataError(f"The model expects {expected}, got an array of shape {array.shape}.", code="wrong-shape")
    return torch.from_numpy(numbers(array, "The inputs", place=place)).float()


def joined(shape: Sequence[int]) -> str:
    """A shape without its parentheses."""
    return ", ".join(map(str, shape))
