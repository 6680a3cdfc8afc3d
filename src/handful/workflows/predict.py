"""From an adapted task and the user's inputs to predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful.limits import LOCAL, Limits
from handful.models.meta_model import AdaptedTask, MetaModel
from handful.types import Categorical
from handful.workflows.adapt import pipeline_of
from handful.workflows.encoding import encoded_inputs


def predict_from_file(
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
    values, ids = encoded_inputs(pipeline, inputs, limits)
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
