"""Predictions in the user's terms, as shown by the command line, Python and the service."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from handful.types import Gaussian, Point, Prediction

DEVIATIONS = 1.959963984540054
"""Standard deviations around the mean of a normal distribution that contain 95 % of it."""

AT_ONCE = 10_000
"""Numbers that are converted to Python at once, which blocks other threads."""


@dataclass(frozen=True)
class Result:
    """The prediction for one input.

    label, probability: of the most probable class.
    probabilities: of all classes by name in the order of the task's labels, or of the top classes, most probable first.
    value: for regression, in the target's unit, or by name for several targets.
    deviation: standard deviation of such targets around the value, if the learner `predicts_deviation`.
    low, high: the interval of 95 % of them, likewise.
    """

    label: str | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] | None = None
    value: float | Mapping[str, float] | None = None
    deviation: float | Mapping[str, float] | None = None
    low: float | Mapping[str, float] | None = None
    high: float | Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Named(Protocol):
    """The names for the parts of a prediction: an adapted task, or a record of one.

    labels: class names by number; None for regression.
    targets: names of the predicted values.
    """

    @property
    def labels(self) -> tuple[str, ...] | None: ...  # noqa: D102

    @property
    def targets(self) -> tuple[str, ...]: ...  # noqa: D102


def results(task: Named, prediction: "Prediction", *, top: int | None = None) -> list[Result]:
    """One result for each of the n inputs of a prediction of `MetaModel.predict`.

    task: whose labels or target names are used.
    prediction: of n inputs, in the user's units.
    top: how many classes `probabilities` holds; None: all.
    """
    [found] = results_of_each([(task, prediction, top)])
    return found


def results_of_each(made: "Sequence[tuple[Named, Prediction, int | None]]") -> list[list[Result]]:
    """The `results` of several predictions, each with its task and `top`, in their order; one softmax for many."""
    import torch

    from handful.types import Categorical  # here: who only shows results, as a client, needs no torch

    logits: dict[object, list[Tensor]] = defaultdict(list)
    for _, prediction, _ in made:
        if isinstance(prediction, Categorical):
            logits[prediction.logits.shape[-1]].append(prediction.logits)
    rows = {way: _rows(torch.cat(own).softmax(-1)) for way, own in logits.items()}
    found = []
    for task, prediction, top in made:
        if isinstance(prediction, Categorical):
            assert task.labels is not None, "classes have names"
            own = islice(rows[prediction.logits.shape[-1]], prediction.logits.shape[0])
            found.append([_of_classes(task.labels, row, top) for row in own])
        else:
            found.append(_of_values(task.targets, prediction))
    return found


def _rows(numbers: "Tensor") -> Iterator[list[float]]:
    """Rows `(n, columns)` as lists."""
    import torch

    for part in torch.split(numbers, max(1, AT_ONCE // numbers.shape[1])):
        yield from part.tolist()


def _of_values(names: tuple[str, ...], prediction: "Point | Gaussian") -> list[Result]:
    from handful.types import Gaussian

    means = prediction.mean
    if not isinstance(prediction, Gaussian):
        return [Result(value=_value(names, row)) for row in means.tolist()]
    deviations = prediction.variance.sqrt()
    columns = means, deviations, means - DEVIATIONS * deviations, means + DEVIATIONS * deviations
    return [
        Result(
            value=_value(names, mean), deviation=_value(names, off), low=_value(names, low), high=_value(names, high)
        )
        for mean, off, low, high in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _of_classes(names: tuple[str, ...], row: list[float], top: int | None) -> Result:
    probabilities = dict(zip(names, row, strict=True))
    if top is None:
        best = row.index(max(row))
        return Result(names[best], row[best], probabilities)
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    return Result(*ranked[0], dict(ranked[:top]))


def _value(names: tuple[str, ...], values: list[float]) -> float | dict[str, float]:
    return values[0] if len(values) == 1 else dict(zip(names, values, strict=True))
