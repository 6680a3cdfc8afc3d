"""What of a learner is fitted on the training tasks before any training, such as boosted trees."""

import torch

from handful.errors import UserError
from handful.learners.learner import Learner
from handful.tasks.distribution import TaskDistribution
from handful.types import Examples, to_device


def fit(learner: Learner, tasks: TaskDistribution) -> TaskDistribution:
    """Fit it, and the tasks as its training sees them: with columns behind the inputs, where it wants some.

    tasks: those to train on; they come back as they are where the learner has nothing to fit.
    """
    if not learner.fits:
        return tasks
    columns = learner.fit(to_device(rows_to_fit(learner, tasks), learner.device))
    return tasks if columns is None else tasks.with_columns(columns)


def rows_to_fit(learner: Learner, tasks: TaskDistribution) -> list[Examples]:
    """The rows of each training task; a `UserError` where tasks have none that are theirs alone."""
    pool = tasks.pool()
    if pool is None or pool.by_task is None:
        raise UserError(
            f"The learner {learner.key!r} is fitted on all rows of tables of tasks, and these tasks are drawn from "
            "classes or by a generator, or have columns of their own. Choose another learner or backbone."
        )
    return pool.by_task()


def part_of(rows: list[Examples], share: float) -> list[Examples]:
    """A share of each task's rows, at least one, evenly spread over them."""
    if share >= 1:
        return rows
    picked = [torch.linspace(0, len(one.inputs) - 1, max(1, round(share * len(one.inputs)))).long() for one in rows]
    return [Examples(one.inputs[ids], one.targets[ids]) for one, ids in zip(rows, picked, strict=True)]
