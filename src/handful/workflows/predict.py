"""From an adapted task and the user's inputs to predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.engine.devices import device_named
from handful.limits import LOCAL, Limits
from handful.models.adapted_task import AdaptedTask
from handful.models.lookup import model_of
from handful.models.results import results
from handful.workflows.adapt import pipeline_of
from handful.workflows.encoding import encoded_inputs


def predict_from_file(
    task: Path,
    inputs: Path,
    model: Path | None = None,
    *,
    device: str = "cpu",
    trust: Sequence[str] = (),
    limits: Limits = LOCAL,
    options: DataOptions | None = None,
) -> list[dict[str, Any]]:
    """One row per input: its id, and the fields of its `Result`.

    model: the place of the meta-model, where it is not found by its digest. device: one of
    `handful.engine.devices.DEVICES`. trust: see `MetaModel.from_pretrained`.
    limits, options: of the file (see `DataOptions.for_file`).
    """
    adapted = AdaptedTask.load(task)
    meta = model_of(adapted, task, given=model, trust=trust).to(device_named(device))
    values, ids = encoded_inputs(pipeline_of(meta.for_task(adapted)), inputs, limits, options)
    found = results(adapted, meta.predict(adapted, values))
    return [{"id": id_} | result.to_json() for id_, result in zip(ids, found, strict=True)]
