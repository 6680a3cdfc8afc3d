"""Metrics that score predictions. A metric is a value of the registry `METRICS`; no code depends on its name.

Where classes differ in frequency, accuracy favors those that are frequent; balanced accuracy, macro F1 and AUC do not.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from handful.errors import DataError, UserError
from handful.limits import LOCAL
from handful.registry import METRICS
from handful.types import Categorical, Kind, Point, Prediction, check_shape

Unit: TypeAlias = Literal["share", "target", "nats", "cost"]
Score: TypeAlias = Callable[[Prediction, Tensor, Tensor], Tensor]

CLASSES: frozenset[Kind] = frozenset({"classification"})
VALUES: frozenset[Kind] = frozenset({"regression"})
DEFAULTS: dict[Kind, str] = {"classification": "accuracy", "regression": "rmse"}
"""The default metric for each kind of task."""


@dataclass(frozen=True)
class Metric:
    """A metric: scores the predictions for the queries of a task.

    name: as `--metric` takes it.
    title: as it reads in a sentence.
    kinds: of the tasks that it can score.
    higher_is_better: whether a larger score is a better one.
    unit: of a score. A share is from 0 to 1; the others are unbounded on the worse side.
    score: from stacked predictions, targets `(tasks, n)` or `(tasks, n, outputs)`, values in the user's units, and
        which queries count `(tasks, n)`: one score of each task, or of each target, `(tasks, 1 or outputs)`, in
        doubles. NaN where it is undefined, as an AUC with one class. A task with a prediction that is not finite has
        the worst score: 0 for a share, else an infinite one.
    root: whether scores are squares, whose means and intervals are shown as square roots.
    sentence: a phrase with `{score}` that follows the learner's name, such as "has an AUC of {score}".
    chance: the score of guessing, given the number of classes; None if undefined.

    Example:
        >>> METRICS["accuracy"].score(Categorical(torch.eye(2)[None]), torch.tensor([[0, 0]]), torch.ones(1, 2).bool())
        tensor([[0.5000]], dtype=torch.float64)
    """

    name: str
    title: str
    kinds: frozenset[Kind]
    higher_is_better: bool
    unit: Unit
    score: Score
    root: bool = False
    sentence: str = "scores {score}"
    chance: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.score, _FiniteOnly):
            object.__setattr__(self, "score", _FiniteOnly(self.score, self.worst))

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The smallest and largest possible score; None if unbounded."""
        return (0.0, 1.0) if self.unit == "share" else None

    @property
    def bounds_apart(self) -> tuple[float, float] | None:
        """The smallest and largest possible difference of two scores; None if unbounded."""
        return (-1.0, 1.0) if self.unit == "share" else None

    @property
    def sign(self) -> int:
        """The factor, 1 or -1, that makes larger scores better."""
        return 1 if self.higher_is_better else -1

    @property
    def worst(self) -> float:
        """The score of a task with a prediction that is not finite."""
        return 0.0 if self.unit == "share" else -self.sign * math.inf


@dataclass(frozen=True)
class _FiniteOnly:
    """A score function that gives the worst score to tasks with a non-finite prediction."""

    score: Score
    worst: float

    def __call__(self, predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
        finite = finite_tasks(predictions, mask)
        return self.score(predictions, targets, mask).double().where(finite.unsqueeze(-1), self.worst)


def finite_tasks(predictions: Prediction, mask: Tensor | None = None) -> Tensor:
    """Which of stacked tasks have only finite predictions `(tasks, n, ...)` among the queries that count.

    mask: which queries count `(tasks, n)`; None: all.
    """
    finite = torch.stack([leaf.isfinite().flatten(2).all(2) for leaf in predictions]).all(0)  # (tasks, n)
    return (finite if mask is None else finite | ~mask).all(1)


def find_metric(
    metric: Metric | str | None, kind: Kind, class_names: Sequence[str] | None = None, *, shared: bool = True
) -> Metric:
    """The metric of a name such as "auc" or "cost:FILE", for tasks of this kind; without one, that of `DEFAULTS`.

    class_names: by class number, if known.
    shared: whether class numbers mean the same in every task.

    Raises `UserError` for an unknown metric or one that cannot score such tasks, and `DataError` for a file of costs
    that does not fit.
    """
    name = metric if isinstance(metric, str) else DEFAULTS[kind]
    key, _, path = name.partition(":")
    found: Metric = metric if isinstance(metric, Metric) else METRICS[key]
    if path and found.score is not COST.score:
        raise UserError(f"The metric {key!r} does not take a file, got {path!r}.", field=("metric",))
    if kind not in found.kinds:
        known = ", ".join(name for name, one in METRICS.items() if kind in one.kinds)
        raise UserError(f"The metric {found.name!r} cannot score {kind}. Metrics that can: {known}.", field=("metric",))
    if found.score is not COST.score:
        return found
    if not path:
        raise UserError("The metric cost needs a file of costs, such as cost:costs.csv.", field=("metric",))
    if not shared:
        raise UserError(
            "Costs are given per class name, but the classes of these tasks differ from task to task.",
            field=("metric",),
        )
    return replace(found, name=name, score=partial(_cost, read_costs(Path(path), class_names)))


def recorded_metric(name: str) -> Metric:
    """The metric of this name in a report, to read its scores; it does not read a file of costs."""
    found: Metric = METRICS[name.partition(":")[0]]
    return found if found.score is not COST.score else replace(found, name=name)


def read_costs(path: Path, class_names: Sequence[str] | None = None) -> Tensor:
    """Costs `(classes, classes)` from a csv file, of a true class (row) and the one predicted for it (column).

    The first line and the first column hold the names of the classes.

    class_names: the order of the classes in the result; None: that of the first line.

    Raises `DataError` for any other file.
    """
    field = ("metric",)
    try:
        LOCAL.check(path, bytes=path.stat().st_size)
        with path.open(encoding="utf-8-sig", newline="") as file:
            (_, *columns), *lines = [[cell.strip() for cell in line] for line in csv.reader(file) if any(line)]
        rows = {line[0]: [float(cell) for cell in line[1:]] for line in lines}
    except OSError as error:
        raise DataError(f"The costs in {path} cannot be read: {error.strerror or error}.", field=field) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a table of numbers: {error}.", field=field) from error
    names = list(columns if class_names is None else class_names)
    if not (sorted(columns) == sorted(rows) == sorted(names) and len(rows) == len(lines)):
        raise DataError(
            f"{path} needs one line and one column for each class ({', '.join(map(repr, names))}), and has the lines "
            f"{', '.join(map(repr, rows))} and the columns {', '.join(map(repr, columns))}.",
            field=field,
        )
    if not all(len(row) == len(columns) and all(map(math.isfinite, row)) for row in rows.values()):
        raise DataError(f"{path} needs {len(columns)} finite costs in each line.", field=field)
    places = [columns.index(name) for name in names]
    return torch.tensor([[rows[name][place] for place in places] for name in names], dtype=torch.float64, device="cpu")


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The means of the values `(tasks, n)` or `(tasks, n, outputs)` that count: `(tasks, 1 or outputs)`; NaN if
    none."""
    columns = values.double().reshape(*mask.shape, -1)
    return columns.where(mask.unsqueeze(-1), 0.0).sum(1) / mask.sum(1, keepdim=True)


def _classes(predictions: Prediction, targets: Tensor) -> Categorical:
    """Predictions of classes for targets of their shape; else a `UserError`."""
    if not isinstance(predictions, Categorical):
        raise UserError("This metric scores predictions of classes, not of values.", field=("metric",))
    predictions.correct(targets)
    return predictions


def _means(predictions: Prediction, targets: Tensor) -> Tensor:
    """Predicted values of the shape of the targets, in doubles; else a `UserError`."""
    if isinstance(predictions, Categorical):
        raise UserError("This metric scores predictions of values, not of classes.", field=("metric",))
    check_shape("targets", targets, predictions.mean)
    return predictions.mean.double()


def _accuracy(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    return _mean(_classes(predictions, targets).correct(targets), mask)


def _confusion(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    """How many queries of each class (row) have each predicted class (column): `(tasks, way, way)`."""
    logits = _classes(predictions, targets).logits
    way = logits.shape[-1]
    true = (one_hot(targets, way) * mask.unsqueeze(-1)).double()
    return true.transpose(1, 2) @ one_hot(logits.argmax(-1), way).double()


def _balanced_accuracy(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    """The mean accuracy per class, over the classes among the queries."""
    confusion = _confusion(predictions, targets, mask)
    recall = confusion.diagonal(dim1=1, dim2=2) / confusion.sum(2)  # NaN for a class that is not there
    return recall.nanmean(1, keepdim=True)


def _macro_f1(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    """The mean of F1 over the classes that are among the queries or are predicted."""
    confusion = _confusion(predictions, targets, mask)
    f1 = 2 * confusion.diagonal(dim1=1, dim2=2) / (confusion.sum(1) + confusion.sum(2))
    return f1.nanmean(1, keepdim=True)


def _auc(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    """The area under the ROC curve: the mean over classes of each against the rest, where both are among the queries.

    How often a query of the class has a higher probability of it than one of the rest; equal ones count half.
    """
    logits = _classes(predictions, targets).logits.double()
    found = []
    for own, true, counts in zip(logits, targets, mask, strict=True):
        areas = [_area(own[counts], true[counts] == number, number) for number in range(logits.shape[-1])]
        found.append(torch.stack(areas).nanmean())
    return torch.stack(found).unsqueeze(1)


def _area(logits: Tensor, positive: Tensor, number: int) -> Tensor:
    others = [other for other in range(logits.shape[-1]) if other != number]
    if not others:
        return logits.new_tensor(math.nan)
    odds = logits[:, number] - logits[:, others].logsumexp(1)  # ordered as probabilities, without their rounding to 1
    rest = odds[~positive].sort().values
    own = odds[positive].contiguous()
    below = torch.searchsorted(rest, own) + torch.searchsorted(rest, own, right=True)
    return below.double().mean() / (2 * len(rest))  # NaN where one of the two is empty


def _log_likelihood(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    """The log-likelihood of the true class, or the log density of each true value; undefined without a variance."""
    if isinstance(predictions, Categorical):
        _classes(predictions, targets)
        found = predictions.logits.double().log_softmax(-1).gather(-1, targets.unsqueeze(-1))
        return _mean(found, mask)
    error = targets - _means(predictions, targets)
    if isinstance(predictions, Point):
        return torch.full_like(error[:, 0], math.nan)
    variance = predictions.variance.double()
    check_shape("variance", variance, error)
    return _mean(-0.5 * (error.square() / variance + variance.log() + math.log(2 * math.pi)), mask)


def _squared_error(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    return _mean((_means(predictions, targets) - targets).square(), mask)


def _absolute_error(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    return _mean((_means(predictions, targets) - targets).abs(), mask)


def _cost(costs: Tensor, predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    """The mean cost of the predicted classes, from a table `(classes, classes)` of true and predicted ones."""
    logits = _classes(predictions, targets).logits
    if logits.shape[-1] != len(costs):
        raise UserError(
            f"The costs are for {len(costs)} classes, but these tasks have {logits.shape[-1]}.", field=("metric",)
        )
    return _mean(costs.to(logits.device)[targets, logits.argmax(-1)], mask)


def _guessing(way: int) -> float:
    return 1 / way


def _coin(way: int) -> float:
    return 0.5


def _no_costs(predictions: Prediction, targets: Tensor, mask: Tensor) -> Tensor:
    raise UserError("The metric cost needs a file of costs, such as cost:costs.csv.", field=("metric",))


COST = Metric("cost", "cost", CLASSES, False, "cost", _no_costs, sentence="has a cost of {score} per prediction")
"""Needs a file: see `find_metric`."""

for _metric in (
    Metric(
        "accuracy",
        "accuracy",
        CLASSES,
        True,
        "share",
        _accuracy,
        sentence="has an accuracy of {score}",
        chance=_guessing,
    ),
    Metric(
        "balanced-accuracy",
        "balanced accuracy",
        CLASSES,
        True,
        "share",
        _balanced_accuracy,
        sentence="has a balanced accuracy of {score}",
        chance=_guessing,
    ),
    Metric("macro-f1", "macro F1", CLASSES, True, "share", _macro_f1, sentence="has a macro F1 of {score}"),
    Metric("auc", "AUC", CLASSES, True, "share", _auc, sentence="has an AUC of {score}", chance=_coin),
    Metric(
        "log-likelihood",
        "log-likelihood",
        CLASSES | VALUES,
        True,
        "nats",
        _log_likelihood,
        sentence="has a log-likelihood of {score}",
    ),
    Metric(
        "rmse",
        "RMSE",
        VALUES,
        False,
        "target",
        _squared_error,
        root=True,
        sentence="has an RMSE of {score}",
    ),
    Metric("mae", "MAE", VALUES, False, "target", _absolute_error, sentence="has an MAE of {score}"),
    COST,
):
    METRICS.register(_metric.name, _metric)
