"""Whether stored states are what their examples give."""

from collections.abc import Sequence

import torch

from handful.errors import ArtifactError, HandfulError
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.serving.records import Example, Version
from handful.serving.rows import Rows
from handful.serving.states import digest_of
from handful.serving.supports import adapted
from handful.types import Categorical, Gaussian, Prediction

TOLERANCE = 1e-5
"""By how much a probability may differ, and a value or deviation relative to the largest value of its target."""


class Derivation:
    """Adapts versions anew, with the models that the store keeps.

    trust: see `MetaModel.from_bytes`.
    """

    def __init__(self, trust: Sequence[str] = ()) -> None:
        self._trust = trust
        self._models: dict[str, MetaModel] = {}

    def fault(self, rows: Rows, version: Version, state: bytes | None, examples: Sequence[Example]) -> str | None:
        """What is wrong with a version that has examples; None: nothing.

        state: None if it was dropped; then it only has to be possible to adapt it anew.
        """
        try:
            with collecting():  # the user has had these notes
                return self._fault(rows, version, state, examples)
        except HandfulError as error:
            return f"it cannot be adapted again ({error.code})"

    def _fault(self, rows: Rows, version: Version, state: bytes | None, examples: Sequence[Example]) -> str | None:
        model = self._model(rows, version.model_digest)
        made = adapted(model, examples)
        if made.labels != version.labels:
            return "its examples have other classes"
        if state is None or digest_of(made.to_bytes()) == version.digest:
            return None
        return _difference(model, AdaptedTask.from_bytes(state), adapted(model, examples, keep_support=True))

    def _model(self, rows: Rows, digest: str) -> MetaModel:
        if digest not in self._models:
            content = rows.model(digest)
            if content is None:
                raise ArtifactError(f"The store lacks the model {digest[:8]}.", code="missing-artifact")
            self._models[digest] = MetaModel.from_bytes(content, trust=self._trust, source=f"The model {digest[:8]}")
        return self._models[digest]


def _difference(model: MetaModel, stored: AdaptedTask, made: AdaptedTask) -> str | None:
    """How two states differ in what they predict for the examples."""
    if made.support is None:
        raise ArtifactError("The examples are lost.")
    inputs = made.support.inputs
    found = _distance(model.predict(stored, inputs), model.predict(made, inputs))
    return None if found <= TOLERANCE else f"adapted again, it gives other predictions, by {found:.1g}"


def _distance(one: Prediction, other: Prediction) -> float:
    if isinstance(one, Categorical) and isinstance(other, Categorical):
        return float((one.logits.softmax(-1) - other.logits.softmax(-1)).abs().max())
    if isinstance(one, Categorical) or isinstance(other, Categorical):
        return torch.inf
    scale = other.mean.abs().amax(0).clamp_min(torch.finfo(other.mean.dtype).tiny)
    distances = (one.mean - other.mean).abs() / scale
    if isinstance(one, Gaussian) and isinstance(other, Gaussian):
        distances = torch.maximum(distances, (one.variance.sqrt() - other.variance.sqrt()).abs() / scale)
    return float(distances.max())
