"""From the user's examples to an adapted task."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from handful.data_options import DataOptions
from handful.engine.devices import device_named
from handful.errors import UserError
from handful.limits import LOCAL, Limits
from handful.models.adapted_task import AdaptedTask
from handful.models.lookup import model_of, remember
from handful.models.meta_model import MetaModel
from handful.notes import note
from handful.pipelines.pipeline import InputPipeline
from handful.workflows.encoding import encoded_examples, id_with


def adapt_from_file(
    base: Path,
    examples: Path,
    *,
    model: Path | None = None,
    target: str | None = None,
    keep_support: bool = True,
    estimate: bool = False,
    device: str = "cpu",
    trust: Sequence[str] = (),
    limits: Limits = LOCAL,
    options: DataOptions | None = None,
) -> AdaptedTask:
    """Adapt to the labeled examples in a file or folder, and to those that a task has already.

    base: a run, the folder of a meta-model, or the file of an adapted task, which is not changed.
    model: the path of its meta-model, if that is not found by its digest.
    target: the column to predict, if the model's tasks are tables with differing columns; None: the model's.
    keep_support, estimate: see `MetaModel.adapt`.
    device: one of `handful.engine.devices.DEVICES`.
    trust: see `MetaModel.from_pretrained`.
    limits: on the file's size.
    options: the format of the file (see `DataOptions.for_file`).

    Makes a note if added inputs are among the task's. Raises `UserError` if the task does not keep its examples, and
    `DataError` for unusable examples.
    """
    there = device_named(device)
    how: dict[str, Any] = {"keep_support": keep_support, "estimate": estimate}
    if base.is_file():
        task = AdaptedTask.load(base)
        meta = model_of(task, base, given=model, trust=trust).to(there)
        read = encoded_examples(pipeline_of(meta.for_task(task)), examples, target, limits, options, added=True)
        ids = list(_unlike(task.manifest or (), read.ids, examples))
        if task.support is not None and (twice := len(_rows(read.inputs) & _rows(task.support.inputs))):
            note(
                "repeated",
                f"{examples}: some inputs are already among the task's examples, and count twice.",
                count=twice,
            )
        return meta.with_examples(task, read.inputs, read.labels, ids=ids, groups=read.groups, **how)
    meta = MetaModel.from_pretrained(base, trust=trust).to(there)
    remember(meta)
    read = encoded_examples(pipeline_of(meta), examples, target, limits, options)
    made = meta.with_pipeline(read.pipeline).adapt(read.inputs, read.labels, ids=read.ids, groups=read.groups, **how)
    return made.with_rows(dict(zip(read.ids, read.rows, strict=True))) if read.rows else made


def _rows(inputs: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in inputs.cpu()}


def _unlike(taken: Sequence[str], ids: Sequence[str], path: Path) -> Iterator[str]:
    """Ids of added examples; an id that already exists is replaced by the file's name and a number."""
    used = set(taken)
    for id_ in ids:
        named = id_with(path.name, path, id_)
        more = (f"{named} ({number})" for number in itertools.count(2))
        used.add(own := next(name for name in itertools.chain([id_, named], more) if name not in used))
        yield own


def pipeline_of(model: MetaModel) -> InputPipeline:
    """The model's pipeline; `UserError` if its tasks came from a generator."""
    if model.pipeline is None:
        raise UserError(
            f"The tasks of {model.path} come from a generator, so the model cannot read files. Use it from Python: "
            "MetaModel.from_pretrained(...).adapt(inputs, labels)."
        )
    return model.pipeline
