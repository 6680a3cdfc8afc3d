"""The user's labels and targets, as targets for a learner."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from handful.cells import class_order
from handful.errors import DataError, count_of
from handful.learners.learner import Learner
from handful.pipelines.labels import class_names, class_numbers, target_values
from handful.pipelines.pipeline import InputPipeline
from handful.types import TaskSpec

GivenLabels: TypeAlias = Any
"""For n examples: labels as for `class_names`, or targets in the user's units as for `target_values`."""


class ReadLabels(NamedTuple):
    """Labels, checked.

    spec: of the task that they make.
    names: of its classes by number; None for regression.
    values: class numbers `(n,)`, or targets in the user's units `(n, outputs)`, as doubles.
    """

    spec: TaskSpec
    names: tuple[str, ...] | None
    values: Tensor


class LabelReader:
    """Reads the labels of any number of tasks for one learner, in the names and units of its pipeline."""

    def __init__(self, learner: Learner, pipeline: InputPipeline | None) -> None:
        self.learner = learner
        self.spec: TaskSpec = learner.recipe["spec"]
        self.pipeline = pipeline
        self.known: dict[tuple[str, ...], ReadLabels] = {}  # many tasks have the same classes in the same order

    def read(self, labels: GivenLabels, count: int) -> ReadLabels:
        """The labels of `count` examples; `DataError` if they do not form a task of this learner."""
        if not count:
            raise DataError("Adapting needs at least one example.", code="too-few-examples")
        if not self.spec.classification:
            values = target_values(labels, count, self.spec.outputs)
            if not values.isfinite().all():
                row = int((~values.isfinite()).any(1).nonzero()[0])
                raise DataError(
                    f"The target of example {row} is NaN or infinite. Remove the example or correct it.",
                    code="non-finite",
                )
            return ReadLabels(self.spec, None, values)
        given = class_names(labels)
        if len(given) != count:
            raise DataError(
                f"{count_of(count, 'example')} and {count_of(len(given), 'label')}: give one for each.",
                code="ragged-input",
            )
        if given not in self.known:
            self.known[given] = self._numbered(given)
        return self.known[given]

    def scaled(self, reads: Sequence[ReadLabels], values: Tensor, dtype: torch.dtype) -> Tensor:
        """Values `(tasks, n)` or `(tasks, n, outputs)` of tasks with these labels, on the learner's scale."""
        if self.spec.classification:
            return values
        flat = values.flatten(0, 1)
        scaled = self.pipeline.scaled(flat) if self.pipeline else flat
        return scaled.reshape(values.shape).to(dtype)

    def _numbered(self, given: tuple[str, ...]) -> ReadLabels:
        """The classes of a task, and the number of each label among them."""
        spec = self.spec
        names = shared_names(spec, self.pipeline)
        if names is not None:
            unknown = class_order(set(given) - set(names))
            if unknown:
                raise DataError(
                    f"The model has the classes {', '.join(names)}, not {', '.join(unknown)}.", code="unknown-label"
                )
        else:
            names = class_order(given)
            if len(names) < 2:
                raise DataError(
                    f"A task needs examples of at least two classes, got only {', '.join(names) or 'none'}.",
                    code="one-class",
                )
            if len(names) != spec.outputs and not self.learner.any_way:
                raise DataError(
                    f"This {self.learner.key} model was made for {spec.outputs} classes only, but the examples have "
                    f"{len(names)}."
                )
        of_task = TaskSpec("classification", spec.input_shape, len(names), spec.labels)
        return ReadLabels(of_task, tuple(names), class_numbers(given, names))


def shared_names(spec: TaskSpec, pipeline: InputPipeline | None) -> list[str] | None:
    """The names of the classes by number if all tasks share them, else None."""
    if not spec.classification or spec.labels != "shared":
        return None
    return (pipeline and pipeline.labels) or [str(number) for number in range(spec.outputs)]
