"""A collection of tasks: a table with a task column, such as one customer, shop or school per value."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Self

import torch
from torch import Generator, Tensor, nn

from handful.errors import DataError, UserError
from handful.functional.own_settings import own_settings
from handful.notes import note
from handful.pipelines.pipeline import WHOLE, InputPipeline, floats, prepared
from handful.tasks.distribution import (
    SPLITS,
    Manifest,
    Pool,
    Rows,
    Size,
    SizeRanges,
    Sizes,
    Split,
    in_order,
    owned,
)
from handful.tasks.features import Features
from handful.tasks.training_sizes import Block, TrainingSizes, UserTasks
from handful.types import Examples, Task, TaskSpec


class TaskCollection(UserTasks):
    """A fixed collection of tasks: classification with shared labels, or regression. Tasks are split, not rows.

    `shot` is the number of support rows of a task (not per class). Training draws a random task of the split, `shot`
    rows as support and `query_shot` others as query. Validation and test cycle through the tasks in order, each time
    with a new support, and score *all* remaining rows: draw i is of task i % units.

    Which tasks are used: in training, all that have two rows, see `TrainingSizes`. In validation and test, tasks have
    to have shot + 1 rows. `check` makes a note of what is left out.

    inputs: `(n, *input_shape)`, bytes stand for 0 to 1.
    targets: `(n,)` global class indices (integers) or `(n, outputs)` scaled values.
    tasks: `(n,)` task ids.
    names: of the tasks.
    splits: task ids of each split.
    classes: their number; None for regression.
    groups: `(n,)` ids or None: support and query of a draw never share one.
    order: `(n,)` places in time or None: all support rows of a draw are before all of its query rows, see `_in_order`.
    pipeline: encoded the inputs; errors are in its units of the target.
    copy: whether tensors are copied, so that later changes by the caller do not change tasks.
    """

    default_sizes = SizeRanges(shot=5, query_shot=15)
    nouns = ("tasks", "rows", "training draws")
    columns: Tensor | None = None

    @own_settings()
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
        order: Tensor | None = None,
        pipeline: InputPipeline | None = None,
        seed: int = 0,
        copy: bool = True,
    ) -> None:
        super().__init__(seed=seed)
        inputs, targets, tasks, groups, order = owned(
            copy=copy, inputs=inputs, targets=targets, tasks=tasks, groups=groups, order=order
        )
        self.inputs, self.targets, self.names = inputs, _as_learned(targets, classes), list(names)
        self.tasks = tasks
        self.classes, self.groups, self.order = classes, groups, order
        self.pipeline = pipeline
        if pipeline is not None:
            self.target_mean, self.target_scale = pipeline.target_mean, pipeline.target_scale
        self.splits = {on: sorted(splits[on]) for on in SPLITS}
        self.members = list(
            torch.split(in_order(tasks, order), torch.bincount(tasks, minlength=len(self.names)).tolist())
        )
        self.room = [self._room(task) for task in range(len(self.names))]
        self.sizes = replace(self.sizes, shot=self._fitting_shot())
        self._settle(self.sizes.largest().query_shot)

    @property
    def ragged(self) -> bool:
        """Outside of training, a task is scored on all its remaining rows."""
        return self.split_name != "train"

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Classification with shared labels, or regression."""
        shape = tuple(self.inputs.shape[1:])
        if self.columns is not None:
            shape = (shape[0] + self.columns.shape[1],)
        if self.classes is not None:
            return TaskSpec("classification", shape, self.classes, "shared")
        return TaskSpec("regression", shape, self.targets.shape[1], "shared")

    def split(self, on: str) -> Self:
        """The same collection, drawing from another split; outside of training the query is all remaining rows."""
        other = super().split(on)
        other._settle(self.query_shot)
        return other

    def with_sizes(self, way: Size | None = None, shot: Size | None = None, query_shot: Size | None = None) -> Self:
        """The same collection with other sizes; a collection fixes the number of its classes, so it has no way."""
        if way is not None:
            raise UserError(
                "The way of tasks from a task column is fixed by the data.", field=("way",), hint="Remove {way}."
            )
        other = copy.copy(self)
        query_shot = self.query_shot if query_shot is None else query_shot
        other.sizes = SizeRanges(None, self.sizes.shot if shot is None else shot, query_shot)
        other._settle(query_shot)
        other.check()
        return other

    def _settle(self, query_shot: Size) -> None:
        """Find the tasks that can be drawn from the present split with the present sizes."""
        self.query_shot = query_shot
        self.sizes = SizeRanges(None, self.sizes.shot, query_shot if self.split_name == "train" else None)
        fewest = 2 if self.split_name == "train" else _largest(self.sizes.shot) + 1
        self.eligible = [task for task in self.splits[self.split_name] if self.room[task] >= fewest]
        self.places = {task: place for place, task in enumerate(self.eligible)}
        asked = Sizes(0, _largest(self.sizes.shot), _largest(query_shot))
        rooms = {task: self.room[task] for task in self.eligible}
        self._training_sizes = TrainingSizes(rooms, self._left, asked) if self.split_name == "train" else None

    def _fitting_shot(self) -> int:
        """As many support rows as by default, or as leave half of the tasks of each split a query row."""
        found = [self.default_sizes.largest().shot]
        for on in ("val", "test"):
            rooms = sorted((self.room[task] for task in self.splits[on] if self.room[task] > 1), reverse=True)
            found += [rooms[(len(rooms) + 1) // 2 - 1] - 1] if rooms else []
        return min(found)

    def training_sizes(self, way: int = 0) -> TrainingSizes | None:
        """Those of training tasks; None in other splits."""
        return self._training_sizes

    def _room(self, task: int) -> int:
        """The most rows that support and query of a task can have together, with one query row at least."""
        members = self.members[task]
        if self.order is not None:
            times = self.order[members]
            before = int((times < times[-1:]).sum())  # none of those at the last moment has a later query row
            return before + 1 if before else 0
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
        if self.split_name != "train":
            return index % self.units
        return self.places[int(self.tasks[self._rows(index)[0][0]])]

    def task(self, index: int) -> Task:
        """Draw `index` of the present split."""
        return self._task(*self._rows(index))

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw a random task of the present split that has so many rows, and its rows."""
        if self.split_name == "train":
            return self._task(*self._drawn(generator, Block(sizes)))
        self._check_any()
        task = self.eligible[int(torch.randint(len(self.eligible), (), generator=generator))]
        return self._task(*self._divided(task, sizes.shot, None, generator))

    def manifest(self, index: int) -> Manifest:
        """Row ids (from 0) of draw `index`."""
        support, query = self._rows(index)
        return Manifest((), tuple(support.tolist()), tuple(query.tolist()))

    def split_manifest(self) -> dict[str, list[str]]:
        """The task names of each split."""
        return {on: [self.names[task] for task in self.splits[on]] for on in SPLITS}

    def pool(self) -> Pool | None:
        """All rows of the present split, with their global classes or values."""
        members = [self.members[task] for task in self.splits[self.split_name]]
        rows = torch.cat(members)

        def draw(generator: Generator, count: int) -> Examples:
            return self._examples(rows[torch.randint(len(rows), (count,), generator=generator)])

        def by_task() -> list[Examples]:
            return [self._examples(own) for own in members if len(own)]

        return Pool(self.classes or self.targets.shape[1], draw, by_task)

    def mapped(self, network: nn.Module) -> Self | None:
        """The same tasks on features; None if examples depend on one another."""
        if not self.nested:
            return None
        other = copy.copy(self)
        other.inputs = Features.of(self.inputs, self._prepare, network)
        return other

    def rows(self) -> Rows | None:
        """All rows of the tasks of the split; None if examples depend on one another."""
        if not self.nested or self.columns is not None or isinstance(self.inputs, Features):
            return None
        ids = torch.cat([self.members[task] for task in self.splits[self.split_name]])
        return Rows(self.inputs, ids, self._prepare)

    def with_columns(self, columns: Sequence[Tensor]) -> Self:
        """The same tasks with columns behind the inputs `(n, d)`: for the rows of `pool().by_task()`, task by task.

        Rows of other splits have none, that is, NaN.
        """
        rows = torch.cat([self.members[task] for task in self.splits[self.split_name]])
        given = torch.cat(list(columns)).cpu()
        other = copy.copy(self)
        other.columns = torch.full((len(self.inputs), given.shape[1]), torch.nan)
        other.columns[rows] = given
        return other

    def check(self) -> None:
        """Raise `DataError` if no task has enough rows for the sizes; make a note of tasks that are left out."""
        tasks, shot = self.splits[self.split_name], _largest(self.sizes.shot)
        self._check_any()
        left_out = len(tasks) - len(self.eligible)
        if left_out:
            fewest = "2 usable rows (1 to learn from and 1 to be scored on)"
            if self.split_name != "train":
                fewest = f"{shot + 1} usable rows ({shot} to learn from and 1 to be scored on)"
            note(
                "left-out",
                f"Left out: {left_out} of {len(tasks)} tasks of the {self.split_name} split, with fewer than {fewest}.",
            )

    def _check_any(self) -> None:
        shot = _largest(self.sizes.shot)
        if not any(self.room[task] > shot for task in self.eligible):
            tasks = self.splits[self.split_name]
            rows = sorted(((len(self.members[task]), self.names[task]) for task in tasks), reverse=True)
            raise DataError(
                f"No task of the {self.split_name} split has {shot} support rows and a query row"
                f"{' in different groups' if self.groups is not None else ''} (most rows: "
                f"{', '.join(f'{name} ({count})' for count, name in rows[:3])}).",
                code="too-few-examples",
                hint="Lower {shot}, or add rows.",
            )

    def _left(self, task: int, shot: int) -> int:
        """The number of query rows that a task is certain to have beside a support of `shot` rows: 0 or less if it is
        too small."""
        if self.order is not None:
            times = self.order[self.members[task]]
            return int((times > times[shot - 1]).sum()) if shot <= len(times) else 0
        if self.groups is None:
            return len(self.members[task]) - shot
        counts = torch.unique(self.groups[self.members[task]], return_counts=True)[1].sort(descending=True).values
        return len(self.members[task]) - int(counts[: _needed(counts, shot)].sum())

    def _rows(self, index: int) -> tuple[Tensor, Tensor]:
        """Support and query row ids of draw `index`."""
        generator = self.generator_of(index)
        self._check_any()
        if self.split_name == "train":
            return self._drawn(generator, self.block_at(index))
        return self._divided(self.eligible[index % len(self.eligible)], self.sizes_of(index).shot, None, generator)

    def _drawn(self, generator: Generator, block: Block) -> tuple[Tensor, Tensor]:
        assert self._training_sizes is not None
        tasks, (_, shot, query_shot) = self._training_sizes.drawn_from(block), astuple(block.sizes)
        if not tasks:
            raise DataError(
                f"No task of the {self.split_name} split has {shot} support and {query_shot} query rows"
                f"{' in different groups' if self.groups is not None else ''}.",
                code="too-few-examples",
                hint="Lower {shot} or {query_shot}.",
            )
        task = tasks[int(torch.randint(len(tasks), (), generator=generator))]
        return self._divided(task, shot, query_shot, generator)

    def _divided(self, task: int, shot: int, query: int | None, generator: Generator) -> tuple[Tensor, Tensor]:
        """Disjoint support and query rows of a task that has so many; query None: all that remain."""
        members = self.members[task]
        if self.order is not None:
            return self._in_order(members, shot, query, generator)
        members = members[torch.randperm(len(members), generator=generator)]
        if self.groups is None:
            return members[:shot], members[shot:] if query is None else members[shot : shot + query]
        groups, sizes = torch.unique(self.groups[members], return_counts=True)
        order = torch.randperm(len(groups), generator=generator)
        if len(members) - int(sizes[order[: _needed(sizes[order], shot)]].sum()) < (query or 1):
            order = sizes.argsort(descending=True, stable=True)  # few and large groups, if the others leave too little
        on_support = torch.isin(self.groups[members], groups[order[: _needed(sizes[order], shot)]])
        rest = members[~on_support]
        return members[on_support][:shot], rest if query is None else rest[:query]

    def _in_order(self, members: Tensor, shot: int, query: int | None, generator: Generator) -> tuple[Tensor, Tensor]:
        """Rows one after another as support, from a random one on, and as query any or all that are later."""
        assert self.order is not None
        times = self.order[members]
        later = torch.searchsorted(times, times[shot - 1 :], right=True)  # the first later row, for each start
        starts = (len(members) - later >= (query or 1)).nonzero().flatten()
        start = int(starts[torch.randint(len(starts), (), generator=generator)])
        rest = members[later[start] :]
        if query is not None:
            rest = rest[torch.randperm(len(rest), generator=generator)[:query]]
        return members[start : start + shot], rest

    def _task(self, support: Tensor, query: Tensor) -> Task:
        examples = self._examples(torch.cat([support, query]))
        count = len(support)
        return Task(
            Examples(examples.inputs[:count], examples.targets[:count]),
            Examples(examples.inputs[count:], examples.targets[count:]),
        )

    def _examples(self, rows: Tensor) -> Examples:
        inputs = self.inputs[rows]
        inputs = inputs if isinstance(self.inputs, Features) else self._prepare(inputs)
        if self.columns is not None:
            inputs = torch.cat([inputs, self.columns[rows]], dim=1)
        return Examples(inputs, self.targets[rows])

    def _prepare(self, raw: Tensor) -> Tensor:
        return self.pipeline.prepare(raw) if self.pipeline else prepared(raw)


def _as_learned(targets: Tensor, classes: int | None) -> Tensor:
    """Targets in the form that losses need: class numbers `(n,)` in 64 bits, or floats `(n, outputs)`; else a
    `DataError`."""
    if classes is None and targets.ndim == 2:
        return floats(targets)
    if classes is None or targets.ndim != 1 or targets.dtype not in WHOLE:
        wanted = "values (n, outputs)" if classes is None else "whole numbers of classes (n,)"
        raise DataError(
            f"The targets are {targets.dtype} of shape {tuple(targets.shape)}, but should be {wanted}.",
            code="wrong-shape",
        )
    wrong = ((targets < 0) | (targets >= classes)).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise DataError(
            f"Example {place} is of class {int(targets[place])}, but the {classes} classes are 0 to {classes - 1}.",
            code="unknown-label",
        )
    return targets.long()


def _needed(sizes: Tensor, shot: int) -> int:
    """How many of the first groups of these sizes it takes to hold a support."""
    return int((sizes.cumsum(0) < shot).sum()) + 1


def _largest(size: Size) -> int:
    return size[1] if isinstance(size, tuple) else size
