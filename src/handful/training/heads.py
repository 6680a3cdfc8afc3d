"""Heads on a pre-trained network, chosen on classes of the validation split."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from handful.evaluation.formatting import duration
from handful.evaluation.intervals import ClassInterval, class_interval
from handful.evaluation.scoring import Evaluation, cost, evaluate
from handful.events import OnEvent, ignore
from handful.functional.stateless import own_copy
from handful.learners.learner import Learner
from handful.learners.pretrained_blocks import PASSES, PretrainedBlocks
from handful.learners.transfer import FineTuneAll
from handful.metrics import Metric
from handful.tasks.distribution import TaskDistribution
from handful.types import Categorical, TaskState, to_device

TASKS, FEWEST_TASKS, TRIES = 200, 10, 3
"""Validation tasks on which heads are compared, at the most and at the least, and how often adapting is timed."""
RIDGE: tuple[str, dict[str, Any]] = ("ridge", {"ridge": True})
VIEWS: dict[int, tuple[str, dict[str, Any]]] = {
    1: ("affine views", {"views": "affine"}),
    3: ("mirrored views", {"views": "mirrored"}),
}
"""Options to try; views by the channels of images. The mirror image of a letter (gray) is another letter; rotated and
shifted photos were classified worse (by 1 to 3 points on validation photos, six of six times)."""
RATES = (0.001, 0.0003)
"""Inner rates that fine-tuning is tried with."""
START = 10.0
"""Start of the search for each temperature."""


@dataclass(frozen=True)
class TriedOption:
    """One option that was tried.

    name: of the option.
    score: its mean score.
    gain: in the score, with its interval over classes; None if these validation tasks have too few classes for one.
    kept: whether it is switched on.
    """

    name: str
    score: float
    gain: ClassInterval | None
    kept: bool

    def __str__(self) -> str:
        verdict = "kept" if self.kept else "left out"
        if self.gain is None:
            return f"{self.name}: {verdict}, too few validation classes to measure its gain"
        return f"{self.name}: {verdict}, gain {self.gain.mean:+.4f} ({self.gain.low:+.4f} to {self.gain.high:+.4f})"


@dataclass(frozen=True)
class Decided:
    """The best head on validation classes.

    learner: a copy with it.
    trials: all that were tried, in order.
    evaluation: of this learner on these tasks.
    """

    learner: Learner
    trials: tuple[TriedOption, ...]
    evaluation: Evaluation


class FineTuning(NamedTuple):
    """How fine-tuning the network in each task is tried.

    seconds: adaptation time of a task.
    tasks: the number of validation tasks.
    """

    seconds: float
    tasks: int


def decided(
    learner: PretrainedBlocks,
    validation: TaskDistribution,
    *,
    fine_tuning: FineTuning | None = None,
    tasks: int = TASKS,
    metric: Metric | None = None,
    on_event: OnEvent = ignore,
) -> Decided:
    """Ridge regression, test-time views and fine-tuning, each if it is significantly better on validation classes.

    "Significantly": the paired 95 % interval over the *classes* of these tasks is above zero; if every task has all of
    the classes, other classes cannot be estimated, and nothing is switched on. Then the temperatures are fitted, or
    the sharpness of a fine-tuned network.

    learner: pre-trained; it is not changed.
    validation: tasks of classes that it was not trained on, in the sizes for evaluation.
    fine_tuning: of the whole network in each task; None: it is not tried.
    tasks: how many of them.
    metric: by which they are compared; None: the default of such tasks.
    """
    seen = _Validation(validation, tasks, metric, on_event)
    best = seen.calibrated(learner.twin(PretrainedBlocks, **learner.recipe["options"]))
    kept = seen.scored(best)
    trials = []
    for name, options in _switches(learner.recipe["spec"].input_shape):
        switched = seen.calibrated(best.twin(PretrainedBlocks, **best.recipe["options"] | options))
        found = seen.scored(switched)
        trials.append(_trial(name, found, kept))
        if trials[-1].kept:
            best, kept = switched, found
    if fine_tuning is not None:
        rungs = [_sharpened(best.twin(FineTuneAll, inner_lr=rate), validation) for rate in RATES]
        scores = [evaluate(one, validation, tasks=fine_tuning.tasks, metric=metric, on_event=on_event) for one in rungs]
        place = max(range(len(rungs)), key=lambda place: scores[place].metric.sign * scores[place].score.mean)
        name = f"fine-tuning at {RATES[place]:g}, {duration(fine_tuning.seconds)} for a task"
        trials.append(_trial(name, scores[place], kept))
        if trials[-1].kept:
            measured = replace(scores[place], adapt_seconds=fine_tuning.seconds)
            return Decided(rungs[place], tuple(trials), measured)
    return Decided(best, tuple(trials), _with_network(kept, best, validation))


def tasks_to_decide(
    learner: PretrainedBlocks, validation: TaskDistribution, seconds: float, *, most: int = TASKS
) -> tuple[int, float]:
    """On how many tasks `decided` compares, without fine-tuning, in so many seconds, and about how long it takes then.

    Estimated from the examples and heads of a few tasks.

    most: of the tasks, of which at least `FEWEST_TASKS` are taken, however long these take.
    """
    few, task = _Validation(validation, FEWEST_TASKS), validation.task(0)
    inputs = to_device(torch.cat([task.support.inputs, task.query.inputs]), learner.device)
    few.calibrated(learner)  # after which all is loaded, and the features of these tasks are there
    start = time.perf_counter()
    few.scored(few.calibrated(learner))
    each = (time.perf_counter() - start) / FEWEST_TASKS
    start = time.perf_counter()
    with torch.no_grad():
        learner.embed(inputs)
    per_example = (time.perf_counter() - start) / len(inputs)
    switches, rows = _switches(learner.recipe["spec"].input_shape), validation.rows()
    views = [PASSES[options["views"]] for _, options in switches if "views" in options]

    def taken(tasks: int) -> float:
        examples = tasks * len(inputs) if rows is None else min(len(rows), tasks * len(inputs))
        return examples * per_example * (1 + sum(views)) + tasks * each * (1 + len(switches))

    tasks = next((count for count in range(most, FEWEST_TASKS, -1) if taken(count) <= seconds), FEWEST_TASKS)
    return tasks, taken(tasks)


def tasks_to_fine_tune(
    learner: PretrainedBlocks, validation: TaskDistribution, seconds: float, *, most: int = TASKS
) -> tuple[FineTuning, float]:
    """How `decided` tries fine-tuning in so many seconds, and about how long that takes; by a few tasks."""
    rung = learner.twin(FineTuneAll)
    measured, start = _adapting(rung, validation), time.perf_counter()
    evaluate(rung, validation, tasks=1, measured=measured)
    each = len(RATES) * (time.perf_counter() - start)
    tasks = max(0, min(most, int(seconds / each) - FEWEST_TASKS))
    return FineTuning(measured[0], tasks), (tasks + FEWEST_TASKS) * each


def surely_better(found: Evaluation, than: Evaluation) -> tuple[bool, ClassInterval | None]:
    """Whether the one learner is better than the other with other classes, too, and the interval of its gain.

    Both were evaluated on the first tasks of one distribution; the interval is over the classes of those that both
    have, and None if these do not determine one, see `class_interval`.
    """
    count = min(len(found.scores), len(than.scores))
    gain = class_interval(found.metric.sign * (found.scores[:count] - than.scores[:count]), found.classes[:count])
    return gain is not None and gain.low > 0, gain


def _switches(input_shape: tuple[int, ...]) -> list[tuple[str, dict[str, Any]]]:
    """What is tried one after another, each beside those that were kept."""
    views = VIEWS.get(input_shape[0]) if len(input_shape) == 3 else None
    return [RIDGE] if views is None else [RIDGE, views]


class _Validation:
    """Validation tasks, whose examples each go once through a network with its views, where they stay as they are."""

    def __init__(
        self, tasks: TaskDistribution, count: int, metric: Metric | None = None, on_event: OnEvent = ignore
    ) -> None:
        self.tasks, self.count, self.metric, self.on_event = tasks, count, metric, on_event
        self.features: dict[str, TaskDistribution | None] = {}

    def of(self, learner: PretrainedBlocks) -> tuple[PretrainedBlocks, TaskDistribution]:
        """The same head, and the same tasks, on features."""
        if learner.views not in self.features:
            self.features[learner.views] = self.tasks.mapped(learner.feature_network) if learner.pointwise else None
        mapped = self.features[learner.views]
        if mapped is None:
            return learner, self.tasks
        head = PretrainedBlocks.build(mapped.spec, backbone="raw", **learner.recipe["options"] | {"views": "one"})
        head.temperatures.copy_(learner.temperatures)
        return head.to(learner.device), mapped

    def scored(self, learner: PretrainedBlocks) -> Evaluation:
        """On all of them."""
        head, tasks = self.of(learner)
        return evaluate(head, tasks, tasks=self.count, metric=self.metric, on_event=self.on_event)

    def calibrated(self, learner: PretrainedBlocks) -> PretrainedBlocks:
        """A copy whose temperatures make the labels of these tasks as likely as can be.

        *On Calibration of Modern Neural Networks* (Guo et al., 2017), https://arxiv.org/abs/1706.04599. By cosines
        alone it predicts the same classes as before.
        """
        head, tasks = self.of(learner)
        held = defaultdict(list)  # by way, so that the queries of all tasks are predicted at once
        with torch.no_grad():
            for index in range(self.count):
                task, spec = to_device(tasks.task(index), learner.device), tasks.spec_of(index)
                state = head.adapt(task.support, spec)
                scores = head.scores(state, task.query.inputs).double()
                held[spec.outputs].append((scores, state["present"].expand_as(scores[0]), task.query.targets))
        queries = [_Queries(*map(_joined, zip(*parts, strict=True))) for parts in held.values()]
        copy = own_copy(learner)
        fitted = _fitted(queries)
        copy.temperatures[: len(fitted)] = fitted
        return copy


class _Queries(NamedTuple):
    """Queries of tasks of one way.

    scores: `(parts, n, way)`.
    present: `(n, way)`.
    targets: `(n,)`.
    """

    scores: Tensor
    present: Tensor
    targets: Tensor


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    """Scores, presences or targets of tasks, query after query."""
    return torch.cat(parts, dim=1 if parts[0].ndim == 3 else 0)


def _fitted(queries: list[_Queries]) -> Tensor:
    """The temperatures `(parts,)` that make the targets of queries most likely."""

    def loss(temperatures: Tensor) -> Tensor:
        losses = [PretrainedBlocks.combined(one.scores, temperatures, one.present).loss(one.targets) for one in queries]
        return torch.cat(losses).mean()

    scores = queries[0].scores
    return _likeliest(loss, scores.new_full((len(scores),), START))


def _likeliest(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The positive numbers, searched from `start`, with the least loss, which is convex in them."""
    logs = start.log().requires_grad_()
    descent = torch.optim.LBFGS([logs], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        with torch.enable_grad():
            total = loss(logs.exp())
            total.backward()  # type: ignore[no-untyped-call]
        return total

    descent.step(closure)  # type: ignore[no-untyped-call]
    return logs.detach().exp()


def _sharpened(rung: FineTuneAll, validation: TaskDistribution) -> FineTuneAll:
    """It with the sharpness that makes the labels of a few tasks as likely as can be.

    One label in all of them is taken for wrong: without an error in these tasks, no sharpness would be enough.
    """
    held = []
    for index in range(FEWEST_TASKS):
        task, spec = to_device(validation.task(index), rung.device), validation.spec_of(index)
        found = rung.predict(rung.adapt(task.support, spec), task.query.inputs)
        assert isinstance(found, Categorical), "images have classes"
        held.append((found.logits.detach().double(), task.query.targets))
    count = sum(len(targets) for _, targets in held)

    def loss(sharpness: Tensor) -> Tensor:
        smoothed = partial(F.cross_entropy, label_smoothing=1 / count, reduction="sum")
        return torch.stack([smoothed(sharpness * logits, targets) for logits, targets in held]).sum() / count

    rung.sharpness.copy_(_likeliest(loss, torch.ones((), dtype=torch.float64, device=rung.device)))
    return rung


def _with_network(found: Evaluation, learner: PretrainedBlocks, tasks: TaskDistribution) -> Evaluation:
    """The same evaluation, in which adapting takes the time that it takes with the network."""
    return replace(found, adapt_seconds=_adapting(learner, tasks)[0])


def _adapting(learner: Learner, tasks: TaskDistribution) -> tuple[float, TaskState]:
    """Seconds to adapt to a task alone, the median of some tries once all is loaded, and its state."""
    tries = [cost(learner, tasks) for _ in range(1 + TRIES)]
    return statistics.median(seconds for seconds, _ in tries[1:]), tries[0][1]


def _trial(name: str, found: Evaluation, kept: Evaluation) -> TriedOption:
    better, gain = surely_better(found, kept)
    return TriedOption(name, found.score.mean, gain, better)
