"""Predictions in the user's words: what the command line, Python and a service all show."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from handful.models.adapted_task import AdaptedTask
from handful.types import Categorical, Gaussian, Prediction

DEVIATIONS = 1.959963984540054
"""Of a normal distribution, within which 95 % of it lie."""


@dataclass(frozen=True)
class Result:
    """The prediction for one input.

    label, probability: of the most probable class. probabilities: of all classes by name, in the order of the task's
    labels, or of some, the most probable first.
    value: of a regression, in the target's unit, or by name where there are several. low, high: between which 95 % of
    such targets are expected, where the learner predicts a distribution.
    """

    label: str | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] | None = None
    value: float | Mapping[str, float] | None = None
    low: float | Mapping[str, float] | None = None
    high: float | Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def results(task: AdaptedTask, prediction: Prediction, *, top: int | None = None) -> list[Result]:
    """One result for each of the n inputs of a prediction of `MetaModel.predict`.

    task: whose labels or target names are used.
    prediction: of n inputs, in the user's units.
    top: how many classes `probabilities` holds; None: all.
    """
    if isinstance(prediction, Categorical):
        assert task.labels is not None, "classes have names"
        return [
            _of_classes(dict(zip(task.labels, row, strict=True)), top) for row in prediction.logits.softmax(-1).tolist()
        ]
    names, low, high = task.targets, None, None
    if isinstance(prediction, Gaussian):
        half = DEVIATIONS * prediction.variance.sqrt()
        low, high = prediction.mean - half, prediction.mean + half
    return [
        Result(value=_value(names, row), low=_row(names, low, number), high=_row(names, high, number))
        for number, row in enumerate(prediction.mean.tolist())
    ]


def _of_classes(probabilities: dict[str, float], top: int | None) -> Result:
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    label, probability = ranked[0]
    return Result(label, probability, probabilities if top is None else dict(ranked[:top]))


def _row(names: tuple[str, ...], values: Tensor | None, number: int) -> float | dict[str, float] | None:
    return None if values is None else _value(names, values[number].tolist())


def _value(names: tuple[str, ...], values: list[float]) -> float | dict[str, float]:
    return values[0] if len(values) == 1 else dict(zip(names, values, strict=True))
