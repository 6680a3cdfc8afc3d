"""The schedule of an evaluation: the number of test tasks that fit into its time, and the time for everything else."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from handful.errors import count_of
from handful.evaluation.formatting import duration
from handful.evaluation.ladder import Ladder
from handful.evaluation.pace import Costs, choosing_tasks
from handful.tasks.distribution import TaskDistribution

TASKS, FEWEST = 600, 10
"""Default number of test tasks, and the minimum if the time is short."""
PART_FOR_SCORING, LEAST_FOR_SCORING = 0.6, 0.25
"""The share of the remaining time for scoring, and the share of the whole time that it may always use."""
PART_FOR_REST = 0.25
"""The share of the time after scoring that is reserved for the shots curve and the diagnosis."""
PASSES = 10
"""About how many times a diagnosis adapts to each task."""


@dataclass(frozen=True)
class Schedule:
    """The schedule of an evaluation.

    costs: of scoring, for each setting.
    tasks: to score, of `wanted` ones.
    end: by `time.monotonic`; infinite if nothing depends on the clock.
    slower: the ratio of actual to predicted scoring time.
    """

    costs: tuple[Costs, ...]
    tasks: int
    wanted: int
    end: float
    slower: float = 1.0

    @classmethod
    def of(
        cls, ladder: Ladder, places: Sequence[TaskDistribution], tasks: int | None, *, end: float, seconds: float
    ) -> "Schedule":
        """The schedule for these settings.

        tasks: a fixed number; None: `TASKS`, or as many as the time allows.
        seconds: of the whole evaluation.
        """
        wanted = TASKS if tasks is None else tasks
        found = cls(tuple(ladder.costs(place) for place in places), wanted, wanted, end)
        left = max(PART_FOR_SCORING * (end - time.monotonic()), LEAST_FOR_SCORING * seconds)
        if tasks is not None or math.isinf(end) or found.seconds <= left:
            return found
        found = replace(found, costs=tuple(ladder.costs(place, together=True) for place in places))
        counts = [*range(wanted, 100, -50), *range(100, FEWEST, -10)]
        fewer = (replace(found, tasks=count) for count in counts)
        return next((one for one in fewer if one.seconds <= left), replace(found, tasks=FEWEST))

    @property
    def choosing(self) -> int:
        """Validation tasks for each choice of options: fewer if fewer tasks than wanted are scored."""
        most = self.costs[0].choosing
        return most if self.tasks == self.wanted else choosing_tasks(self.tasks, most)

    @property
    def seconds(self) -> float:
        """Expected seconds of scoring."""
        return sum(costs.seconds(self.tasks, self.choosing, before=number) for number, costs in enumerate(self.costs))

    def described(self, ladder: Ladder) -> str:
        """How long the evaluation is expected to take, in words."""
        text = f"Scoring on {count_of(self.tasks, 'task')} is expected to take at most {duration(self.seconds)}."
        if self.tasks < self.wanted:
            text += f" More tasks, up to {self.wanted:,}, would exceed the time."
        if any(rung.learner.costly for rung in ladder.rungs):
            text += f" Baselines that train a network for each task get the rest of {duration(60 * ladder.minutes)}."
        return text

    def notes(self) -> Iterable[str]:
        """The notes for a report."""
        if self.tasks < self.wanted:
            yield f"Scored on {count_of(self.tasks, 'task')} instead of {self.wanted:,}, for lack of time."

    def after_scoring(self, seconds: float) -> "Schedule":
        """The same, once it is known how long scoring took."""
        return replace(self, slower=seconds / self.seconds)

    def end_of_costly(self, *, sizes: int, curve_tasks: int, diagnosis_tasks: int) -> float:
        """The time by which costly baselines must end to leave enough for a shots curve and a diagnosis.

        sizes: of the curve; 0: no curve.
        """
        if math.isinf(self.end):
            return time.monotonic()  # there are none
        rest = self._curve_seconds(sizes, min(self.tasks, curve_tasks)) + self._diagnosis_seconds(diagnosis_tasks)
        return self.end - min(rest, PART_FOR_REST * max(0.0, self.end - time.monotonic()))

    def curve_tasks(self, sizes: int, most: int) -> int:
        """As many tasks as the time allows in a shots curve of so many sizes; 0 for fewer than `FEWEST`."""
        most, left = min(self.tasks, most), self.end - time.monotonic()
        fitting = (count for count in range(most, 0, -1) if self._curve_seconds(sizes, count) <= left)
        found = next(fitting, 0)
        return found if found >= min(FEWEST, most) else 0

    def diagnosis_tasks(self, most: int) -> int:
        """As many tasks as the time allows in a diagnosis; 0 for fewer than it needs."""
        left = self.end - time.monotonic()
        return next((count for count in range(most, 1, -1) if self._diagnosis_seconds(count) <= left), 0)

    def _curve_seconds(self, sizes: int, tasks: int) -> float:
        if not sizes:
            return 0.0
        return self.slower * self.costs[0].curve_seconds(self.tasks, tasks, sizes, self.choosing)

    def _diagnosis_seconds(self, tasks: int) -> float:
        return self.slower * self.costs[0].own.of(PASSES * tasks)
