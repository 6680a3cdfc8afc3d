"""Who is ahead in a race: paired intervals over validation tasks, or over the classes that these are drawn from."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handful.evaluation.intervals import Interval, apart, class_interval, interval
from handful.metrics import Metric
from handful.tasks.distribution import TaskDistribution

CLOSE = 0.01
"""A relative difference of mean scores up to which candidates that are not surely apart are as good as each other."""


@dataclass(frozen=True)
class Scored:
    """A candidate's scores on the first validation tasks.

    scores: `(draws,)`; infinite where a draw diverged, NaN where its score is undefined. seconds: to adapt to a task.
    """

    scores: Tensor
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON, which has no infinite numbers."""
        return {"scores": ["diverged" if math.isinf(s) else None if math.isnan(s) else s for s in self.scores.tolist()]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], seconds: float = 0.0) -> "Scored":
        """The other way."""
        values = [math.inf if s == "diverged" else math.nan if s is None else s for s in found["scores"]]
        return cls(torch.tensor(values, dtype=torch.float64, device="cpu"), seconds)

    @property
    def diverged(self) -> int:
        """How many draws have no score since no prediction was finite."""
        return int(self.scores.isinf().sum())


class Judge:
    """Compares scores on the same validation tasks, of which each may have the first ones alone.

    validation: the tasks. metric: what they are scored by. tasks: how many at the most.
    """

    def __init__(self, validation: TaskDistribution, metric: Metric, tasks: int) -> None:
        self.metric = metric
        self.units = torch.tensor([validation.unit(index) for index in range(tasks)], device="cpu")
        drawn = validation.units is None
        self.classes = [validation.manifest(index).classes if drawn else () for index in range(tasks)]

    def score(self, scored: Scored) -> float:
        """The mean score, over tasks; NaN where there is none."""
        return interval(scored.scores, self.units[: len(scored.scores)]).mean

    def rank(self, scored: Scored) -> tuple[int, float]:
        """By which candidates are ordered, the larger the better: fewer diverged draws first."""
        mean = self.metric.sign * self.score(scored)
        return -scored.diverged, -math.inf if math.isnan(mean) else mean

    def ahead(self, one: Scored, other: Scored) -> Interval:
        """By how much one is better than another, for other tasks; or for other classes, where tasks are drawn so."""
        count = min(len(one.scores), len(other.scores))
        gap = self.metric.sign * apart(one.scores[:count], other.scores[:count])
        over_classes = class_interval(gap, self.classes[:count]) if all(self.classes) else None
        return over_classes or interval(gap, self.units[:count], bounds=self.metric.bounds_apart)

    def surely_ahead(self, one: Scored, other: Scored) -> bool:
        """Whether one is better and luck of the draw does not explain it."""
        return self.rank(one) > self.rank(other) and not self.ahead(one, other).low <= 0

    def below(self, field: Mapping[str, Scored], start: Collection[str]) -> dict[str, str]:
        """Which of the others are not surely ahead of the best of `start`, which no training has changed; in words why.

        So that training takes no model below its start.
        """
        first = max(start, key=lambda name: self.rank(field[name]))
        others = {name: one for name, one in field.items() if name not in start}
        return {n: f"not surely ahead of {first}" for n, o in others.items() if not self.surely_ahead(o, field[first])}

    def best(self, field: Mapping[str, Scored]) -> str:
        """The name of the one to take: the cheapest of those that are as good as the leader."""
        leader = max(field, key=lambda name: self.rank(field[name]))
        return min(self.tied(field, leader), key=lambda name: (field[name].seconds, name != leader))

    def tied(self, field: Mapping[str, Scored], leader: str) -> list[str]:
        """Those that are not surely behind the leader, nor by more than `CLOSE` of its score; itself among them."""
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
        """The names of so many of the best that are not surely behind the first one, in their old order."""
        ordered = sorted(field, key=lambda name: self.rank(field[name]), reverse=True)
        kept = {name for name in ordered[:count] if not self.surely_ahead(field[ordered[0]], field[name])}
        return [name for name in field if name in kept | set(ordered[:1])]


def reason(judge: Judge, leader: tuple[str, Scored], other: Scored) -> str:
    """Why a candidate is dropped, in words."""
    name, scored = leader
    gap = judge.ahead(scored, other)
    sure = "surely " if gap.low > 0 else ""
    return f"{sure}behind {name}"
