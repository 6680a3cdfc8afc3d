"""Costly baselines of the ladder, which train a network for each task: scored on as many tasks as the time allows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from handful.evaluation.comparison import Comparison
from handful.evaluation.ladder import Ladder, Rung
from handful.evaluation.scoring import Evaluation, cost
from handful.tasks.distribution import TaskDistribution
from handful.types import TaskState

FIRST_TASKS, FEWEST_TASKS = 5, 2
"""Tasks on which a costly baseline is scored first, and at least: a single one has no interval."""
DECIDING = 20
"""Tasks that each baseline gets if the time allows: among several baselines on few tasks, one is soon ahead by chance.
One that tunes an encoder is not begun if it would get fewer, which take minutes and decide nothing."""
STOPPING = 0.001
"""The alpha of the interval that stops a baseline early. Repeated looks at 95 % intervals find a nonexistent
difference far more often than in 5 %; looks this strict hardly add to the error of the last one: Haybittle, *Repeated
assessment of results in clinical trials of cancer treatment* (1971), https://doi.org/10.1259/0007-1285-44-526-793."""
CHOOSING_TASKS = 5
"""Validation tasks for each choice of options, at most."""
PART_FOR_CHOOSING = 0.5
"""The share of the remaining time for choosing options."""


@dataclass
class Climb:
    """A costly baseline in progress: its scores so far.

    seconds: per task.
    measured: see `scoring.evaluate`.
    found, chosen: its scores, and the options for them.
    by_default: whether these are its defaults for lack of time to choose.
    first, least: on how many tasks it is scored first, and at least.
    """

    rung: Rung
    seconds: float
    measured: tuple[float, TaskState]
    found: Evaluation | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    by_default: bool = False
    first: int = FIRST_TASKS
    least: int = FEWEST_TASKS

    @property
    def done(self) -> int:
        """On how many tasks it was scored."""
        return 0 if self.found is None else len(self.found.scores)


@dataclass(frozen=True)
class Costly:
    """The results of the costly baselines.

    comparison: with those that were scored.
    left_out: the names of those skipped for lack of time, with the seconds that a task takes (None: not measured).
    by_default: the names of those with default options for lack of time to choose.
    """

    comparison: Comparison
    left_out: dict[str, float | None]
    by_default: tuple[str, ...] = ()


def with_costly(
    ladder: Ladder,
    comparison: Comparison,
    setting: TaskDistribution,
    validation: TaskDistribution,
    *,
    tasks: int,
    seconds: float,
) -> Costly:
    """Add the ladder's costly baselines to its comparison on `setting`.

    The cheapest comes first, each on `FIRST_TASKS` tasks, or on `DECIDING` if it tunes an encoder. Then those on fewer
    than `DECIDING`, and those whose paired difference to the learner is undecided (see `STOPPING`), get twice as many,
    the cheapest first, until all `tasks` are scored or the time is over. One on fewer than `FIRST_TASKS` decides
    nothing. Options are chosen on tasks of `validation`; if the time is short, on fewer, or they stay the defaults.

    seconds: the time limit. The time of each piece of work is predicted beforehand, to stay within it.
    """
    end = time.monotonic() + seconds
    climbs = [] if seconds <= 0 else _measured(ladder, setting, tasks, end)
    own = comparison.learner.evaluation
    for climb in climbs:
        _begin(ladder, climb, setting, validation, end)
    going = [climb for climb in climbs if climb.found is not None]
    while going := [climb for climb in going if climb.done < tasks and _open(climb, own)]:
        going.sort(key=lambda climb: climb.done * climb.seconds)
        climb, more = going[0], min(going[0].done, tasks - going[0].done)
        if more * climb.seconds > end - time.monotonic():
            going.remove(climb)
            continue
        _go_on(ladder, climb, setting, more)
    ended = [climb for climb in climbs if climb.found is not None]
    per_task = {climb.rung.name: climb.seconds for climb in climbs}
    named = {climb.rung.name for climb in ended}
    left_out = {
        rung.name: per_task.get(rung.name) for rung in ladder.rungs if rung.learner.costly and rung.name not in named
    }
    by_default = [climb.rung.name for climb in ended if climb.by_default]
    return Costly(_joined(comparison, ended, tasks), left_out, tuple(by_default))


def _measured(ladder: Ladder, setting: TaskDistribution, tasks: int, end: float) -> list[Climb]:
    """All costly baselines with their times, the cheapest first, without those for which no time is left."""
    climbs = []
    rungs = [rung for rung in ladder.rungs if rung.learner.costly]
    for rung in sorted(rungs, key=lambda rung: rung.learner.start == "encoder"):  # which takes longest by far
        if time.monotonic() + rung.ground.seconds_to_open >= end:
            continue
        counts = (DECIDING, DECIDING) if rung.learner.start == "encoder" else (FIRST_TASKS, FEWEST_TASKS)
        first, least = (min(count, tasks) for count in counts)
        options, part = rung.learner.sample
        seconds, state = cost(ladder.build(rung, dict(options)), rung.ground.tasks(setting))
        climb = Climb(rung, seconds / part, (seconds, state), first=first, least=least)
        if part < 1 and least * climb.seconds <= end - time.monotonic():  # else it is not begun, so this will do
            climb.measured = cost(ladder.build(rung, {}), rung.ground.tasks(setting))
            climb.seconds = climb.measured[0]
        climbs.append(climb)
    return sorted(climbs, key=lambda climb: climb.seconds)


def _begin(ladder: Ladder, climb: Climb, setting: TaskDistribution, validation: TaskDistribution, end: float) -> None:
    """Choose options and score the first tasks, or none if the time does not suffice for the least number."""

    def affordable() -> int:
        return int((end - time.monotonic()) / max(climb.seconds, 1e-6))

    if affordable() < climb.least:
        return
    _choose(ladder, climb, validation, affordable())
    if (few := min(climb.first, affordable())) >= climb.least:
        _go_on(ladder, climb, setting, few)


def _choose(ladder: Ladder, climb: Climb, validation: TaskDistribution, affordable: int) -> None:
    """Choose the best options on validation tasks, whose number is a share of the affordable tasks."""
    choices = climb.rung.choices
    count = min(CHOOSING_TASKS, int(PART_FOR_CHOOSING * affordable / len(choices)))
    if len(choices) == 1:
        climb.chosen = choices[0]
    elif count < 1:
        climb.by_default = True
    else:
        climb.chosen = ladder.choose(climb.rung, validation, count, measured=climb.measured)


def _go_on(ladder: Ladder, climb: Climb, setting: TaskDistribution, count: int) -> None:
    """Score so many more tasks, and update the time per task."""
    start = time.monotonic()
    more = ladder.scored(climb.rung, climb.chosen, setting, count, first=climb.done, measured=climb.measured)
    climb.seconds = (time.monotonic() - start) / count
    climb.found = more if climb.found is None else climb.found.followed_by(more)


def _open(climb: Climb, own: Evaluation) -> bool:
    """Whether more tasks may change the conclusion about a baseline."""
    assert climb.found is not None, "it has begun"
    if climb.done < DECIDING:
        return True
    ahead = climb.found.gain_over(own, alpha=STOPPING)
    return not (climb.found.behind(own) or ahead.low > 0 or ahead.high < 0)


def _joined(comparison: Comparison, climbs: Sequence[Climb], tasks: int) -> Comparison:
    """The comparison with more rungs."""
    found = [(row.evaluation, row.chosen) for row in comparison.rows[1:]]
    found += [(climb.found, climb.chosen) for climb in climbs if climb.found is not None]
    aside = {climb.rung.name for climb in climbs if climb.done < min(FIRST_TASKS, tasks)}
    return Comparison.of(comparison.learner.evaluation, found, aside=aside, alone=comparison.alone)
