"""The examples of a task: made of what is given, merged, corrected, and adapted to."""

import json
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.errors import DataError, count_of
from handful.limits import SERVICE
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.notes import note
from handful.pipelines.labels import PYTHON, class_names, target_values
from handful.serving import inputs as kept
from handful.serving.ids import Ids
from handful.serving.inputs import Given, Written
from handful.serving.names import checked_name
from handful.serving.own_columns import NOTHING, check_rows, of_task, own_columns, row_of
from handful.serving.records import Example


def encoded(model: MetaModel, given: Given) -> Tensor:
    """Inputs as the model's pipeline stores each of them alone `(n, ...)`; `DataError` for what cannot be one."""
    if model.pipeline is not None and model.pipeline.of_one_task:
        check_rows(given)
    values = kept.values(given)
    if model.pipeline is not None:
        return model.pipeline.stored_alone(values, SERVICE)
    if not isinstance(values, np.ndarray):
        raise DataError("The tasks of this model come from a generator: its inputs are arrays.", code="wrong-shape")
    return model.checked_inputs(torch.from_numpy(values).float())


def prepared(model: MetaModel, stored: Tensor) -> Tensor:
    """Stored inputs as the model takes them."""
    return stored if model.pipeline is None else model.pipeline.prepare(stored)


def labeled(model: MetaModel, inputs: Sequence[Any], labels: Any, ids: Ids) -> list[Example]:
    """Examples of what a user gives, each with an id of its own.

    inputs: see `handful.serving.inputs.written`.
    labels: class names `(n,)`, or targets `(n,)` or `(n, outputs)`.

    Raises `DataError` for what cannot be examples of this model.
    """
    if not len(inputs):
        raise DataError("A task needs at least one example.", code="too-few-examples", field=("inputs",))
    given = kept.all_written(inputs)
    targets = _labels(model, labels, len(given))
    contents = _encodings(model, given)
    return [
        Example(ids.new("ex"), *one, content, target)
        for one, content, target in zip(given, contents, targets, strict=True)
    ]


def reencoded(model: MetaModel, examples: Sequence[Example]) -> list[Example]:
    """The same examples as another model's pipeline stores them.

    Raises `DataError` for examples of which only an encoding is known, and for inputs that the model does not take.
    """
    if any(example.media == "encoded" for example in examples):
        raise DataError(
            "Some examples of the task were imported from a file, which contains only their encoded form. Another "
            "model cannot read them: import the task again, or correct it with the raw inputs."
        )
    contents = _encodings(model, [Written(example.media, example.content) for example in examples])
    return [replace(example, encoded=content) for example, content in zip(examples, contents, strict=True)]


def stacked(model: MetaModel, examples: Sequence[Example]) -> Tensor:
    """The inputs of examples `(n, ...)`, as the model takes them.

    model: with the task's own pipeline, if it has one.
    """
    if model.pipeline is not None and model.pipeline.of_one_task:
        return model.pipeline.encode([row_of(example) for example in examples], SERVICE)
    return torch.stack([_input(model, example) for example in examples])


def targets_of(examples: Sequence[Example], labels: Sequence[str] | None) -> Tensor:
    """The classes of examples by their numbers `(n,)`, or their targets `(n, outputs)` for regression.

    Raises `DataError` for a class that is not among the labels.
    """
    if labels is None:
        return torch.tensor([json.loads(example.label) for example in examples], dtype=torch.float64, device="cpu")
    numbers = {label: number for number, label in enumerate(labels)}
    for place, example in enumerate(examples):
        if example.label not in numbers:
            raise DataError(
                f"Example {place} is labeled {example.label!r}, which is not a class of the task: {', '.join(labels)}.",
                code="unknown-label",
                field=("labels", place),
            )
    return torch.tensor([numbers[example.label] for example in examples], device="cpu")


def adapted(model: MetaModel, examples: Sequence[Example], *, keep_support: bool = False) -> AdaptedTask:
    """The task that a model makes of these examples, whatever their order."""
    model = of_task(model, examples)
    inputs = stacked(model, examples)
    labels: Any = [example.label for example in examples]
    if not model.spec.classification:
        labels = [json.loads(label) for label in labels]
    made = model.adapt(inputs, labels, ids=[example.id for example in examples], keep_support=keep_support)
    return made if made.pipeline is None else made.with_rows({example.id: row_of(example) for example in examples})


def added(support: Sequence[Example], new: Sequence[Example], *, classification: bool) -> list[Example]:
    """A support with more examples. For classification, an input that is there already is left out, with a note.

    Raises `DataError` if an input would have two labels.
    """
    if not classification:
        return [*support, *new]
    labels = {input_key(example): example.label for example in support}
    before, result = set(labels), list(support)
    for place, example in enumerate(new):
        key = input_key(example, labels)
        if key not in labels:
            labels[key] = example.label
            result.append(example)
        elif labels[key] != example.label:
            way = "Correct it instead." if key in before else "Give it one."
            raise DataError(
                f"Example {place} is labeled {example.label!r}, but the same input {labels[key]!r} already. {way}",
                code="contradictory-labels",
                field=("labels", place),
            )
    if left_out := len(support) + len(new) - len(result):
        note("repeated", "Some examples already exist, and are left out.", count=left_out)
    return result


def corrected(support: Sequence[Example], new: Sequence[Example]) -> list[Example]:
    """A support in which these inputs have the new labels; those that are not in it are added.

    Raises `DataError` if an input is given with two labels.
    """
    wanted = added([], new, classification=True)  # one label for each input, also for regression
    held = {input_key(example) for example in support}
    labels = {input_key(example, held): example.label for example in wanted}
    replaced: set[tuple[str, bytes]] = set()
    result = []
    for example in support:
        key = input_key(example)
        if labels.get(key, example.label) == example.label:
            result.append(example)
            replaced |= {key} & labels.keys()
    return [*result, *(example for example in wanted if input_key(example, held) not in replaced)]


def imported(model: MetaModel, task: AdaptedTask, ids: Ids) -> list[Example] | None:
    """The examples that an adapted task of a model holds; None if it holds none.

    Raises `DataError` for a task with columns of its own without its rows: a layout is only taken from these.
    """
    if own_columns(model) and (task.rows is None or task.support is None):
        raise DataError(
            "The file does not contain the rows of this task, which has columns of its own. Create the task from its "
            "rows."
        )
    if task.support is None:
        return None
    labels: list[Any] = task.support.targets.tolist()
    if task.labels is not None:
        names = [checked_name(name, "label") for name in task.labels]
        labels = [names[number] for number in labels]
    if own_columns(model):
        return labeled(model, task.rows or (), labels, ids)
    if task.labels is None:
        labels = [json.dumps(row) for row in labels]
    contents = kept.encoded_bytes(task.support.inputs)
    return [
        Example(ids.new("ex"), "encoded", content, content, label)
        for content, label in zip(contents, labels, strict=True)
    ]


def input_key(example: Example, held: Container[tuple[str, bytes]] = ()) -> tuple[str, bytes]:
    """What two examples of one input share, however its numbers are written.

    held: keys, among them those of inputs that are known as encoded alone.
    """
    encoded = "encoded", example.encoded
    if encoded in held:
        return encoded
    if not example.media.startswith("array"):
        return example.media, example.content
    array = kept.value(Written(example.media, example.content))
    whole = array.dtype.kind in "iu" and not kept.encoded_tensor(example.encoded).is_floating_point()
    kind = "bytes" if whole else "numbers"  # of an image, whole numbers mean other things than floats
    return f"{kind} {array.shape}", (array.astype(np.float64) + 0.0).tobytes()  # -0.0 is 0.0


def _encodings(model: MetaModel, given: Given) -> list[bytes]:
    """What is kept of inputs as the model's pipeline stores them."""
    if own_columns(model):
        check_rows(given)
        return [NOTHING] * len(given)
    return kept.encoded_bytes(encoded(model, given))


def _input(model: MetaModel, example: Example) -> Tensor:
    tensor = kept.encoded_tensor(example.encoded)
    return tensor if example.media == "encoded" else prepared(model, tensor[None])[0]


def _labels(model: MetaModel, labels: Any, count: int) -> list[str]:
    """Names of classes, or targets as JSON."""
    if not model.spec.classification:
        targets = target_values(labels, count, model.spec.outputs)
        if not targets.isfinite().all():
            row = int((~targets.isfinite()).any(1).nonzero()[0])
            raise DataError(f"The target of example {row} is not finite.", code="non-finite", field=("labels", row))
        return [json.dumps(row) for row in targets.tolist()]
    names = class_names(labels, PYTHON)
    if len(names) != count:
        raise DataError(
            f"{count_of(count, 'input')} and {count_of(len(names), 'label')}: give one for each.", code="ragged-input"
        )
    return [checked_name(name, "label") for name in names]
