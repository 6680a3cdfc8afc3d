"""How well versions predict labeled examples: given ones, or their own, each adapted to without itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from handful.errors import DataError, DivergedError, HandfulError
from handful.evaluation.formatting import rooted
from handful.evaluation.intervals import Interval, interval
from handful.evaluation.leave_one_out import kin, predict_left_out
from handful.functional.own_settings import own_settings
from handful.metrics import Metric, find_metric, finite_tasks
from handful.models.class_numbers import LabelReader
from handful.models.meta_model import MetaModel
from handful.models.own_scores import obstacle, scorable
from handful.notes import note
from handful.serving.records import Estimate, Example, Version
from handful.serving.supports import adapted, stacked, targets_of
from handful.types import Examples, Prediction

MOST = 100
"""So often at most a task is adapted for one score: with more examples, several are left out at a time."""


def cost_of_score(examples: int) -> int:
    """How many examples are adapted to, in all, to score a task of so many without each of them."""
    return min(examples, MOST) * examples


@dataclass(frozen=True)
class Judged:
    """Predictions of labeled examples `(n, ...)`, in the user's units.

    ids: of the examples.
    targets: numbers of their classes `(n,)` or values `(n, outputs)`.
    alike: `(n,)` numbers, the same of examples whose inputs are equal.
    scale: `(outputs,)` standard deviations of values.
    names: of the values, if several.
    """

    ids: tuple[str, ...]
    predictions: Prediction
    targets: Tensor
    alike: Tensor
    scale: Tensor | None
    names: tuple[str, ...] = ()

    def scores(self, metric: Metric) -> Tensor:
        """The score of each example `(n, 1 or outputs)`."""
        every = torch.ones(len(self.targets), 1, dtype=torch.bool, device="cpu")
        return metric.score(self._single, self.targets.unsqueeze(1), every)

    def overall(self, metric: Metric) -> Tensor:
        """One score of each example `(n,)`: those of several values in their standard deviations."""
        scores = self.scores(metric)
        if scores.shape[1] > 1 and self.scale is not None:
            scores = scores / (self.scale.square() if metric.root else self.scale)
        return scores.mean(1)

    @property
    def diverged(self) -> int:
        """How many predictions are not finite."""
        return int((~finite_tasks(self._single)).sum())

    @property
    def _single(self) -> Prediction:
        """Each by itself `(n, 1, ...)`."""
        return type(self.predictions)(*(leaf.unsqueeze(1) for leaf in self.predictions))


def left_out(model: MetaModel, examples: Sequence[Example]) -> Judged:
    """Examples predicted by the task adapted without each, and without those of equal inputs.

    Raises `DataError` if that cannot be: what is left would be no task, or the model was not made for it.
    """
    if reason := obstacle(model.pipeline, grouped=False):
        raise DataError(reason)
    if model.learner.costly:
        raise DataError(f"Adapting a {model.learner.key} model is too slow for a leave-one-out score.")
    task = adapted(model, examples, keep_support=True)
    assert task.support is not None, "it is kept"
    assert task.manifest is not None, "it is kept"
    inputs, targets = task.support
    with own_settings():
        alike = kin(inputs, None)
        groups = (alike % MOST).unsqueeze(0)
        if not scorable(groups, targets.unsqueeze(0), task.spec):
            raise DataError(
                "A leave-one-out score needs three different examples, and two of each class. Add examples, or give "
                "others to evaluate on.",
                code="too-few-examples",
            )
        model = model.for_task(task)
        seen = LabelReader(model.learner, model.pipeline).scaled([], targets.unsqueeze(0), inputs.dtype)
        support = Examples(inputs.unsqueeze(0), seen)
        found = predict_left_out(model.learner, support, task.spec, groups)
        predictions = model.in_units(type(found)(*(leaf[0] for leaf in found)))
    return Judged(task.manifest, predictions, targets, alike, _scale(model), task.targets)


def given(
    model: MetaModel,
    version: Version,
    examples: Sequence[Example],
    predict: Callable[[Tensor], Prediction | HandfulError],
) -> Judged:
    """Examples predicted by a version.

    model: with the version's own pipeline, if it has one.

    Raises `DataError` for a label that the version does not have, and errors that `predict` returns in place of a
    prediction.
    """
    inputs = stacked(model, examples)
    targets = targets_of(examples, version.labels)
    predictions = predict(inputs)
    if isinstance(predictions, HandfulError):
        raise predictions
    ids = tuple(example.id for example in examples)
    return Judged(ids, predictions, targets, kin(inputs, None), _scale(model), version.targets)


def estimates(judged: Judged, metrics: Sequence[Metric]) -> tuple[Estimate, ...]:
    """The score by each metric; of several values also of each, in its own unit.

    Raises `DivergedError` if no prediction is finite.
    """
    found = []
    for metric in metrics:
        found.append(_estimate(metric, interval(judged.overall(metric), judged.alike, bounds=metric.bounds)))
        if len(judged.names) > 1:
            for name, column in zip(judged.names, judged.scores(metric).unbind(1), strict=True):
                found.append(_estimate(metric, interval(column, judged.alike), name))
    return tuple(found)


def own_estimate(model: MetaModel, examples: Sequence[Example]) -> Estimate | None:
    """What a task's own examples say of its score; None, with a note, where they say nothing."""
    try:
        return estimates(left_out(model, examples), [find_metric(None, model.spec.kind)])[0]
    except (DataError, DivergedError) as error:
        note("no-estimate", error.message)
        return None


def confusion(judged: Judged, way: int) -> tuple[tuple[int, ...], ...]:
    """How many examples of each class (row) are predicted as each (column)."""
    logits: Any = judged.predictions[0]
    places = judged.targets * way + logits.argmax(-1)
    counts = torch.bincount(places, minlength=way * way).reshape(way, way)
    return tuple(map(tuple, counts.tolist()))


def surely_worse(after: Judged, before: Judged, metric: Metric) -> bool:
    """Whether a score of the same examples, by their ids, is below another one by more than chance.

    Several values are compared in the standard deviations that they had before: each model has its own.
    """
    if after.diverged > before.diverged:
        return True
    after = replace(after, scale=before.scale)
    order = {id_: place for place, id_ in enumerate(before.ids)}
    places = [order[id_] for id_ in after.ids]
    gained = metric.sign * (after.overall(metric) - before.overall(metric)[places])
    return interval(gained, after.alike, bounds=metric.bounds_apart).high < 0


def _estimate(metric: Metric, found: Interval, target: str | None = None) -> Estimate:
    if not torch.tensor(found.mean, device="cpu").isfinite():
        raise DivergedError("No prediction of an example is finite, so the score is undefined.")
    shown = rooted(found, metric)
    least, most = metric.bounds or (float("-inf"), float("inf"))
    low, high = max(shown.low, least), min(shown.high, most)
    return Estimate(metric.name, shown.mean, _finite(low), _finite(high), target)


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _scale(model: MetaModel) -> Tensor | None:
    if model.spec.classification or model.pipeline is None:
        return None
    return model.pipeline.target_scale.double()
