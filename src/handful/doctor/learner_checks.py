"""Faults of a learner: not using its support, or using more than its support and query."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from handful import streams
from handful.doctor.finding import Finding, names_are_classes, signed
from handful.engine.plan import Plan
from handful.errors import count_of
from handful.evaluation.formatting import figures, percent
from handful.evaluation.intervals import SHARE, SHARES_APART, Interval, difference, interval
from handful.evaluation.scoring import metric_of, predict_tasks, scores_of
from handful.learners.learner import Learner
from handful.tasks.distribution import TaskDistribution
from handful.types import Categorical, Examples, Task, TaskSpec, stack, take

SHUFFLES = 3
"""Shuffled supports per task: with few classes, one shuffling leaves many labels correct by chance."""
MATERIAL = 0.03
"""The accuracy above chance that is tolerated with a shuffled support."""
PURE = 1e-3
"""The relative change of a prediction that rounding alone may cause."""


@dataclass(frozen=True)
class SupportExchange:
    """Scores `(tasks,)` of tasks with their own support, and with that of another task of the split; higher is better.

    classification: whether they are accuracies.
    """

    own: Tensor
    foreign: Tensor
    units: Tensor
    classification: bool

    @property
    def gain(self) -> Interval:
        """The gain of the own support over that of another task."""
        return interval(self.own - self.foreign, self.units, bounds=SHARES_APART if self.classification else None)


def exchange(split: TaskDistribution, learner: Learner, tasks: int) -> SupportExchange | None:
    """Score tasks of a split with exchanged supports; None for fewer than two tasks."""
    own, foreign, units = [], [], []
    for index in range(tasks):
        other = _another(split, index, tasks)
        if other is None:
            continue
        own.append(score_of(split, learner, index, split.task(index).support))
        foreign.append(score_of(split, learner, index, split.task(other).support))
        units.append(split.unit(index))
    if len(set(units)) < 2:
        return None
    scores = torch.tensor([own, foreign], dtype=torch.float64)
    return SupportExchange(scores[0], scores[1], torch.tensor(units), split.spec.classification)


def memorization(
    split: TaskDistribution,
    learner: Learner,
    tasks: int,
    trained: SupportExchange | None,
    novel: SupportExchange | None,
) -> Finding:
    """Whether predictions depend on the support of the task, or only on training.

    trained, novel: scores of training tasks, and of validation tasks, if any.
    """
    if not learner.uses_support:
        return Finding("memorization", "skipped", f"{learner.key} declares that it does not use the support.")
    if names_are_classes(split):
        return _shuffled(split, learner, tasks)
    if trained is None:
        return Finding("memorization", "skipped", "Exchanging supports needs at least two tasks.")
    return _exchanged(trained, novel, learner.key, classification=split.spec.classification)


def _shuffled(split: TaskDistribution, learner: Learner, tasks: int) -> Finding:
    """With permuted class numbers, shuffled support labels should reduce accuracy to chance."""
    chances = []

    def shuffle(index: int, repeat: int) -> Examples:
        support = split.task(index).support
        order = torch.randperm(len(support.targets), generator=streams.label_shuffle(split.seed, index, repeat))
        return Examples(support.inputs, support.targets[order])

    right, guessed = [], []
    for index in range(tasks):
        task = split.task(index)
        chances.append(_chance(task))
        right.append(score_of(split, learner, index, task.support))
        wrong = [score_of(split, learner, index, shuffle(index, repeat)) for repeat in range(SHUFFLES)]
        guessed.append(sum(wrong) / SHUFFLES)
    units = torch.tensor([split.unit(index) for index in range(tasks)])
    chance = sum(chances) / tasks
    true, shuffled = torch.tensor(right), torch.tensor(guessed)
    excess = interval(shuffled - torch.tensor(chances), units, bounds=SHARES_APART)
    gain = interval(true - shuffled, units, bounds=SHARES_APART)
    told = [percent(interval(values, units, bounds=SHARE)) for values in (true, shuffled)]
    numbers = (
        f"accuracy {told[0]} with true support labels, {told[1]} with shuffled ones, chance {100 * chance:.1f} % "
        f"({gain.tasks} training tasks)"
    )
    if excess.low > 0 and excess.mean > MATERIAL:
        return Finding(
            "memorization",
            "problem",
            f"{learner.key} predicts labels without its support: {numbers}. It has memorized the class numbers of the "
            f"training tasks. Permute class numbers in each task.",
        )
    if gain.low <= 0:
        return Finding(
            "memorization",
            "problem",
            f"{learner.key} does not use its support: {numbers}. Train it (longer), or look for an error in adapt.",
        )
    return Finding("memorization", "ok", f"{learner.key} predicts from its support: {numbers}.")


def _exchanged(trained: SupportExchange, novel: SupportExchange | None, key: str, *, classification: bool) -> Finding:
    """With outputs shared by all tasks: the gain of the own support, and the scores of training tasks without it.

    A learner that has memorized the training tasks predicts them well with any support, and new tasks badly.
    """
    bounds = SHARE if classification else None
    scores = [interval(values, trained.units, bounds=bounds) for values in (trained.own, trained.foreign)]
    gain = trained.gain
    told = [percent(score) if classification else figures(0.0 - score.mean) for score in scores]
    what = "accuracy" if classification else "squared error"
    numbers = f"{what} {told[0]} with the task's own support, {told[1]} with another's"
    numbers += f"; gain {signed(gain, classification=classification)} ({gain.tasks} training tasks)"
    gap = None
    if novel is not None:
        gap = difference(trained.own, novel.own, trained.units, novel.units, bounds=bounds)
    if gap is not None and gap.low > 0 and gap.mean > max(gain.mean, 0.0):
        return Finding(
            "memorization",
            "problem",
            f"{key} has memorized the training tasks: {numbers}, but on {gap.tasks} new tasks it is worse by "
            f"{signed(gap, classification=classification).lstrip('+')}, more than its support gains. Some input "
            f"identifies the task.",
            "Remove that input, or train with {augment}.",
        )
    if gain.low <= 0:
        return Finding(
            "memorization",
            "warning",
            f"Adapting {key} to a task shows no gain: {numbers}. The tasks may be too alike; one model for all of them "
            f"(the baseline 'pooled') may do as well.",
        )
    return Finding("memorization", "ok", f"Adapting {key} to a task helps: {numbers}.")


def _another(split: TaskDistribution, index: int, tasks: int) -> int | None:
    """A task of another unit and the same spec, half of the tasks away."""
    for step in range(tasks):
        other = (index + tasks // 2 + step) % tasks
        if split.unit(other) != split.unit(index) and split.spec_of(other) == split.spec_of(index):
            return other
    return None


def score_of(split: TaskDistribution, learner: Learner, index: int, support: Examples) -> float:
    """The score of task `index` after adapting to this support; higher is better, a non-finite prediction is worst."""
    task = stack([Task(support, split.task(index).query)])
    predictions = predict_tasks(learner, task, split.spec_of(index), Plan("loop"))
    metric = metric_of(split)
    return metric.sign * float(scores_of(predictions, task.query.targets, metric, split))


def _chance(task: Task) -> float:
    """The accuracy of predicting any class of the support at random."""
    return 1 / len(set(task.support.targets.tolist()))


def transduction(split: TaskDistribution, learner: Learner, tasks: int = 5) -> Finding:
    """Whether the prediction of a query is the same alone and in a batch."""
    largest, diverged = 0.0, 0
    for index in range(tasks):
        task, spec = split.task(index), split.spec_of(index)
        among = _values(learner, task, spec)
        if not among.isfinite().all():
            diverged += 1
            continue
        for query in range(min(3, len(among))):
            alone = _values(learner, Task(task.support, take(task.query, slice(query, query + 1))), spec)
            size = float(among[query].abs().max()) + 1e-6
            apart = float((alone[0] - among[query]).abs().max()) / size
            largest = max(largest, apart if math.isfinite(apart) else math.inf)
    if diverged == tasks:
        seen = f"{learner.key} has no finite prediction on {count_of(tasks, 'task')}."
        return Finding("transduction", "skipped", seen)
    seen = f"alone or among others, the prediction of a query differs by up to {100 * largest:.2g} % ({tasks} tasks"
    seen += f", {diverged} of which diverged)" if diverged else ")"
    if largest <= PURE and learner.pointwise:
        return Finding("transduction", "ok", f"{learner.key} predicts each query by itself: {seen}.")
    if largest <= PURE:
        return Finding("transduction", "ok", f"{learner.key} declares to use the other queries of a task, but {seen}.")
    if learner.pointwise:
        return Finding(
            "transduction",
            "problem",
            f"{learner.key} declares to predict each query by itself, but {seen}: predicting queries one at a time "
            f"gives other scores. Look for statistics of the query batch, such as batch normalization in training "
            f"mode.",
        )
    return Finding(
        "transduction",
        "warning",
        f"{learner.key} uses the other queries of a task, as it declares: {seen}. Do not compare its scores with those "
        "of learners that predict one query at a time.",
        "With the frozen {normalization} it would predict one at a time.",
    )


def _values(learner: Learner, task: Task, spec: TaskSpec) -> Tensor:
    """Logits or means of the queries `(n, outputs)`."""
    prediction = predict_tasks(learner, stack([task]), spec, Plan("loop"))
    return take(prediction.logits if isinstance(prediction, Categorical) else prediction.mean, 0)
