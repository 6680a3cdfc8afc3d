"""Learners on the same tasks, with paired intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from handful.evaluation.formatting import rooted_gap
from handful.evaluation.intervals import Interval
from handful.evaluation.scoring import Evaluation


@dataclass(frozen=True)
class Row:
    """One learner's line of a comparison.

    against, paired: the learner it is compared with on the tasks of both, and by how much it is better (positive).
    gap: the same in the unit that scores are shown in. behind: see `Evaluation.behind`, against the same learner.
    chosen: options chosen on validation tasks.
    """

    evaluation: Evaluation
    baseline: bool
    against: str
    paired: Interval
    gap: Interval
    behind: int
    chosen: dict[str, Any]

    @classmethod
    def of(cls, own: Evaluation, other: Evaluation, *, baseline: bool, chosen: dict[str, Any]) -> Self:
        """The line of `own` against `other`."""
        paired = own.gain_over(other)
        gap = rooted_gap(paired, own.metric, *own.means_with(other))
        return cls(own, baseline, other.learner, paired, gap, own.behind(other), chosen)

    @property
    def better(self) -> bool:
        """Whether it is surely better than the learner it is compared with."""
        return self.paired.low > 0 if self.behind == 0 else self.behind < 0

    @property
    def worse(self) -> bool:
        """Whether it is surely worse than that one."""
        return self.paired.high < 0 if self.behind == 0 else self.behind > 0


@dataclass(frozen=True)
class Comparison:
    """A learner and the ladder on one setting: the learner's row first, then the rungs from best to worst."""

    rows: list[Row]

    @classmethod
    def of(cls, own: Evaluation, rungs: Sequence[tuple[Evaluation, dict[str, Any]]]) -> Self:
        """Pair a learner's evaluation with those of the rungs and their chosen options.

        The learner is measured against the rung that is surely better by the most (by the low end of the interval), if
        any is surely better; else against the best of those scored on all its tasks. A costly rung on a few lucky tasks
        so neither hides a sure loss nor stands for one. Rungs of which more draws are left out of the score come later.
        """
        rows = [Row.of(rung, own, baseline=True, chosen=chosen) for rung, chosen in rungs]

        def rank(row: Row) -> tuple[int, float]:
            good = (
                row.paired.mean if row.paired.tasks else own.metric.sign * row.evaluation.score.mean
            )  # of other draws
            return row.evaluation.unscored, math.inf if math.isnan(good) else -good

        rows.sort(key=rank)
        most = max(len(row.evaluation.scores) for row in rows)
        better = [row for row in rows if row.better]
        surest = max(better, key=lambda row: (-row.behind, row.paired.low), default=None)
        best = (surest or next(row for row in rows if len(row.evaluation.scores) == most)).evaluation
        return cls([Row.of(own, best, baseline=False, chosen={}), *rows])

    @property
    def learner(self) -> Row:
        """The row of the learner that the ladder stands beside."""
        return self.rows[0]

    @property
    def best_rung(self) -> Row:
        """The rung that the learner is measured against."""
        return next(row for row in self.rows[1:] if row.evaluation.learner == self.learner.against)

    @property
    def undecided(self) -> list[Row]:
        """Other rungs that the tasks of both do not tell from the learner."""
        rows = [row for row in self.rows[1:] if row is not self.best_rung]
        return [row for row in rows if not (row.better or row.worse)]
