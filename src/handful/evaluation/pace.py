"""The time of scoring, predicted from a few tasks, so that an evaluation keeps to its time limit."""

import math
import time
from dataclasses import dataclass

import torch

from handful.engine.devices import wait_for
from handful.engine.evaluation_copy import evaluation_copy
from handful.evaluation.scoring import cost, evaluate, works_on_features
from handful.learners.learner import Learner
from handful.tasks.distribution import TaskDistribution
from handful.types import to_device

TRIED, TRIED_SECONDS = 16, 2.0
"""The number of tasks that are timed together at most, and for about how long."""
FEWEST_CHOOSING, PART_FOR_CHOOSING = 5, 4
"""Validation tasks for a choice if the time is short: the minimum, and scored tasks for each one."""


@dataclass(frozen=True)
class Pace:
    """How long a learner takes to be scored.

    seconds: for a task.
    most: tasks that together contain all rows of the data, if features of a row are computed only once: more tasks take
        no longer. Otherwise infinite.
    choices: how often it is scored on validation tasks.
    """

    seconds: float
    most: float = math.inf
    choices: int = 0

    def of(self, tasks: float) -> float:
        """Seconds for so many tasks."""
        return self.seconds * min(tasks, self.most)


@dataclass(frozen=True)
class Costs:
    """The time of scoring a learner and its ladder on one setting.

    choosing: validation tasks for each choice of options, if the time is not short.
    """

    own: Pace
    rungs: tuple[Pace, ...]
    choosing: int

    def seconds(self, tasks: int, choosing: int, *, before: int = 0) -> float:
        """For so many tasks, with options chosen on so many validation tasks.

        before: how many settings of as many tasks come before, for which features of rows are already computed.
        """

        def more(pace: Pace, count: int) -> float:
            return pace.of((before + 1) * count) - pace.of(before * count)

        return more(self.own, tasks) + sum(more(rung, tasks + rung.choices * choosing) for rung in self.rungs)

    def curve_seconds(self, scored: int, tasks: int, sizes: int, choosing: int) -> float:
        """For a shots curve on so many tasks of each size, after so many were scored: of the learner and two rungs."""

        def more(pace: Pace, count: int) -> float:
            return pace.of(scored + count) - pace.of(scored)

        # Tasks of the curve are larger than those that were timed: about twice, with the shots of a default curve.
        rungs = sorted(more(rung, sizes * (2 * tasks + rung.choices * choosing)) for rung in self.rungs)
        return more(self.own, 2 * sizes * tasks) + sum(rungs[-2:])


def pace(learner: Learner, setting: TaskDistribution, *, choices: int = 0, together: bool = False) -> Pace:
    """The pace of a learner, by the second of two tries of the first task.

    together: by a few tasks at once, which may take less time than one by one.
    choices: see `Pace`.
    """
    task, copy = to_device(setting.task(0), learner.device), evaluation_copy(learner)
    seconds = 0.0
    with torch.no_grad():
        for _ in range(2):
            start = time.perf_counter()
            copy.predict(copy.adapt(task.support, setting.spec_of(0)), task.query.inputs)
            wait_for(learner.device)
            seconds = time.perf_counter() - start
    rows = setting.rows() if works_on_features(learner) else None
    if rows is not None:
        return Pace(seconds, len(rows) / (len(task.support.inputs) + len(task.query.inputs)), choices)
    if together:
        count = max(2, min(TRIED, int(TRIED_SECONDS / max(seconds, 1e-6))))
        measured = cost(learner, setting)
        start = time.perf_counter()
        evaluate(learner, setting, tasks=count, measured=measured)
        seconds = (time.perf_counter() - start) / count
    return Pace(seconds, choices=choices)


def choosing_tasks(tasks: int, most: int) -> int:
    """Validation tasks for a choice of options, `most` if the time is not short."""
    return min(most, max(FEWEST_CHOOSING, tasks // PART_FOR_CHOOSING))
