"""From the user's examples to an adapted task."""

from collections.abc import Sequence
from pathlib import Path

from handful.data_options import DataOptions
from handful.engine.devices import device_named
from handful.errors import UserError
from handful.limits import LOCAL, Limits
from handful.models.adapted_task import AdaptedTask
from handful.models.lookup import remember
from handful.models.meta_model import MetaModel
from handful.pipelines.pipeline import InputPipeline
from handful.workflows.encoding import encoded_examples


def adapt_from_file(
    model: Path,
    examples: Path,
    *,
    target: str | None = None,
    keep_support: bool = True,
    estimate: bool = False,
    device: str = "cpu",
    trust: Sequence[str] = (),
    limits: Limits = LOCAL,
    options: DataOptions | None = None,
) -> AdaptedTask:
    """Adapt the meta-model of a run or folder to the labeled examples in a file or folder.

    target: the column to predict, where each task is a table with columns of its own; None: the model's. keep_support,
    estimate: see `MetaModel.adapt`. device: one of
    `handful.engine.devices.DEVICES`. trust: see `MetaModel.from_pretrained`. limits: the most that is
    read. options: how the file is written (see `DataOptions.for_file`).
    """
    there = device_named(device)
    meta = MetaModel.from_pretrained(model, trust=trust).to(there)
    remember(meta)
    read = encoded_examples(pipeline_of(meta), examples, target, limits, options)
    return meta.with_pipeline(read.pipeline).adapt(
        read.inputs, read.labels, ids=read.ids, groups=read.groups, keep_support=keep_support, estimate=estimate
    )


def pipeline_of(model: MetaModel) -> InputPipeline:
    """The model's pipeline; `UserError` where its tasks came from a generator."""
    if model.pipeline is None:
        raise UserError(
            f"The tasks of {model.path} come from a generator, so the model cannot read files. Use it from Python: "
            "MetaModel.from_pretrained(...).adapt(inputs, labels)."
        )
    return model.pipeline
