"""A learner on new tasks: the gain from adapting to them, and the loss against training tasks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from handful.doctor.finding import Finding, names_are_classes, signed
from handful.doctor.learner_checks import SupportExchange
from handful.errors import UserError, count_of, named
from handful.evaluation.formatting import difference as difference_in_words
from handful.evaluation.formatting import figures, percent
from handful.evaluation.intervals import SHARE, Interval, difference, interval
from handful.evaluation.scoring import evaluate
from handful.learners.learner import Learner
from handful.tasks.distribution import SizeRanges, TaskDistribution

LARGE_GAP = 0.05
"""Accuracy that training tasks may be ahead of new ones; of errors, new tasks may have twice that of training tasks."""


def adaptation(novel: SupportExchange | None, learner: Learner, *, classification: bool) -> Finding:
    """Whether adapting to a new task helps, compared with adapting to another task."""
    if not learner.uses_support:
        return Finding("adaptation", "skipped", f"{learner.key} declares that it does not use the support.")
    if novel is None:
        return Finding("adaptation", "skipped", "Exchanging supports needs at least two validation tasks.")
    gain, idle = novel.gain, int((novel.own <= novel.foreign).sum())
    seen = (
        f"a new task's own support gains {signed(gain, classification=classification)} over another task's "
        f"({gain.tasks} validation tasks; in {idle} of {len(novel.own)} draws it gains nothing)"
    )
    if gain.low > 0:
        return Finding("adaptation", "ok", f"{learner.key} adapts to new tasks: {seen}.")
    gains = (
        f"Whether {learner.key} gains from adapting to new tasks is undecided with {count_of(gain.tasks, 'task')}"
        if gain.mean > 0
        else f"{learner.key} shows no gain from adapting to new tasks"
    )
    return Finding(
        "adaptation",
        "warning",
        f"{gains}: {seen}.",
        "Train it longer, give it more examples ({shot}), or use a model without adaptation.",
    )


def gap(trained: Tensor, novel: Tensor, units: tuple[Tensor, Tensor], key: str, *, classification: bool) -> Finding:
    """By how much training tasks are predicted better than new ones.

    trained, novel: scores; higher is better.
    """
    bounds = SHARE if classification else None
    ahead = difference(trained, novel, *units, bounds=bounds)
    scores = interval(trained, units[0], bounds=bounds), interval(novel, units[1], bounds=bounds)
    told = [percent(score) if classification else figures(0.0 - score.mean) for score in scores]
    what = "accuracy" if classification else "squared error"
    seen = (
        f"{what} {told[0]} on {scores[0].tasks} training tasks, {told[1]} on {scores[1].tasks} new ones, a gap of "
        f"{signed(ahead, classification=classification).lstrip('+')}"
    )
    if ahead.low > (LARGE_GAP if classification else -scores[0].mean):
        return Finding(
            "gap",
            "warning",
            f"{key} does far better on training tasks: {seen}.",
            "Train on more tasks or classes, or regularize: a smaller network, fewer steps, a larger "
            "{weight_decay} (such as 1), for images or values {augment}.",
        )
    return Finding("gap", "ok", f"New tasks are predicted about as well as training tasks: {seen}.")


@dataclass(frozen=True)
class GapRow:
    """Scores of a learner that was trained on `trained_on` tasks or classes, and how far training tasks are ahead."""

    trained_on: int
    trained: Interval
    novel: Interval
    gap: Interval


def gap_by_tasks(
    learners: Mapping[int, tuple[Learner, TaskDistribution]], novel: TaskDistribution, *, tasks: int = 100
) -> list[GapRow]:
    """How the gap between training and new tasks closes as the number of training tasks grows; it is positive
    where training tasks are predicted better.

    learners: by the number of tasks or classes trained on, the learner and a distribution over these.
    novel: tasks that none of them was trained on, of its present split.
    """
    rows = []
    for count, (learner, own) in sorted(learners.items()):
        one, other = evaluate(learner, own.split("train"), tasks=tasks), evaluate(learner, novel, tasks=tasks)
        sign, bounds = one.metric.sign, one.metric.bounds
        ahead = difference(sign * one.scores, sign * other.scores, one.units, other.units, bounds=bounds)
        rows.append(GapRow(count, one.score, other.score, ahead))
    return rows


def mismatch(novel: TaskDistribution, learner: Learner, trained: SizeRanges, tasks: int) -> Finding:
    """The loss from tasks with another way or shot than those of training.

    New tasks are scored in both sizes, task i with task i. But where one size leaves out tasks of the data that have
    too few examples for it, the two are compared as different tasks. Accuracies of different ways are compared as
    shares of what is above chance.
    """
    sizes = {name: (getattr(trained, name), getattr(novel.sizes, name)) for name in ("way", "shot")}
    differing = {name: pair for name, pair in sizes.items() if pair[0] != pair[1]}
    if not differing:
        return Finding("mismatch", "ok", "Tasks have the way and shot of the training tasks.")
    told = ", ".join(
        f"{name} {_size(there)} in training and {_size(here)} here" for name, (there, here) in differing.items()
    )
    if any(isinstance(size, tuple) for pair in sizes.values() for size in pair):
        return Finding("mismatch", "ok", f"Sizes vary ({told}).")
    try:
        there = novel.with_sizes(**{name: pair[0] for name, pair in differing.items()})
        scores = [evaluate(learner, where, tasks=tasks) for where in (there, novel)]
    except UserError as error:
        return Finding(
            "mismatch",
            "skipped",
            f"No validation task can be drawn in the sizes of training ({told}): {error.message}",
            error.hint,
        )
    sign = scores[0].metric.sign
    values = [sign * (_above_chance(e.scores, e.way) if names_are_classes(novel) else e.scores) for e in scores]
    units = [e.units for e in scores]
    bounds = SHARE if novel.spec.classification else None
    if names_are_classes(novel):
        bounds = (min(float(_above_chance(torch.zeros(()), e.way)) for e in scores), 1.0)
    if there.units == novel.units and torch.equal(units[0], units[1]):
        apart = bounds and (bounds[0] - bounds[1], bounds[1] - bounds[0])
        drop = interval(values[0] - values[1], units[0], bounds=apart)
    else:
        drop = difference(values[0], values[1], units[0], units[1], bounds=bounds)
    unit = "of what is above chance" if names_are_classes(novel) else "of the score"
    amount = f"{difference_in_words(drop, share=True).lstrip('+')} points {unit}"
    if novel.spec.kind == "regression":
        amount = signed(drop, classification=False).lstrip("+")
    seen = f"{told}; in the sizes of training it does better by {amount} ({drop.tasks} validation tasks)"
    if drop.low > 0:
        return Finding(
            "mismatch",
            "warning",
            f"{learner.key} is used on other sizes than it was trained on: {seen}. Such tasks may also be harder; "
            f"train with these sizes to see how much remains.",
            f"They are set by {named(*('train_way' if name == 'way' else name for name in differing))}.",
        )
    return Finding("mismatch", "ok", f"Sizes other than in training show no loss: {seen}.")


def _above_chance(accuracies: Tensor, way: object) -> Tensor:
    assert isinstance(way, int)
    return (accuracies - 1 / way) / (1 - 1 / way)


def _size(size: object) -> str:
    return f"{size[0]} to {size[1]}" if isinstance(size, tuple) else str(size)
