"""What the user answers to examples, class names or numbers, as the targets that learners see."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from handful.cells import class_order
from handful.errors import DataError
from handful.learners.learner import Learner
from handful.pipelines.labels import class_names, target_values
from handful.pipelines.pipeline import InputPipeline
from handful.types import TaskSpec

Answers: TypeAlias = Any
"""Of n examples: labels as for `class_names`, or targets in their own units as for `target_values`."""

NO_ANSWER = "The answer to example {row} is NaN or infinite. Remove the example or correct it."


class Read(NamedTuple):
    """Answers, checked. names: of the classes. values: n class numbers, or `(n, outputs)` in their own units."""

    spec: TaskSpec
    names: list[str] | None
    values: list[int] | Tensor


class AnswerReader:
    """Reads the answers of any number of tasks for one learner, in the names and units of its pipeline."""

    def __init__(self, learner: Learner, pipeline: InputPipeline | None) -> None:
        self.learner = learner
        self.spec: TaskSpec = learner.recipe["spec"]
        self.pipeline = pipeline
        self.known: dict[tuple[str, ...], Read] = {}  # many tasks have the same classes in the same order

    def read(self, answers: Answers, count: int) -> Read:
        """What the answers to `count` examples say; `DataError` if they make no task of this learner."""
        if not self.spec.classification:
            if not count:
                raise DataError("There are no examples to adapt to. Give one at least.", code="too-few-examples")
            return Read(self.spec, None, target_values(answers, count, self.spec.outputs))
        given = class_names(answers)
        if given not in self.known:
            self.known[given] = self._numbered(given)
        if len(given) != count or not count:
            raise DataError(f"There are {count} examples, but {len(given)} answers to them.", code="ragged-input")
        return self.known[given]

    def targets(self, reads: Sequence[Read], dtype: torch.dtype) -> Tensor:
        """Targets `(tasks, n)` or `(tasks, n, outputs)` as learners see them, of tasks with n examples each."""
        if self.spec.classification:
            return torch.tensor([read.values for read in reads])
        values = torch.stack([read.values for read in reads if isinstance(read.values, Tensor)])
        scaled = self.pipeline.scaled(values.flatten(0, 1)) if self.pipeline else values
        return scaled.reshape(values.shape).to(dtype)

    def _numbered(self, given: tuple[str, ...]) -> Read:
        """The classes of a task, and the number of each answer among them."""
        spec = self.spec
        if spec.labels == "shared":
            known = self.pipeline.labels if self.pipeline else None
            names = known or [str(number) for number in range(spec.outputs)]
            unknown = class_order(set(given) - set(names))
            if unknown:
                raise DataError(
                    f"The model knows the classes {', '.join(names)}, not {', '.join(unknown)}.", code="unknown-label"
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
                    f"This {self.learner.key} model was made for {spec.outputs} classes and takes no other number, but "
                    f"the examples have {len(names)}."
                )
        places = {name: number for number, name in enumerate(names)}
        of_task = TaskSpec("classification", spec.input_shape, len(names), spec.labels)
        return Read(of_task, names, [places[answer] for answer in given])
