"""The number of steps of each candidate of a race: successive halving within a time budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from handful.training.budget import StepCount

KEPT = 3
"""One in so many candidates continues to the next round."""
LAST_ROUND = 0.4
"""Share of the time for the last round, or an equal one if that is more; the others share the rest equally."""
LAST_PART = 0.05
"""The last share of the schedule, in which the rate falls to zero; it is taken even if little time is left."""


def rounds(candidates: int) -> list[int]:
    """How many candidates train in each round: a third of those before, down to one.

    A single one has two rounds, too, since the number of steps is corrected before the last one.

    *Non-stochastic Best Arm Identification and Hyperparameter Optimization* (Jamieson & Talwalkar, 2016),
    https://arxiv.org/abs/1502.07943. Departures: a third continues, not a half, and of three rounds the last one is the
    longest (`LAST_ROUND`), so that the winner gets half of the time or more.
    """
    if candidates < 2:
        return [1, 1] if candidates else []
    counts = [candidates]
    while counts[-1] > 1:
        counts.append(max(1, round(counts[-1] / KEPT)))
    return counts


def targets(
    seconds: float, counts: Sequence[int], per_step: float, per_validation: float, validations: int
) -> list[int]:
    """The step at which a candidate ends each round, if it is in all of them.

    seconds: of all rounds.
    counts: of candidates in each of them, who share its time equally.
    per_step, per_validation: seconds of this candidate.
    validations: in the last round; the others have one.
    """
    ends, step, last = [], 0, len(counts) - 1
    longest = max(LAST_ROUND, 1 / len(counts))
    for number, count in enumerate(counts):
        share = longest if number == last else (1 - longest) / last
        scored = validations if number == last else 1
        own = share * seconds / count - scored * per_validation
        step += max(1, int(own / max(per_step, 1e-9)))
        ends.append(step)
    return ends


@dataclass(frozen=True)
class Course(StepCount):
    """The steps of a candidate of a race, and its position on the schedule.

    first: their number as planned.
    corrected: their number as planned again before the last round, at `corrected_at`.
    ending: the step at which the schedule jumps to its last part, which then takes `ending_steps`.
    """

    corrected_at: int = 0
    ending: int | None = None
    ending_steps: int = 0

    @property
    def total(self) -> int:
        """The total number of steps."""
        if self.ending is not None:
            return self.ending + self.ending_steps
        return self.first if self.corrected is None else self.corrected

    @property
    def correction_step(self) -> int:
        """The step at which they were corrected."""
        return self.corrected_at

    def position(self, step: int) -> float:
        """The position of a step, counted from 0, among the first-planned steps, along which rates are scheduled."""
        if self.ending is None or step < self.ending:
            return self._unhurried(step)
        jumped = max(self._unhurried(self.ending), (1 - LAST_PART) * self.first)
        return jumped + (self.first - jumped) * (step - self.ending) / self.ending_steps

    def _unhurried(self, step: int) -> float:
        """The position without a jump of the schedule."""
        if self.corrected is None or step <= self.corrected_at:
            return step
        left, of_schedule = self.corrected - self.corrected_at, self.first - self.corrected_at
        return self.corrected_at + (step - self.corrected_at) * of_schedule / left
