"""Learners on the same tasks, with paired intervals."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

from handful.evaluation.formatting import rooted_gap
from handful.evaluation.intervals import Interval
from handful.evaluation.scoring import FROZEN, TUNED, Evaluation

TOLD = "centroid"
"""The baseline that measures the gain from tuning an encoder."""


@dataclass(frozen=True)
class Row:
    """One learner's line of a comparison.

    against, paired: the learner it is compared with on the tasks of both, and by how much it is better (positive).
    gap: the same in the unit that scores are shown in.
    behind: see `Evaluation.behind`, against the same learner.
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
        return cls(own, baseline, other.name, paired, gap, own.behind(other), chosen)

    @property
    def better(self) -> bool:
        """Whether it is significantly better than the learner it is compared with."""
        return self.paired.low > 0 if self.behind == 0 else self.behind < 0

    @property
    def worse(self) -> bool:
        """Whether it is significantly worse than that one."""
        return self.paired.high < 0 if self.behind == 0 else self.behind > 0


@dataclass(frozen=True)
class Bought:
    """The gain from tuning the encoder, and the gain of the learner over the best baseline on the tuned encoder.

    frozen, tuned: the scores of one baseline on the frozen encoder, and of the same on the tuned one: of `TOLD` if
        available, since choosing a baseline by its scores favors the encoder that it is chosen on; otherwise of the
        best.
    best: of the best baseline on the tuned one.
    learner: of the learner.
    """

    frozen: Evaluation
    tuned: Evaluation
    best: Evaluation
    learner: Evaluation

    @property
    def tuning(self) -> Interval:
        """By how much the baseline is better on the tuned encoder, on the same tasks."""
        return self.tuned.gain_over(self.frozen)

    @property
    def adapting(self) -> Interval:
        """By how much the learner is better than the best baseline on the tuned encoder, on the same tasks."""
        return self.learner.gain_over(self.best)


@dataclass(frozen=True)
class Comparison:
    """A learner and the ladder on one setting: the learner's row first, then the baselines from best to worst.

    alone: the name of the baseline that represents all that learn from each task alone; None without one.
    way: of the best baseline that uses other tasks too; None without one.
    aside: of baselines that decide nothing, being scored on too few tasks.
    """

    rows: list[Row]
    alone: str | None = None
    way: str | None = None
    aside: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        own: Evaluation,
        rungs: Sequence[tuple[Evaluation, dict[str, Any]]],
        *,
        aside: Collection[str] = (),
        alone: str | None = None,
    ) -> Self:
        """Pair a learner's evaluation with those of the baselines and their chosen options.

        The learner is compared with the baseline that is significantly better by the most (by the low end of the
        interval), if any is; otherwise with the best of those scored on all its tasks. A costly baseline on a few easy
        tasks thus neither hides a significant loss nor causes one. The best baseline of each kind is found in the same
        way: of those that learn from each task alone, and of those that use other tasks too. Baselines with more draws
        without a score rank lower. Baselines on the tuned encoder are not an alternative to the learner, whose
        meta-training tuned it.

        aside: names of baselines that decide nothing, being scored on too few tasks.
        alone: the baseline that was chosen, on other tasks, among those that learn from each task alone. One that is
            significantly ahead of it on these tasks replaces it, which can only make the learner look worse.
        """
        rows = [Row.of(rung, own, baseline=True, chosen=chosen) for rung, chosen in rungs]

        def rank(row: Row) -> tuple[int, float]:
            good = (
                row.paired.mean if row.paired.tasks else own.metric.sign * row.evaluation.score.mean
            )  # of other draws
            return row.evaluation.unscored, math.inf if math.isnan(good) else -good

        rows.sort(key=rank)
        others = [row for row in _alternatives(rows) if row.evaluation.name not in aside]
        ways = [row for row in others if row.evaluation.uses_other_tasks]
        by_themselves = [row for row in others if not row.evaluation.uses_other_tasks]
        chosen = next((row for row in by_themselves if row.evaluation.name == alone), _best(by_themselves))
        best, way = _best(others), _best(ways)
        assert best is not None, "a ladder has a rung"
        return cls(
            [Row.of(own, best.evaluation, baseline=False, chosen={}), *rows],
            alone=None if chosen is None else _surest(chosen, by_themselves).evaluation.name,
            way=None if way is None else way.evaluation.name,
            aside=frozenset(aside),
        )

    @property
    def learner(self) -> Row:
        """The row of the learner that the ladder stands beside."""
        return self.rows[0]

    @property
    def best_rung(self) -> Row:
        """The baseline that the learner is measured against."""
        return self._named(self.learner.against)

    @property
    def best_alone(self) -> Row | None:
        """The baseline that represents learning from each task alone."""
        return None if self.alone is None else self._named(self.alone)

    @property
    def best_way(self) -> Row | None:
        """The best baseline that uses other tasks."""
        return None if self.way is None else self._named(self.way)

    def _named(self, name: str) -> Row:
        return next(row for row in self.rows[1:] if row.evaluation.name == name)

    @property
    def undecided(self) -> list[Row]:
        """Baselines other than the best of each kind that do not differ significantly from the learner, or ran on few
        tasks."""
        best = {self.learner.against, self.alone, self.way}
        rows = [row for row in _alternatives(self.rows[1:]) if row.evaluation.name not in best]
        return [row for row in rows if row.evaluation.name in self.aside or not (row.better or row.worse)]

    @property
    def bought(self) -> Bought | None:
        """The gain from tuning the encoder, and of the learner beyond it; None if no baseline uses a tuned one."""
        frozen, tuned = (
            [row.evaluation for row in self.rows[1:] if row.evaluation.ground == ground] for ground in (FROZEN, TUNED)
        )
        counterparts = {one.learner: one for one in tuned}
        pairs = [(one, counterparts[one.learner]) for one in frozen if one.learner in counterparts]
        if not pairs:
            return None
        told = next((pair for pair in pairs if pair[0].learner == TOLD), pairs[0])
        return Bought(*told, tuned[0], self.learner.evaluation)


def _alternatives(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.evaluation.ground != TUNED]


def _best(rows: Sequence[Row]) -> Row | None:
    """The row that is significantly better than the learner by the most, else the best of those with the most tasks;
    rows are from best to worst."""
    surest = max((row for row in rows if row.better), key=lambda row: (-row.behind, row.paired.low), default=None)
    most = max((len(row.evaluation.scores) for row in rows), default=0)
    return surest or next((row for row in rows if len(row.evaluation.scores) == most), None)


def _surest(chosen: Row, rows: Sequence[Row]) -> Row:
    """The row that is significantly ahead of the chosen one by the most, on the common tasks; else the chosen one."""
    against = [(Row.of(row.evaluation, chosen.evaluation, baseline=True, chosen={}), row) for row in rows]
    ahead = [(pair.paired.low, row) for pair, row in against if row is not chosen and pair.behind <= 0 and pair.better]
    return max(ahead, key=lambda pair: pair[0], default=(0.0, chosen))[1]
