"""A collection of tasks: a table with a task column, such as one customer, shop or school per value."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Generator, Tensor

from handful.errors import DataError, UserError
from handful.tasks.distribution import SPLITS, Manifest, Pool, Size, SizeRanges, Sizes, Split, TaskDistribution
from handful.tasks.pipelines import InputPipeline
from handful.types import Examples, Task, TaskSpec

REDRAWS = 200


class TaskCollection(TaskDistribution):
    """Tasks that the user has: classification with shared labels, or regression. Tasks are split, not rows.

    `shot` is the number of support rows of a task (not per class). Training draws a random task of the split, `shot`
    rows as support and `query_shot` others as query. Validation and test go through the tasks in order, again and
    again with a new support, and score *all* remaining rows: draw i is of task i % units.

    Which tasks are used: those with at least shot + 1 rows. In training all draws have equally many query rows:
    `query_shot`, if at least half of these tasks have that many left, else as many as half of them have left (and the
    tasks with fewer are left out). `check` warns of what is left out.

    inputs: `(n, *input_shape)`, bytes stand for 0 to 1. targets: `(n,)` global class indices (integers) or
    `(n, outputs)` scaled values. tasks: `(n,)` task ids. names: of the tasks. splits: task ids of each split.
    classes: how many there are; None for regression. groups: `(n,)` ids or None: support and query of a draw never
    share one. pipeline: what made the inputs; the errors are reported in the units that it scales targets by.
    """

    default_sizes = SizeRanges(shot=5, query_shot=15)

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        tasks: Tensor,
        names: Sequence[str],
        *,
        splits: Mapping[Split, Sequence[int]],
        classes: int | None = None,
        groups: Tensor | None = None,
        pipeline: InputPipeline | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        self.inputs, self.targets, self.names = inputs, targets, list(names)
        self.tasks = tasks
        self.classes, self.groups = classes, groups
        self.pipeline = pipeline
        self.target_scale = 1.0 if pipeline is None else pipeline.target_scale
        self.splits = {on: sorted(splits[on]) for on in SPLITS}
        order = torch.argsort(tasks, stable=True)
        self.members = list(torch.split(order, torch.bincount(tasks, minlength=len(self.names)).tolist()))
        self.room = [self._room(task) for task in range(len(self.names))]
        self._settle(self.default_sizes.query_shot or 15)

    @property
    def ragged(self) -> bool:
        """Outside of training a task is scored on all its remaining rows, however many there are."""
        return self.on != "train"

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Classification with shared labels, or regression."""
        shape = tuple(self.inputs.shape[1:])
        if self.classes is not None:
            return TaskSpec("classification", shape, self.classes, "shared")
        return TaskSpec("regression", shape, self.targets.shape[1], "shared")

    def split(self, on: str) -> Self:
        """The same collection, drawing from another split; outside of training the query is all remaining rows."""
        other = super().split(on)
        other._settle(self.query_shot)
        return other

    def sized(self, way: Size | None = None, shot: Size | None = None, query_shot: Size | None = None) -> Self:
        """The same collection with other sizes; a collection fixes the number of its classes, so it has no way."""
        if way is not None:
            raise UserError("Tasks from a task column have the classes that they have: leave out --way.")
        other = copy.copy(self)
        other.sizes = SizeRanges(None, self.sizes.shot if shot is None else shot, query_shot or self.query_shot)
        other._settle(query_shot or self.query_shot)
        other.check()
        return other

    def _settle(self, query_shot: Size) -> None:
        """Find the tasks that can be drawn from the present split with the present sizes, and their query size."""
        self.query_shot = query_shot
        self.sizes = SizeRanges(None, self.sizes.shot, query_shot if self.on == "train" else None)
        shot, tasks = _largest(self.sizes.shot), self.splits[self.on]
        self.query_rows: int | None = None
        if self.on == "train":
            left = sorted(self.room[task] - shot for task in tasks if self.room[task] > shot)
            typical = left[len(left) // 2] if left else 1  # at least half of the tasks have this many left
            self.query_rows = min(typical, _largest(query_shot))
        self.eligible = [task for task in tasks if self.room[task] >= shot + (self.query_rows or 1)]

    def _room(self, task: int) -> int:
        """The most rows that support and query of a task can have together, with one query row at least."""
        members = self.members[task]
        if self.groups is None:
            return len(members)
        counts = torch.unique(self.groups[members], return_counts=True)[1]
        # One group at least goes to the query; the smallest leaves the most to the support.
        return len(members) - int(counts.min()) + 1 if len(counts) > 1 else 0

    @property
    def units(self) -> int:
        """The number of tasks that are drawn from."""
        return len(self.eligible)

    def unit(self, index: int) -> int:
        """The place of the task of draw `index` among those that are drawn from."""
        if self.on != "train":
            return index % self.units
        return self.eligible.index(int(self.tasks[self._rows(index)[0][0]]))

    def task(self, index: int) -> Task:
        """Draw `index` of the present split."""
        return self._task(*self._rows(index))

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw a random task of the present split, and its rows."""
        return self._task(*self._drawn(generator, sizes))

    def manifest(self, index: int) -> Manifest:
        """Row ids (from 0) of draw `index`."""
        support, query = self._rows(index)
        return Manifest((), tuple(support.tolist()), tuple(query.tolist()))

    def split_manifest(self) -> dict[str, list[str]]:
        """The task names of each split."""
        return {on: [self.names[task] for task in self.splits[on]] for on in SPLITS}

    def pool(self) -> Pool | None:
        """All rows of the present split, with their global classes or values."""
        rows = torch.cat([self.members[task] for task in self.splits[self.on]])

        def draw(generator: Generator, count: int) -> Examples:
            return self._examples(rows[torch.randint(len(rows), (count,), generator=generator)])

        return Pool(self.classes or self.targets.shape[1], draw)

    def check(self) -> None:
        """Raise a `DataError` where no task can be drawn; warn of tasks left out and of smaller queries."""
        tasks, shot = self.splits[self.on], _largest(self.sizes.shot)
        self._check_any()
        query = self.query_rows or 1
        if self.on == "train" and query < _largest(self.query_shot):
            _warn(
                f"Half of the training tasks have {shot + query} rows or fewer: training scores {query} query rows per "
                f"task and not {_largest(self.query_shot)}."
            )
        left_out = len(tasks) - len(self.eligible)
        if left_out:
            _warn(
                f"Left out: {left_out} of {len(tasks)} tasks of the {self.on} split, with fewer than {shot + query} "
                f"usable rows ({shot} to learn from, --shot, and {query} to be scored on"
                f"{', --query-shot' if self.on == 'train' else ''})."
            )

    def _check_any(self) -> None:
        if not self.eligible:
            tasks, shot = self.splits[self.on], _largest(self.sizes.shot)
            rows = sorted(((len(self.members[task]), self.names[task]) for task in tasks), reverse=True)
            raise DataError(
                f"No task of the {self.on} split has the {shot} support rows and a query row that it needs"
                f"{' in different groups' if self.groups is not None else ''} (most rows: "
                f"{', '.join(f'{name} ({count})' for count, name in rows[:3])}). Lower --shot, or add rows."
            )

    def _rows(self, index: int) -> tuple[Tensor, Tensor]:
        """Support and query row ids of draw `index`."""
        generator, sizes = self.generator_of(index), self.sizes_of(index)
        if self.on == "train":
            return self._drawn(generator, sizes)
        self._check_any()
        drawn = self._divided(self.eligible[index % len(self.eligible)], sizes.shot, None, generator)
        assert drawn is not None, "an eligible task can always be divided"
        return drawn

    def _drawn(self, generator: Generator, sizes: Sizes) -> tuple[Tensor, Tensor]:
        self._check_any()
        for _ in range(REDRAWS):
            task = self.eligible[int(torch.randint(len(self.eligible), (), generator=generator))]
            rows = self._divided(task, sizes.shot, self.query_rows, generator)
            if rows is not None:
                return rows
        raise DataError(
            f"No {sizes.shot} support and {self.query_rows} query rows without a common group were found in "
            f"{REDRAWS} draws. Lower --shot or --query-shot, or leave out --group."
        )

    def _divided(self, task: int, shot: int, query: int | None, generator: Generator) -> tuple[Tensor, Tensor] | None:
        """Disjoint support and query rows of a task; query None: all that remain. None if the groups leave too few."""
        members = self.members[task]
        members = members[torch.randperm(len(members), generator=generator)]
        if self.groups is None:
            return members[:shot], members[shot:] if query is None else members[shot : shot + query]
        groups, sizes = torch.unique(self.groups[members], return_counts=True)
        order = torch.randperm(len(groups), generator=generator)
        if sizes[order].cumsum(0)[-2] < shot:  # only the largest groups together hold the support
            order = sizes.argsort(descending=True, stable=True)
        count = int((sizes[order].cumsum(0) < shot).sum()) + 1
        on_support = torch.isin(self.groups[members], groups[order[:count]])
        support, rest = members[on_support][:shot], members[~on_support]
        if query is None:
            return support, rest
        return (support, rest[:query]) if len(rest) >= query else None

    def _task(self, support: Tensor, query: Tensor) -> Task:
        examples = self._examples(torch.cat([support, query]))
        count = len(support)
        return Task(
            Examples(examples.inputs[:count], examples.targets[:count]),
            Examples(examples.inputs[count:], examples.targets[count:]),
        )

    def _examples(self, rows: Tensor) -> Examples:
        inputs = self.inputs[rows]
        return Examples(inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs, self.targets[rows])


def _largest(size: Size) -> int:
    return size[1] if isinstance(size, tuple) else size


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
