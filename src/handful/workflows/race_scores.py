"""The standing of a race: paired intervals over validation tasks, or over the classes that these are drawn from."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from handful.evaluation.intervals import ALPHA, ClassInterval, Interval, apart, class_interval, interval
from handful.metrics import Metric
from handful.tasks.distribution import TaskDistribution

CLOSE = 0.01
"""The relative difference of mean scores up to which candidates without a significant difference count as equal."""
LIKELY = 0.4
"""`alpha` of the interval by which a trained candidate has to be ahead of its start."""


@dataclass(frozen=True)
class Scored:
    """A candidate's scores on the first validation tasks.

    scores: `(draws,)`; infinite for diverged draws, NaN for undefined scores.
    seconds: to adapt to a task.
    """

    scores: Tensor
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON, which has no infinite numbers."""
        return {"scores": ["diverged" if math.isinf(s) else None if math.isnan(s) else s for s in self.scores.tolist()]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], seconds: float = 0.0) -> "Scored":
        """The inverse of `as_json`."""
        values = [math.inf if s == "diverged" else math.nan if s is None else s for s in found["scores"]]
        return cls(torch.tensor(values, dtype=torch.float64, device="cpu"), seconds)

    @property
    def diverged(self) -> int:
        """How many draws have no score because a prediction was not finite."""
        return int(self.scores.isinf().sum())


class Judge:
    """Compares scores on the same validation tasks, of which each may have the first ones alone.

    validation: the tasks.
    metric: that scores them.
    tasks: how many at the most.
    """

    def __init__(self, validation: TaskDistribution, metric: Metric, tasks: int) -> None:
        self.metric = metric
        self.units = torch.tensor([validation.unit(index) for index in range(tasks)], device="cpu")
        drawn = validation.units is None
        self.classes = [validation.manifest(index).classes if drawn else () for index in range(tasks)]

    def score(self, scored: Scored) -> float:
        """The mean score over tasks; NaN if no task has one."""
        return interval(scored.scores, self.units[: len(scored.scores)]).mean

    def rank(self, scored: Scored) -> tuple[int, float]:
        """The sort key of candidates, higher is better: fewer diverged draws, then the score."""
        mean = self.metric.sign * self.score(scored)
        return -scored.diverged, -math.inf if math.isnan(mean) else mean

    def ahead(self, one: Scored, other: Scored, *, alpha: float = ALPHA) -> Interval:
        """By how much one is better than another, with an interval over tasks, or over classes if tasks are drawn from
        them.

        alpha: see `interval`.
        """
        count = min(len(one.scores), len(other.scores))
        gap = self.metric.sign * apart(one.scores[:count], other.scores[:count])
        over_classes = class_interval(gap, self.classes[:count], alpha=alpha) if all(self.classes) else None
        return over_classes or interval(gap, self.units[:count], bounds=self.metric.bounds_apart, alpha=alpha)

    def surely_ahead(self, one: Scored, other: Scored) -> bool:
        """Whether one is significantly better than another."""
        return self.rank(one) > self.rank(other) and not self.ahead(one, other).low <= 0

    def below(self, field: Mapping[str, Scored], start: Collection[str]) -> dict[str, str]:
        """Which of the others are not ahead of the best of the untrained `start`; with the reason in words.

        So that training takes no model below its start. A gain counts where chance explains it with a probability of a
        fifth or less: with few validation classes, a stricter rule leaves out most of what training gains. Where every
        task has all of the classes, a gain for other classes is unknown.
        """
        first = self.leader({name: field[name] for name in start})
        others = {name: one for name, one in field.items() if name not in start}
        return {
            n: f"not clearly ahead of {first}" for n, o in others.items() if not self._likely_ahead(o, field[first])
        }

    def _likely_ahead(self, one: Scored, start: Scored) -> bool:
        gain = self.ahead(one, start, alpha=LIKELY)
        known = isinstance(gain, ClassInterval) or not all(self.classes)
        return known and self.rank(one) > self.rank(start) and not gain.low <= 0

    def leader(self, field: Mapping[str, Scored]) -> str:
        """The name of the one with the best score."""
        return max(field, key=lambda name: self.rank(field[name]))

    def best(self, field: Mapping[str, Scored]) -> str:
        """The name of the winner: the cheapest of those that are as good as the leader."""
        leader = self.leader(field)
        return min(self.tied(field, leader), key=lambda name: (field[name].seconds, name != leader))

    def tied(self, field: Mapping[str, Scored], leader: str) -> list[str]:
        """Those, including the leader, that are not significantly behind it, nor by more than `CLOSE` of its score."""
        allowed = CLOSE * abs(self.score(field[leader])) * (2 if self.metric.root else 1)
        close = [
            name
            for name, scored in field.items()
            if scored.diverged <= field[leader].diverged
            and abs(self.score(scored) - self.score(field[leader])) <= allowed
            and not self.surely_ahead(field[leader], scored)
        ]
        return list(dict.fromkeys([leader, *close]))

    def going_on(self, field: Mapping[str, Scored], count: int) -> list[str]:
        """The names of at most so many of the best that are not significantly behind the first one, in their old
        order."""
        ordered = sorted(field, key=lambda name: self.rank(field[name]), reverse=True)
        kept = {name for name in ordered[:count] if not self.surely_ahead(field[ordered[0]], field[name])}
        return [name for name in field if name in kept | set(ordered[:1])]


def on_same_tasks(field: Mapping[str, Scored]) -> dict[str, Scored]:
    """The candidates with their scores on the first tasks, which all of them have."""
    count = min(len(one.scores) for one in field.values())
    return {name: replace(one, scores=one.scores[:count]) for name, one in field.items()}


def reason(judge: Judge, leader: tuple[str, Scored], other: Scored) -> str:
    """Why a candidate is dropped, in words."""
    name, scored = leader
    gap = judge.ahead(scored, other)
    sure = "significantly " if gap.low > 0 else ""
    return f"{sure}behind {name}"
