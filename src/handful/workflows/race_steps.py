"""How many steps each candidate of a race takes: successive halving within a budget of time."""

from collections.abc import Sequence
from dataclasses import dataclass

from handful.training.budget import StepCount

KEPT = 3
"""One of so many candidates goes on to the next round."""
LAST_PART = 0.05
"""Of the schedule, which is taken however little time is left: the rate falls to zero in it."""


def rounds(candidates: int) -> list[int]:
    """How many candidates train in each round: a third of those before, down to one.

    A single one has two rounds, too, since steps are corrected before the last one.

    *Non-stochastic Best Arm Identification and Hyperparameter Optimization* (Jamieson & Talwalkar, 2016),
    https://arxiv.org/abs/1502.07943. Departure: a third goes on, not a half, so that the last one gets nearly half of
    the time.
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
    """At which step a candidate ends each round, if it is in all of them.

    seconds: of all rounds, of which each takes as long as another. counts: of candidates in each of them. per_step,
    per_validation: seconds of this candidate. validations: in the last round; the others have one.
    """
    ends, step = [], 0
    for number, count in enumerate(counts):
        scored = validations if number == len(counts) - 1 else 1
        own = seconds / len(counts) / count - scored * per_validation
        step += max(1, int(own / max(per_step, 1e-9)))
        ends.append(step)
    return ends


@dataclass(frozen=True)
class Course(StepCount):
    """The steps of a candidate of a race, and where it is on its schedule.

    first: as fixed before the first one. corrected: as fixed again before the last round, at `corrected_at`. ending:
    the step at which the schedule jumps to its last part, which then takes `ending_steps`.
    """

    corrected_at: int = 0
    ending: int | None = None
    ending_steps: int = 0

    @property
    def total(self) -> int:
        """The steps in all."""
        if self.ending is not None:
            return self.ending + self.ending_steps
        return self.first if self.corrected is None else self.corrected

    @property
    def correction_step(self) -> int:
        """The step at which they were corrected."""
        return self.corrected_at

    def position(self, step: int) -> float:
        """Where a step, counted from 0, is among the first-fixed steps, along which rates are scheduled."""
        if self.ending is None or step < self.ending:
            return self._unhurried(step)
        jumped = max(self._unhurried(self.ending), (1 - LAST_PART) * self.first)
        return jumped + (self.first - jumped) * (step - self.ending) / self.ending_steps

    def _unhurried(self, step: int) -> float:
        """The position where the schedule does not jump."""
        if self.corrected is None or step <= self.corrected_at:
            return step
        left, of_schedule = self.corrected - self.corrected_at, self.first - self.corrected_at
        return self.corrected_at + (step - self.corrected_at) * of_schedule / left
