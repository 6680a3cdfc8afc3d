"""The protocol: a learner's scores on tasks of a distribution."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils import _pytree as pytree

from handful.engine.cost import query_bytes
from handful.engine.devices import wait_for
from handful.engine.evaluation_copy import evaluation_copy
from handful.engine.memory import enough_memory
from handful.engine.over_tasks import over_tasks, share_refusals
from handful.engine.plan import Plan
from handful.engine.planner import one_by_one, rule
from handful.errors import UserError
from handful.evaluation.intervals import ALPHA, SHARE, ClassInterval, Interval, apart, class_interval, interval
from handful.events import OnEvent, StepEvent, ignore
from handful.functional.own_settings import own_settings
from handful.functional.stateless import shared_copy
from handful.learners.learner import Learner
from handful.metrics import Metric, find_metric, finite_tasks
from handful.registry import BACKBONES, METRICS
from handful.tasks.distribution import Size, TaskDistribution
from handful.types import (
    Categorical,
    Examples,
    Gaussian,
    Point,
    Prediction,
    Task,
    TaskSpec,
    TaskState,
    check_shape,
    stack,
    to_device,
)

LARGE = 10_000
"""Input size from which features are computed once, and not again in each task: that of photos."""
EXAMPLES_AT_ONCE = 2000
"""How many examples are embedded in one go at most."""
FROZEN, TUNED = "frozen encoder", "tuned encoder"
"""What a baseline gets if an encoder is a part of the learner: vectors of the encoder as published, or as tuned."""
ENOUGH, LONG = 0.5, 5.0
"""Seconds after which the adaptation time is known, and after which a first, warm-up time suffices."""
BYTES_AT_ONCE = 2**27
"""Bytes that queries may take while they are predicted in one go."""

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Levels of the central intervals whose coverage is measured."""

OF_DRAWS = (
    "scores",
    "units",
    "diverged",
    "confidences",
    "correct",
    "log_likelihoods",
    "coverages",
    "oracle_scores",
    "oracle_log_likelihoods",
    "target_scores",
)
"""The tensors of an `Evaluation`, per draw or query."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one learner on tasks 0, 1, ... of one distribution.

    learner: its name.
    metric: the metric of the scores.
    scores: `(draws,)`. With several targets, the mean score of the standardized targets. NaN if the metric is
        undefined.
    units: `(draws,)` the task of each draw, over which intervals are made.
    diverged: `(draws,)` whether a prediction of the draw is not finite. Such a draw has the worst score: an accuracy
        of 0, which counts, or an infinite error, which is left out of the mean.
    way, shot, query_shot: as in `SizeRanges`.
    transductive: whether a query's prediction depends on the other queries.
    confidences: of every query but those of diverged draws, for the reliability plot; empty for regression.
    correct: whether the prediction of each of these queries is right.
    adapt_seconds: median seconds to adapt to one task alone.
    state_bytes: size of an adapted state.
    log_likelihoods: `(draws,)` mean log-likelihood of the true values over queries and outputs, in nats, of densities
        in units of the target; empty for classification and for predictions without a variance.
    coverages: `(draws, len(LEVELS))` the share of true values inside the central interval of each level; empty
        likewise.
    oracle_scores: `(draws,)` scores of the oracle (Bayes-optimal) prediction; empty if the source has none.
    oracle_log_likelihoods: `(draws,)` its log-likelihoods; empty likewise.
    target_scores: `(draws, outputs)` the score of each of several targets, in its own unit; empty for one target.
    target_names: their names.
    classes: the global class ids of each draw; empty if tasks are not drawn from classes.
    error_unit: see `TaskDistribution`.
    in_training: whether only the examples are new: the classes or tasks are too few to hold any out.
    ground: the network that a baseline stands on, where the ladder has several.
    uses_other_tasks: whether its predictions use other tasks, see `Learner`.

    Example:
        >>> import handful
        >>> tasks = handful.open_tasks("sine").with_sizes(shot=10, query_shot=20)
        >>> one, two = (
        ...     evaluate(handful.LEARNERS[name].build(tasks.spec), tasks, tasks=50) for name in ("neighbors", "dummy")
        ... )
        >>> one.gain_over(two).low > 0  # the paired 95 % interval over tasks excludes 0
        True
    """

    learner: str
    metric: Metric
    scores: Tensor
    units: Tensor
    diverged: Tensor
    way: Size | None
    shot: Size
    query_shot: Size | None
    transductive: bool
    confidences: Tensor
    correct: Tensor
    adapt_seconds: float
    state_bytes: int
    log_likelihoods: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))
    coverages: Tensor = field(default_factory=lambda: torch.zeros(0, len(LEVELS), device="cpu"))
    oracle_scores: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))
    oracle_log_likelihoods: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))
    target_scores: Tensor = field(default_factory=lambda: torch.zeros(0))
    target_names: tuple[str, ...] = ()
    classes: tuple[tuple[int, ...], ...] = ()
    error_unit: str = TaskDistribution.error_unit
    in_training: bool = False
    ground: str = ""
    uses_other_tasks: bool = True

    @property
    def name(self) -> str:
        """Its name among others: the learner, and its encoder."""
        return row_name(self.learner, self.ground)

    @property
    def score(self) -> Interval:
        """The mean score with its interval over tasks."""
        found = interval(self.scores, self.units, bounds=self.metric.bounds)
        return replace(found, diverged=int(self.diverged.sum()))

    @property
    def over_classes(self) -> ClassInterval | None:
        """The mean score with its interval for other classes; None if tasks are not drawn from classes."""
        return class_interval(self.scores, self.classes)

    @property
    def unscored(self) -> int:
        """The number of diverged draws left out of the mean score."""
        return int(self.scores.isinf().sum())

    @property
    def by_target(self) -> dict[str, Interval]:
        """The mean score of each of several targets, in its own unit, with its interval; empty for one."""
        if not len(self.target_scores):
            return {}
        columns = self.target_scores.unbind(-1)
        found = [interval(column, self.units, bounds=self.metric.bounds) for column in columns]
        return dict(zip(self.target_names, found, strict=True))

    @property
    def log_likelihood(self) -> Interval | None:
        """The mean log-likelihood with its interval over tasks; None for predictions without a variance."""
        return interval(self.log_likelihoods, self.units) if len(self.log_likelihoods) else None

    @property
    def coverage(self) -> dict[float, Interval]:
        """How often the central interval of each level holds the true value; empty without a variance."""
        columns = self.coverages.unbind(-1) if len(self.coverages) else ()
        found = [interval(column, self.units, bounds=SHARE) for column in columns]
        return dict(zip(LEVELS, found, strict=False))

    @property
    def error_gap(self) -> Interval | None:
        """By how much the score is worse than the oracle's; None if the source has no oracle."""
        if not len(self.oracle_scores):
            return None
        return interval(self.metric.sign * apart(self.oracle_scores, self.scores), self.units)

    @property
    def likelihood_gap(self) -> Interval | None:
        """By how much the log-likelihood is below the oracle's; None if one of the two is missing."""
        if not (len(self.log_likelihoods) and len(self.oracle_log_likelihoods)):
            return None
        return interval(apart(self.oracle_log_likelihoods, self.log_likelihoods), self.units)

    def gain_over(self, other: "Evaluation", *, alpha: float = ALPHA) -> Interval:
        """By how much this learner is better (positive) than `other` on the tasks that both were scored on.

        Draws left out of the score of either are left out here; `behind` counts whose they are.

        alpha: see `interval`.
        """
        count = min(len(self.scores), len(other.scores))
        ahead = self.metric.sign * apart(self.scores[:count], other.scores[:count])
        return interval(ahead, self.units[:count], bounds=self.metric.bounds_apart, alpha=alpha)

    def means_with(self, other: "Evaluation") -> tuple[float, float]:
        """The mean scores of this learner and of `other` on the draws that count for both."""
        count = min(len(self.scores), len(other.scores))
        both = self.scores[:count].isfinite() & other.scores[:count].isfinite()
        units = self.units[:count][both]
        one, two = (interval(scores[:count][both], units).mean for scores in (self.scores, other.scores))
        return one, two

    def followed_by(self, more: "Evaluation") -> "Evaluation":
        """The scores of these tasks and of those that come next."""
        joined: dict[str, Any] = {name: torch.cat([getattr(self, name), getattr(more, name)]) for name in OF_DRAWS}
        return replace(self, classes=self.classes + more.classes, **joined)

    def behind(self, other: "Evaluation") -> int:
        """How many more draws than of `other` are left out of this learner's score, of those that both have.

        The one with more of them ranks behind, regardless of the other scores.
        """
        count = min(len(self.scores), len(other.scores))
        return int(self.scores[:count].isinf().sum()) - int(other.scores[:count].isinf().sum())


@own_settings()
def evaluate(
    learner: Learner,
    distribution: TaskDistribution,
    *,
    tasks: int = 600,
    metric: Metric | str | None = None,
    shot: int | None = None,
    on_event: OnEvent = ignore,
    features: TaskDistribution | None = None,
    first: int = 0,
    measured: tuple[float, TaskState] | None = None,
) -> Evaluation:
    """Adapt to each of the first `tasks` tasks of the distribution's present split and score the queries.

    learner: a copy of it is used, in evaluation mode, and it stays as it is.
    distribution: the tasks; choose their split and sizes before.
    tasks: the number of tasks, 1 or more.
    metric: a metric or its name; None: that of the distribution, see `find_metric`.
    shot: adapt to the first `shot` support examples only (of each class, if tasks have a way): the same queries, with
        fewer examples to learn from. None: all of them.
    on_event: called with a `StepEvent` at the beginning and after each batch of tasks.
    features: the same tasks mapped by the learner's network; None: computed here if that saves time.
    first: the number of the first task, if those before it are already scored.
    measured: what `cost` returned for this learner and these tasks; None: measured here.

    Raises `UserError` if the learner does not support these tasks, or if they have fewer examples than `shot`.

    Example:
        >>> import handful
        >>> tasks = handful.open_tasks("sine").with_sizes(shot=5, query_shot=20)
        >>> learner = handful.LEARNERS["r2d2"].build(tasks.spec, seed=0)  # not trained
        >>> found = evaluate(learner, tasks.split("test"), tasks=20)
        >>> found.metric.name, found.score.tasks, found.score.low < found.score.mean < found.score.high
        ('rmse', 20, True)
    """
    check_number(tasks)
    if shot is not None:
        _check_part(distribution, shot)
    check_tasks(learner, distribution)
    metric = metric_of(distribution, metric)
    scores = torch.zeros(tasks, dtype=torch.float64, device="cpu")
    diverged = torch.zeros(tasks, dtype=torch.bool, device="cpu")
    confidences: list[Tensor] = []
    correct: list[Tensor] = []
    more: dict[str, list[Tensor]] = defaultdict(list)
    order: list[int] = []
    short = enough_memory(f"evaluating {learner.key!r}", "Lower {way}, {shot} or {query_shot}.")
    learner = evaluation_copy(learner)
    with torch.no_grad(), short:
        seconds, state = measured or _cost(learner, distribution, tasks, shot)
        size = sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor))
        whole = learner
        learner, distribution = on_features(learner, distribution, features)
        most = _queries_at_once(learner, state, distribution.task(0).query.inputs)
        stacked = min(EXAMPLES_AT_ONCE, most) if rule(learner, 1).backend == "vmap" else EXAMPLES_AT_ONCE
        # Where each example is encoded once, for all tasks, the time of one task alone foretells nothing.
        on_event(StepEvent(learner.key, 0, tasks, seconds=seconds * tasks if learner is whole else None))
        for numbers, drawn, spec in batches(distribution, range(first, first + tasks), stacked):
            indices = [number - first for number in numbers]
            batch = drawn if shot is None else Task(_first(drawn.support, shot, distribution), drawn.query)
            predictions = predict_tasks(learner, batch, spec, rule(learner, len(indices)), most=most)
            found = target_scores_of(predictions, batch.query.targets, metric, distribution)
            scores[indices] = scores_of(predictions, batch.query.targets, metric, distribution)
            finite = finite_tasks(predictions) & ~scores[indices].isinf()
            diverged[indices] = ~finite
            if found.shape[1] > 1:
                more["target_scores"].append(found)
            if isinstance(predictions, Categorical):
                confidence, predicted = predictions.logits[finite].softmax(-1).max(-1)
                confidences.append(confidence.flatten())
                correct.append((predicted == batch.query.targets[finite]).flatten())
            known = numbers if shot is None else []  # the best prediction is known for the whole support
            for name, values in _of_regression(predictions, batch.query.targets, metric, distribution, known).items():
                more[name].append(values)
            order += indices
            on_event(StepEvent(learner.key, len(order), tasks))
    places = torch.tensor(order, device="cpu").argsort()
    of_draws: dict[str, Any] = {name: torch.cat(parts)[places] for name, parts in more.items()}
    sizes = distribution.sizes
    return Evaluation(
        learner=learner.key,
        metric=metric,
        scores=scores,
        units=torch.tensor([distribution.unit(index) for index in range(first, first + tasks)], device="cpu"),
        diverged=diverged,
        way=sizes.way,
        shot=sizes.shot if shot is None else shot,
        query_shot=sizes.query_shot,
        transductive=not learner.pointwise,
        confidences=torch.cat(confidences) if confidences else torch.zeros(0, device="cpu"),
        correct=torch.cat(correct) if correct else torch.zeros(0, dtype=torch.bool, device="cpu"),
        adapt_seconds=seconds,
        state_bytes=size,
        # Where the user's tasks run out, it is their number that limits what is known, and not that of classes.
        error_unit=distribution.error_unit,
        in_training=distribution.split_name in distribution.aside,
        uses_other_tasks=learner.uses_other_tasks,
        target_names=target_names(distribution),
        classes=tuple(
            () if distribution.units else distribution.manifest(index).classes for index in range(first, first + tasks)
        ),
        **of_draws,
    )


def row_name(learner: str, ground: str) -> str:
    """The name of a row: the key of a learner, and its encoder."""
    return f"{learner}, {ground}" if ground else learner


def predict_tasks(learner: Learner, batch: Task, spec: TaskSpec, plan: Plan, *, most: int | None = None) -> Any:
    """Predictions for the queries of stacked tasks, each adapted to its own support.

    Tasks are moved to the learner's device, and predictions back to the CPU.

    most: queries of a task to predict at once, if the learner is pointwise.
    """

    def one(task: Task) -> Prediction:
        state, inputs = learner.adapt(task.support, spec), task.query.inputs
        if most is None or len(inputs) <= most or not learner.pointwise:
            return learner.predict(state, inputs)
        parts = [learner.predict(state, part) for part in torch.split(inputs, most)]
        return pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)  # type: ignore[no-any-return]

    return to_device(over_tasks(one, (to_device(batch, learner.device),), plan, learner), "cpu")


@own_settings()
def predictions_of(
    learner: Learner, distribution: TaskDistribution, tasks: int
) -> list[tuple[list[int], Prediction, Tensor]]:
    """What a learner predicts for the queries of the first tasks, in the same batches whatever the learner.

    Returns of each batch the numbers of its tasks, the predictions `(tasks, n, ...)` and the targets.
    """
    learner, first = evaluation_copy(learner), distribution.task(0)
    short = enough_memory(f"predicting with {learner.key!r}", "Lower {way}, {shot} or {query_shot}.")
    with torch.no_grad(), short:
        state = learner.adapt(to_device(first.support, learner.device), distribution.spec_of(0))
        learner, distribution = on_features(learner, distribution)
        most = _queries_at_once(learner, state, distribution.task(0).query.inputs)
        return [
            (numbers, predict_tasks(learner, drawn, spec, rule(learner, len(numbers)), most=most), drawn.query.targets)
            for numbers, drawn, spec in batches(distribution, range(tasks))
        ]


def check_number(tasks: int) -> None:
    """Raise `UserError` for fewer than 1 task to score."""
    if tasks < 1:
        raise UserError(f"An evaluation needs at least 1 task, got {tasks}.")


def check_fits(learner: Learner, spec: TaskSpec) -> None:
    """Raise `UserError` if a trained learner does not support tasks of this spec."""
    own: TaskSpec = learner.recipe["spec"]
    if spec.kind != own.kind:
        raise UserError(f"The learner was made for {own.kind}, but these tasks are {spec.kind}.")
    if spec.input_shape != own.input_shape:
        raise UserError(
            f"The learner takes inputs of shape {own.input_shape}, but these tasks have {spec.input_shape}.",
            code="wrong-shape",
        )
    if spec.outputs != own.outputs and not (learner.any_way and spec.classification):
        what = "classes" if spec.classification else "target values"
        raise UserError(
            f"The learner {learner.key!r} was made for {own.outputs} {what} only, but these tasks have {spec.outputs}."
        )


def check_tasks(learner: Learner, distribution: TaskDistribution) -> None:
    """Raise `UserError` if a learner does not support these tasks: by their spec, the type of their inputs, or token
    ids beyond its network's vocabulary."""
    spec, support = distribution.spec, distribution.task(0).support
    check_fits(learner, spec)
    learner.check_type(support.inputs)
    if any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in learner.modules()):
        try:
            with torch.no_grad():
                evaluation_copy(learner).backbone(to_device(support.inputs, learner.device))
        except IndexError as error:
            raise UserError(
                f"The network looks up token ids beyond its vocabulary ({error}). Numbers of arrays are standardized.",
                hint="If they are token ids, keep them unchanged with {inputs}.",
            ) from error


def batches(
    distribution: TaskDistribution, indices: Sequence[int], most: int = EXAMPLES_AT_ONCE
) -> Iterator[tuple[list[int], Task, TaskSpec]]:
    """Stacked tasks of equal shapes and spec, with their indices; of at most so many examples, or one task."""
    first = distribution.task(indices[0])
    examples = len(first.support.inputs) + len(first.query.inputs)
    size = max(1, most // examples)
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        groups: dict[Any, list[int]] = defaultdict(list)
        if not distribution.ragged:
            for index in part:
                groups[distribution.sizes_of(index)].append(index)
            for members in groups.values():
                yield members, distribution.batch(members), distribution.spec_of(members[0])
            continue
        drawn = {index: distribution.task(index) for index in part}
        for index, task in drawn.items():
            groups[tuple(leaf.shape for leaf in pytree.tree_leaves(task))].append(index)
        for members in groups.values():
            yield members, stack([drawn[index] for index in members]), distribution.spec_of(members[0])


def metric_of(distribution: TaskDistribution, metric: Metric | str | None = None) -> Metric:
    """The metric of this name, by default that of the kind of tasks; see `find_metric`."""
    spec, pipeline = distribution.spec, distribution.pipeline
    return find_metric(metric, spec.kind, pipeline.labels if pipeline else None, shared=spec.labels == "shared")


def target_names(distribution: TaskDistribution) -> tuple[str, ...]:
    """The names of the targets of a regression, if it has several."""
    spec, pipeline = distribution.spec, distribution.pipeline
    if spec.classification or spec.outputs == 1:
        return ()
    named = pipeline.targets if pipeline else ()
    return named if len(named) == spec.outputs else tuple(f"target {place + 1}" for place in range(spec.outputs))


def target_scores_of(
    predictions: Prediction, targets: Tensor, metric: Metric, distribution: TaskDistribution
) -> Tensor:
    """The scores `(tasks, 1 or outputs)` of stacked tasks, each in its target's own unit.

    predictions, targets: `(tasks, n, ...)` on the learner's scale.
    """
    mask = torch.ones(targets.shape[:2], dtype=torch.bool, device=targets.device)
    if isinstance(predictions, Categorical):
        return metric.score(predictions, targets, mask)
    mean, scale = distribution.target_mean, distribution.target_scale
    values = Point(predictions.mean.double() * scale + mean)
    own: Prediction = values
    if isinstance(predictions, Gaussian):
        own = Gaussian(values.mean, predictions.variance.double() * scale.square())
    return metric.score(own, targets.double() * scale + mean, mask)


def scores_of(predictions: Prediction, targets: Tensor, metric: Metric, distribution: TaskDistribution) -> Tensor:
    """One score per stacked task in doubles `(tasks,)`; see `Evaluation.scores`."""
    several = not isinstance(predictions, Categorical) and predictions.mean.shape[-1] > 1
    if not several or metric.unit != "target":
        return target_scores_of(predictions, targets, metric, distribution).mean(1)
    mask = torch.ones(targets.shape[:2], dtype=torch.bool, device=targets.device)
    return metric.score(predictions, targets, mask).mean(1)


def _of_regression(
    predictions: Any, targets: Tensor, metric: Metric, distribution: TaskDistribution, indices: Sequence[int]
) -> dict[str, Tensor]:
    """The tensors of `Evaluation` for stacked tasks beside the scores, by name, as far as they exist."""
    more = {}
    if isinstance(predictions, Gaussian):
        more["log_likelihoods"] = _log_likelihoods(predictions, targets, distribution)
        more["coverages"] = _coverages(predictions, targets)
    known = [oracle for index in indices if (oracle := distribution.oracle(index)) is not None]
    if known:
        oracles = stack(known)
        more["oracle_scores"] = scores_of(oracles, targets, metric, distribution)
        more["oracle_log_likelihoods"] = _log_likelihoods(oracles, targets, distribution)
    return more


def _log_likelihoods(predictions: Gaussian, targets: Tensor, distribution: TaskDistribution) -> Tensor:
    """One for each stacked task, minus infinity where it diverged; a density in wider units is lower."""
    return target_scores_of(predictions, targets, METRICS["log-likelihood"], distribution).mean(1)


def _coverages(predictions: Gaussian, targets: Tensor) -> Tensor:
    """The share of true values inside the central interval of each level `(tasks, len(LEVELS))`."""
    check_shape("targets", targets, predictions.mean)
    # The level of the smallest central interval that holds the value.
    needed = torch.erf((targets - predictions.mean).abs() / (2 * predictions.variance).sqrt()).double().flatten(1)
    return (needed.unsqueeze(-1) <= needed.new_tensor(LEVELS)).double().mean(1)


def _check_part(distribution: TaskDistribution, shot: int) -> None:
    """Raise `UserError` unless the first `shot` examples of every support are a support of their own."""
    whole = distribution.sizes.shot
    least = whole[0] if isinstance(whole, tuple) else whole
    if not 1 <= shot <= least:
        raise UserError(f"A part of these supports has 1 to {least} examples, got shot={shot}. Draw larger supports.")
    if not distribution.nested:
        raise UserError(
            f"The examples of a support are standardized by the whole support, so a part of them depends on the "
            f"others. Draw supports of that size: tasks.with_sizes(shot={shot})."
        )


def _first(support: Examples, shot: int, distribution: TaskDistribution) -> Examples:
    """The first examples of a support, or of stacked ones; of each class, if tasks have a way."""
    inputs, targets = support
    place = inputs.dim() - len(distribution.spec.input_shape) - 1  # of the examples
    if distribution.sizes.way is None:
        return Examples(inputs.narrow(place, 0, shot), targets.narrow(place, 0, shot))
    counts = one_hot(targets).cumsum(place)
    kept = counts.gather(-1, targets.unsqueeze(-1)).squeeze(-1) <= shot
    shape = targets.shape[:place]
    return Examples(inputs[kept].reshape(*shape, -1, *inputs.shape[place + 1 :]), targets[kept].reshape(*shape, -1))


def on_features(
    learner: Learner, distribution: TaskDistribution, features: TaskDistribution | None = None
) -> tuple[Learner, TaskDistribution]:
    """An equivalent learner and tasks for which a large network processes each example once, not again in each task.

    features: see `evaluate`.
    """
    if not works_on_features(learner):
        return learner, distribution
    mapped = distribution.mapped(learner.feature_network) if features is None else features
    if mapped is None:
        return learner, distribution
    return head_of(learner, mapped.spec.input_shape), mapped


def works_on_features(learner: Learner) -> bool:
    """Whether its network or inputs are so large that features of each example should be computed once, and can be."""
    if not (learner.features_only and learner.pointwise):
        return False
    return one_by_one(learner.backbone) or math.prod(learner.recipe["spec"].input_shape) >= LARGE


def head_of(learner: Learner, shape: tuple[int, ...]) -> Learner:
    """The learner on features of this shape in place of inputs; with its tensors."""
    head = shared_copy(learner)
    head.backbone = BACKBONES["raw"](shape)
    spec = replace(learner.recipe["spec"], input_shape=shape)
    head.recipe = learner.recipe | {"spec": spec, "backbone": "raw", "backbone_options": {}}
    share_refusals(learner, head)
    return head


def _cost(learner: Learner, distribution: TaskDistribution, tasks: int, shot: int | None) -> tuple[float, TaskState]:
    """Median seconds to adapt to one task alone, and a state."""
    seconds = []
    state: Any = None
    for index in range(4):  # the first one warms up
        task, spec = distribution.task(index % tasks), distribution.spec_of(index % tasks)
        support = task.support if shot is None else _first(task.support, shot, distribution)
        start = time.perf_counter()
        state = learner.adapt(to_device(support, learner.device), spec)
        wait_for(learner.device)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > (ENOUGH if len(seconds) > 1 else LONG):
            break
    seconds = seconds[1:] or seconds
    return sorted(seconds)[len(seconds) // 2], state


def cost(learner: Learner, distribution: TaskDistribution) -> tuple[float, TaskState]:
    """Seconds to adapt to the first task alone, in one try, and its state; see `evaluate`."""
    task = distribution.task(0)
    with torch.no_grad():
        start = time.perf_counter()
        state = evaluation_copy(learner).adapt(to_device(task.support, learner.device), distribution.spec_of(0))
        wait_for(learner.device)
        return time.perf_counter() - start, state


def _queries_at_once(learner: Learner, state: TaskState, inputs: Tensor) -> int:
    """How many queries like these may be predicted in one go."""
    shapes = tuple(leaf.shape for leaf in pytree.tree_leaves(state))
    each = query_bytes(learner, shapes, partial(learner.predict, state), inputs.to(learner.device))
    return max(1, BYTES_AT_ONCE // max(1, each))
