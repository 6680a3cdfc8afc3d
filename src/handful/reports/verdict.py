"""The verdict: how a learner compares with the ladder, in a few lines."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from handful.evaluation.comparison import Comparison, Row
from handful.evaluation.formatting import (
    drawn,
    duration,
    examples,
    figures,
    lost,
    percent,
    plus_minus,
    points,
    root,
    rooted,
    size,
    two_figures,
)
from handful.evaluation.intervals import interval, tasks_needed
from handful.evaluation.scoring import FROZEN, Evaluation
from handful.registry import LEARNERS

POOLED = "pooled"
"""The baseline that predicts without adapting: one model for all tasks."""
DUMMY = "dummy"
"""The baseline that predicts the majority class or the mean target of the support for every query."""

Outcome: TypeAlias = Literal["beats", "tie", "loses", "diverged", "undefined", "alone"]


@dataclass(frozen=True)
class Standing:
    """How a learner compares with its best baseline."""

    comparison: Comparison

    @property
    def outcome(self) -> Outcome:
        """Whether it significantly beats that baseline, loses to it, or lacks a score on more draws than it.

        Where the metric is undefined on all tasks of the learner, or of all baselines, no comparison is possible.
        """
        rung = self.comparison.best_rung
        if rung.behind < 0:
            return "diverged"
        if math.isnan(self.comparison.learner.evaluation.score.mean):
            return "undefined"
        if math.isnan(rung.evaluation.score.mean) and rung.behind == 0:
            return "alone"
        return "loses" if rung.better else "beats" if rung.worse else "tie"

    @property
    def trivial(self) -> bool:
        """Whether all labels or targets of a task are equal, and the learner has finite predictions."""
        if self.outcome == "diverged":
            return False
        perfect = {"share": 1, "target": 0}
        rungs = [row.evaluation for row in self.comparison.rows[1:]]
        return any(rung.learner == DUMMY and rung.score.mean == perfect.get(rung.metric.unit) for rung in rungs)

    @property
    def pays(self) -> bool:
        """Whether learning from other tasks helps significantly, by the learner or by the best baseline that does so.

        True if no baseline that learns from each task alone can be compared.
        """
        alone, way = self.comparison.best_alone, self.comparison.best_way
        if self.outcome in ("diverged", "undefined"):
            return False
        if self.outcome == "alone" or alone is None or (alone.worse and self._uses_other_tasks):
            return True
        return way is not None and way.better and way.evaluation.gain_over(alone.evaluation).low > 0

    @property
    def _uses_other_tasks(self) -> bool:
        return self.comparison.learner.evaluation.uses_other_tasks

    def lines(self, *, said: bool = False) -> list[str]:
        """The learner's score, the gain from other tasks, and the best way of using them, each in a line.

        said: whether the text before them states that other tasks bring no significant gain.
        """
        own, rung = self.comparison.learner.evaluation, self.comparison.best_rung
        if self.trivial:
            what, score = "label", percent(own.score)
            if own.metric.unit == "target":
                what, score = "target", f"{own.metric.title} {figures(rooted(own.score, own.metric).mean)}"
            return [
                f"{situation(own)}, NOTHING CAN BE PREDICTED: all examples of a task have the same {what}, so that "
                f"{DUMMY}, which repeats that of the support, is always correct ({own.learner}: {score}). Choose a "
                f"{what} that varies within tasks."
            ]
        if self.outcome == "diverged":
            text = f"{situation(own)}, {own.learner} DIVERGES: it has {no_prediction(own)}"
            return [f"{text}. {instead(rung.evaluation)}"]
        if self.outcome == "undefined":
            title = own.metric.title
            return [f"{situation(own)}, {own.learner} HAS NO SCORE: its {title} is undefined on all tasks."]
        if self.outcome == "alone":
            return [f"{situation(own)}, {own.learner} {quality(own)}; no baseline has a {own.metric.title}."]
        way = f"{self._way()} {self._adapting()}".strip()
        return [f"{situation(own)}, {own.learner} {quality(own)}.", *filter(None, [self._brings(said=said), way])]

    def _brings(self, *, said: bool) -> str:
        """The gain from other tasks: the learner against the best baseline that learns from each task alone."""
        row, own = self.comparison.best_alone, self.comparison.learner.evaluation
        if not own.uses_other_tasks:
            return f"{own.learner} learns from each task alone."
        if row is None:
            return ""
        other, gap = called(row.evaluation), gap_to(row, own)
        if row.worse:
            unsure = self._undecided(other_tasks=False)
            what = f"the best baseline that learns from each task alone, {other}"
            return f"Other tasks help: {own.learner} beats {what}, {gap}{unsure}."
        if row.better:
            text = f"{own.learner} LOSES to {other}, which learns from each task alone, {gap}."
            return f"{'' if said else 'Other tasks do NOT help: '}{text} {instead(row.evaluation)}"
        apart = f"does not differ significantly from {other}, which learns from each task alone ({gap}{_needed(row)})"
        return f"{'' if said else 'Undecided whether other tasks help: '}{own.learner} {apart}."

    def _way(self) -> str:
        """Which way of using other tasks is best: the learner against the best baseline that uses them."""
        row, own = self.comparison.best_way, self.comparison.learner.evaluation
        if row is None:
            return ""
        other, gap = called(row.evaluation), gap_to(row, own)
        if row.worse:
            if not own.uses_other_tasks:
                return f"It beats the best way of using other tasks, {other}, {gap}."
            unsure, pause = self._undecided(other_tasks=True), "," if row.behind > 0 else ""
            return f"It is the best way of using other tasks, ahead of {other}{pause} {gap}{unsure}."
        if row.better:
            return (
                f"The best way of using other tasks is {other}, ahead of {own.learner} {gap}. {instead(row.evaluation)}"
            )
        if not own.uses_other_tasks:
            return (
                f"It does not differ significantly from the best way of using other tasks, {other} "
                f"({gap}{_needed(row)})."
            )
        return f"As a way of using other tasks, it does not differ significantly from {other} ({gap}{_needed(row)})."

    def _undecided(self, *, other_tasks: bool) -> str:
        """Which baselines of a kind ran on too few tasks for a decision."""
        rows = [row for row in self.comparison.undecided if row.evaluation.uses_other_tasks == other_tasks]
        few = [f"{called(row.evaluation)} on {drawn(len(row.evaluation.scores), row.paired.tasks)}" for row in rows]
        return f" (undecided: {', '.join(few)})" if few else ""

    def _adapting(self) -> str:
        """Whether adapting to each task was better than one model for all tasks, if a baseline is one."""
        pooled = next((row for row in self.comparison.rows[1:] if row.evaluation.learner == POOLED), None)
        if pooled is None or pooled.behind or pooled.evaluation.ground == FROZEN:  # what tuning brings is no adapting
            return ""
        # Where the pooled model is the best way, its difference has just been told.
        gap = "" if pooled is self.comparison.best_way else gap_to(pooled, self.comparison.learner.evaluation)
        if pooled.worse:
            return f"Adapting to each task beats one pooled model for all tasks{gap and f' {gap}'}."
        if pooled.better:
            return f"Adapting to each task LOSES to one pooled model for all tasks{gap and f' {gap}'}."
        told = gap and f" ({gap})"
        return f"It is undecided whether adapting to each task is better than one pooled model for all tasks{told}."


def _needed(rung: Row) -> str:
    """How many tasks a significant difference would need."""
    paired = rung.paired
    if paired.mean == 0 or not math.isfinite(paired.half_width):
        return ""
    count = tasks_needed(paired, abs(paired.mean))
    return f"; so small a difference needs about {two_figures(count)} tasks to be significant"


def called(rung: Evaluation) -> str:
    """A learner's name in a sentence, with its encoder."""
    return f"{rung.learner} on the {rung.ground}" if rung.ground else rung.learner


def instead(rung: Evaluation) -> str:
    """The advice to use a baseline, and how to train it if needed."""
    start, how = LEARNERS[rung.learner].start, ""
    if start == "pretrained":
        how = ": train it with examples to pre-train on"
    elif start == "encoder":
        how = f", which takes {duration(rung.adapt_seconds)} for a new task and is not trained beforehand"
    return f"Use {called(rung)} instead{how}."


def situation(own: Evaluation) -> str:
    """ "With 1 example of each of 5 new classes", as a sentence begins."""
    if own.way is None:
        return f"With {examples(own.shot)} of a {'task that was trained on' if own.in_training else 'new task'}"
    classes = "classes that were trained on" if own.in_training else "new classes"
    return f"With {examples(own.shot)} of each of {size(own.way)} {classes}"


def quality(own: Evaluation) -> str:
    """The learner's score, in words."""
    score = own.score
    seen = drawn(int(own.scores.isfinite().sum()), score.tasks)
    tasks = f"95 % interval, {seen}" if math.isfinite(score.half_width) else f"{seen}: no interval"
    metric = own.metric
    if metric.unit == "share":
        return f"{metric.sentence.format(score=percent(score))} ({tasks})"
    shown = rooted(score, metric)
    between = f", {figures(shown.low)} to {figures(shown.high)}" if math.isfinite(score.half_width) else ""
    best = ""
    if len(own.oracle_scores):
        best = f"; oracle: {figures(rooted(interval(own.oracle_scores, own.units), metric).mean)}"
    off = f"{metric.sentence.format(score=figures(shown.mean))}{between}{lost(score)}"
    unit = "standard deviations of each target" if own.target_names else own.error_unit
    inside = f"in {unit}; {tasks}{best}" if metric.unit == "target" else f"{tasks}{best}"
    return f"{off} ({inside})"


def no_prediction(evaluation: Evaluation) -> str:
    """On how many draws predictions are not finite."""
    draws, tasks = len(evaluation.scores), len(set(evaluation.units.tolist()))
    return f"no finite prediction on {int(evaluation.diverged.sum()):,} of {drawn(draws, tasks)}"


def gap_to(rung: Row, own: Evaluation) -> str:
    """By how much the learner is better or worse than a baseline, on the tasks of both."""
    other, paired = rung.evaluation, rung.paired
    if rung.behind > 0:
        return f"which has {no_prediction(other)}"
    count = min(len(own.scores), len(other.scores))
    both = own.scores[:count].isfinite() & other.scores[:count].isfinite()
    common = f"{drawn(int(both.sum()), paired.tasks)} in common"
    sure = rung.better or rung.worse
    # Where it is not sure, the words around do not tell which one is ahead.
    by = "by" if sure else f"{called(other if paired.mean > 0 else own)} ahead by"
    metric, gap = own.metric, rung.gap
    if metric.unit == "share":
        return f"{by} {points(paired)} on {common}"
    means = (root(mean) if metric.root else mean for mean in own.means_with(other))
    there = "" if count == len(own.scores) else "there "
    words = f"{figures(abs(gap.mean))}{plus_minus(gap.half_width)} of {metric.title} on {common}"
    return f"{by} {words}, {there}{' instead of '.join(map(figures, means))}"
