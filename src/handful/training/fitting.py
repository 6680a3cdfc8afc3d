"""The parts of a learner that are fitted on the training tasks before training, such as boosted trees."""

import torch

from handful.errors import UserError
from handful.learners.learner import Learner
from handful.tasks.distribution import TaskDistribution
from handful.types import Examples, to_device


def fit(learner: Learner, tasks: TaskDistribution) -> TaskDistribution:
    """Fit the learner. Returns the tasks for its training, with columns appended to the inputs if it needs some.

    tasks: those to train on; returned unchanged if the learner has nothing to fit.
    """
    if not learner.fits:
        return tasks
    columns = learner.fit(to_device(rows_to_fit(learner, tasks), learner.device))
    return tasks if columns is None else tasks.with_columns(columns)


def rows_to_fit(learner: Learner, tasks: TaskDistribution) -> list[Examples]:
    """The rows of each training task; `UserError` if tasks do not have their own rows."""
    pool = tasks.pool()
    if pool is None or pool.by_task is None:
        raise UserError(
            f"The learner {learner.key!r} needs tables of tasks with common columns, but these tasks are drawn from "
            f"classes or by a generator, or have differing columns. Choose another learner or backbone."
        )
    return pool.by_task()


def part_of(rows: list[Examples], share: float) -> list[Examples]:
    """A share of each task's rows, at least one, evenly spread over them."""
    if share >= 1:
        return rows
    picked = [torch.linspace(0, len(one.inputs) - 1, max(1, round(share * len(one.inputs)))).long() for one in rows]
    return [Examples(one.inputs[ids], one.targets[ids]) for one, ids in zip(rows, picked, strict=True)]
