"""How well a version predicts, in full: scores with intervals, and which classes are taken for which."""

from collections.abc import Sequence
from typing import Any

from handful.errors import UserError
from handful.metrics import find_metric
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.serving.records import Scores, Version
from handful.serving.scoring import Judged, confusion, estimates, given, left_out
from handful.serving.states import States
from handful.serving.store import Store
from handful.serving.supports import labeled

METRICS = {"classification": ("accuracy",), "regression": ("rmse", "mae")}
"""What tasks of each kind are scored by."""


class Evaluator:
    """Scores versions of tasks; see `Service.evaluate`."""

    def __init__(self, store: Store, states: States) -> None:
        self._store, self._states = store, states

    def run(self, task: str, version: Version, inputs: Sequence[Any] | None, labels: Any, tenant: str) -> Scores:
        """The scores of a version on labeled inputs, or on its own examples without any."""
        model = self._states.model(version.model_digest)
        with collecting() as notes:
            if inputs is None:
                judged, by = self._on_its_own(task, version, model, tenant), "leave-one-out"
            else:
                judged, by = self._on_given(task, version, model, inputs, labels, tenant), "examples"
            kind = model.spec.kind
            found = estimates(judged, [find_metric(name, kind) for name in METRICS[kind]])
        matrix = None if version.labels is None else confusion(judged, len(version.labels))
        return Scores(task, version.number, by, len(judged.ids), found, version.labels, matrix, tuple(notes))

    def _on_given(
        self, task: str, version: Version, model: MetaModel, inputs: Sequence[Any], labels: Any, tenant: str
    ) -> Judged:
        new = labeled(model, inputs, labels, self._store.ids)
        key = tenant, task, version.number
        own = self._states.model_of(model.digest, key)
        return given(own, version, new, lambda tensor: self._states.predict(model.digest, [(key, tensor)])[0])

    def _on_its_own(self, task: str, version: Version, model: MetaModel, tenant: str) -> Judged:
        with self._store.reading(tenant) as rows:
            examples = rows.examples(task, version.number)
        if not examples:
            raise UserError("The task's examples are not kept. Give labeled inputs to evaluate on.")
        return left_out(model, examples)
