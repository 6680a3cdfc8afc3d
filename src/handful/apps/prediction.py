"""From the user's files to an adapted task, and to predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful.errors import UserError
from handful.limits import LOCAL, Limits
from handful.models.meta_model import AdaptedTask, MetaModel
from handful.pipelines.pipeline import InputPipeline
from handful.types import Categorical


def adapt_to_file(
    model: Path,
    examples: Path,
    *,
    target: str | None = None,
    keep_support: bool = True,
    estimate: bool = False,
    trust: Sequence[str] = (),
    limits: Limits = LOCAL,
) -> AdaptedTask:
    """Adapt the meta-model of a run or folder to the labeled examples in a file or folder.

    target: the column to predict, where each task is a table with columns of its own; None: the model's. keep_support,
    estimate: see `MetaModel.adapt`. trust: see `MetaModel.from_pretrained`. limits: the most that is
    read.
    """
    meta = MetaModel.from_pretrained(model, trust=trust)
    pipeline = pipeline_of(meta).of_task(examples, target, limits)
    raw = pipeline.examples(examples, limits)
    return meta.reading(pipeline).adapt(
        raw.inputs, raw.answers, ids=raw.ids, groups=raw.groups, keep_support=keep_support, estimate=estimate
    )


def predict_file(
    task: Path,
    inputs: Path,
    model: Path | None = None,
    *,
    trust: Sequence[str] = (),
    limits: Limits = LOCAL,
) -> list[dict[str, Any]]:
    """One row per input: its id, and either the class, its probability and those of all, or the predicted values.

    model: the place of the meta-model where it was moved. trust: see `MetaModel.from_pretrained`. limits: of the
    file.
    """
    meta = None if model is None else MetaModel.from_pretrained(model, trust=trust)
    adapted = AdaptedTask.load(task, meta, trust=trust)
    pipeline = pipeline_of(adapted.model)
    values, ids = pipeline.inputs(inputs, limits)
    prediction = adapted.predict(values)
    if not isinstance(prediction, Categorical):
        names = pipeline.targets or tuple(f"value {i}" for i in range(prediction.mean.shape[1]))
        return [
            {"id": id_} | dict(zip(names, row, strict=True))
            for id_, row in zip(ids, prediction.mean.tolist(), strict=True)
        ]
    assert adapted.labels is not None
    rows = []
    for id_, probabilities in zip(ids, prediction.logits.softmax(-1).tolist(), strict=True):
        every = dict(zip(adapted.labels, probabilities, strict=True))
        label = max(every, key=every.__getitem__)
        rows.append({"id": id_, "label": label, "probability": every[label], "probabilities": every})
    return rows


def pipeline_of(model: MetaModel) -> InputPipeline:
    """The model's pipeline; `UserError` where its tasks came from a generator."""
    if model.pipeline is None:
        raise UserError(
            f"The tasks of {model.path} come from a generator, so the model cannot read files. Use it from Python: "
            "MetaModel.from_pretrained(...).adapt(inputs, answers)."
        )
    return model.pipeline
