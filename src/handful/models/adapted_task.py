"""Adapted tasks: small values, in memory, as bytes or as one file. No pickle anywhere."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from handful.errors import ArtifactError, UserError
from handful.limits import LOCAL, Limits
from handful.readers.reader import named_as_inputs
from handful.storage import flatten, read_bytes, tensors_from_bytes, tensors_to_bytes, unflatten, write_bytes
from handful.types import Examples, TaskSpec, TaskState

FORMAT, SCHEMA = "handful adapted task", 3
"""The number of the schema changes with the file's facts or their meaning."""


class Estimate(NamedTuple):
    """A task's own score on its support, each example predicted without those of its group.

    metric: the name of the metric.
    mean: its mean over the examples.
    examples: how many examples were scored.
    groups: how many groups they come from: the number of independent observations behind the mean.
    by: "leave-one-out", or "leave-one-group-out".
    diverged: how many examples had no finite prediction.
    """

    metric: str
    mean: float
    examples: int
    groups: int
    by: str
    diverged: int = 0


@dataclass(frozen=True, eq=False)
class AdaptedTask:
    """What a meta-model made of one task's examples: a small value that is stored, sent and predicted with.

    `MetaModel.adapt` makes it, and `MetaModel.predict` takes it; it holds neither the model nor a path. Two are equal
    if meta-model, examples and labels are.

    model_digest: digest of its meta-model, the only one that can predict with it.
    spec: kind of task, shape of an input, number of classes or values.
    labels: class names by number; None for regression.
    state: what the learner keeps of the task.
    support: the examples in canonical order: inputs `(n, *input_shape)`, targets `(n,)` class numbers or
        `(n, outputs)` values in the user's units, as doubles. None with `keep_support=False`.
    manifest: the id of each example; None with `keep_support=False`.
    groups: the group of each example; None without groups or with `keep_support=False`.
    examples: the number of examples.
    support_digest: hash of examples and labels, independent of their order.
    pipeline: configuration of the input pipeline of a table with columns of its own; None elsewhere.
    rows: of such a table, each example as it was given, in the order of the support, if that is known; a service fits
        the pipeline to them anew whenever examples change.
    targets: names of the predicted values; empty for classification.
    holds_examples: whether examples can be read from it, as its support or from its state.
    estimate: its own score; None if none was asked for or none can be made.
    adapt_seconds: seconds for adapting and the estimate; 0 for a loaded task, and not part of its bytes.

    Example:
        >>> import torch
        >>> from handful.learners.prototypical import PrototypicalNetwork
        >>> from handful.models.meta_model import MetaModel
        >>> model = MetaModel(PrototypicalNetwork.build(TaskSpec("classification", (2,), 2), backbone="linear"))
        >>> task = model.adapt(torch.tensor([[0.0, 0.1], [1.0, 0.9]]), ["apple", "pear"])
        >>> task.labels, task.examples
        (('apple', 'pear'), 2)
        >>> AdaptedTask.from_bytes(task.to_bytes()) == task  # `save` and `load` do the same with a file
        True
    """

    model_digest: str
    spec: TaskSpec
    labels: tuple[str, ...] | None
    state: TaskState
    support: Examples | None
    manifest: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    examples: int
    support_digest: str
    pipeline: Mapping[str, Any] | None = None
    rows: tuple[Mapping[str, Any], ...] | None = None
    targets: tuple[str, ...] = ()
    holds_examples: bool = True
    estimate: Estimate | None = None
    adapt_seconds: float = 0.0

    def __eq__(self, other: object) -> bool:
        return self._identity == other._identity if isinstance(other, AdaptedTask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.model_digest, self.support_digest, self.labels

    def with_rows(self, rows: Mapping[str, Mapping[str, Any]]) -> Self:
        """The same task with its examples as they were given, by their ids, if it keeps examples."""
        if self.manifest is None:
            return self
        return replace(self, rows=tuple(rows[id_] for id_ in self.manifest))

    def to_bytes(self) -> bytes:
        """One safetensors file of some kilobytes, with the facts as JSON inside; an equal value gives equal bytes."""
        tensors, structure = flatten(self.state)
        tensors = {f"state/{name}": tensor for name, tensor in tensors.items()}
        if self.support is not None:
            tensors |= {f"support/{name}": tensor for name, tensor in self.support._asdict().items()}
        facts = {
            "format": FORMAT,
            "schema": SCHEMA,
            "model": self.model_digest,
            "spec": asdict(self.spec),
            "labels": self.labels,
            "structure": structure,
            "manifest": self.manifest,
            "groups": self.groups,
            "examples": self.examples,
            "support_digest": self.support_digest,
            "pipeline": self.pipeline,
            "targets": self.targets,
            "holds_examples": self.holds_examples,
            "estimate": self.estimate and self.estimate._asdict(),
        }
        if self.rows is not None:
            facts["rows"] = self.rows
        return tensors_to_bytes(tensors, facts)[0]

    @classmethod
    def from_bytes(cls, data: bytes, *, limits: Limits = LOCAL, source: object = "These bytes") -> Self:
        """The task that `to_bytes` wrote.

        limits: how many bytes are read at the most.
        source: the name of the data in messages.

        Raises `ArtifactError` if the data are truncated, altered, a pickle, of another format or a newer version.
        """
        limits.check(source, bytes=len(data))
        tensors, facts, _ = tensors_from_bytes(data, source)
        if facts.get("format") != FORMAT:
            raise not_a_task(source)
        if facts.get("schema") != SCHEMA:
            raise ArtifactError(
                f"{source} has schema {facts.get('schema')}, but this version of handful reads schema {SCHEMA}. "
                "Install the version that wrote it, or adapt again.",
                code="other-version",
            )
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "support": {}}
        try:
            if not isinstance(facts["model"], str):
                raise TypeError("it names no meta-model")
            for name, tensor in tensors.items():
                part, _, rest = name.partition("/")
                parts[part][rest] = tensor
            task = cls(
                model_digest=facts["model"],
                spec=TaskSpec.from_json(facts["spec"]),
                labels=_tuple(facts["labels"]),
                state=unflatten(parts["state"], facts["structure"]),
                support=Examples(**parts["support"]) if parts["support"] else None,
                manifest=_tuple(facts["manifest"]),
                groups=_tuple(facts["groups"]),
                examples=int(facts["examples"]),
                support_digest=str(facts["support_digest"]),
                pipeline=facts["pipeline"],
                rows=_tuple(facts.get("rows")),
                targets=tuple(facts["targets"]),
                holds_examples=bool(facts["holds_examples"]),
                estimate=facts["estimate"] and Estimate(**facts["estimate"]),
            )
            task._check()
            return task
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ArtifactError(f"{source} is incomplete ({type(error).__name__}: {error}). Adapt again.") from error

    def _check(self) -> None:
        """Raise `ValueError` where the parts contradict one another: a file may come from anyone."""
        classes, outputs = self.spec.classification, self.spec.outputs
        if self.examples < 1:
            raise ValueError("it has no examples")
        if (self.labels is not None) != classes or not _are(str, self.labels, outputs):
            raise ValueError("its labels are not those of its classes")
        if (self.support is None) != (self.manifest is None) or not (
            _are(str, self.manifest, self.examples)
            and _are(str, self.groups, self.examples)
            and _are(Mapping, self.rows, self.examples)
        ):
            raise ValueError("its ids, groups or rows are not those of its examples")
        if self.support is None:
            return
        inputs, targets = self.support
        of_targets = (self.examples,) if classes else (self.examples, outputs)
        if inputs.shape != (self.examples, *self.spec.input_shape) or targets.shape != of_targets:
            raise ValueError("its examples have another shape")
        if classes and (targets.dtype != torch.int64 or targets.min() < 0 or targets.max() >= outputs):
            raise ValueError("its examples are of other classes")

    def save(self, path: str | Path) -> Path:
        """Write the task to one file; `UserError` if that would replace another file than an adapted task."""
        path = Path(path)
        _check_replaceable(path)
        write_bytes(path, self.to_bytes())
        return path

    @classmethod
    def load(cls, path: str | Path, *, limits: Limits = LOCAL) -> Self:
        """Read a task from its file; errors as those of `from_bytes`."""
        path = Path(path)
        if os.path.isdir(path) or named_as_inputs(path):  # and not a damaged one
            raise not_a_task(path)
        return cls.from_bytes(read_bytes(path), limits=limits, source=path)


def not_a_task(source: object) -> ArtifactError:
    """The error for another file in place of an adapted task."""
    return ArtifactError(f"{source} is not an adapted task. Make one with `handful adapt`.")


def _are(kind: type, values: Sequence[object] | None, count: int) -> bool:
    """Whether values are so many of a kind, or None."""
    return values is None or (len(values) == count and all(isinstance(value, kind) for value in values))


def _tuple(values: Any) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _check_replaceable(path: Path) -> None:
    """Raise `UserError` if an adapted task at this path would not be recognized, or would replace another file."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder, but an adapted task is a file.", hint="Give {path} a file name.")
    if named_as_inputs(path):
        raise UserError(
            f"{path} has the ending of a data file, and would be read as one.", hint="Give {path} another name."
        )
    if os.path.exists(path) and path.stat().st_size:
        try:
            _, facts, _ = tensors_from_bytes(read_bytes(path), path)
        except ArtifactError:
            facts = {}
        if facts.get("format") != FORMAT:
            raise UserError(
                f"{path} already exists and is not an adapted task.", hint="Give {path} another name, or remove it."
            )
