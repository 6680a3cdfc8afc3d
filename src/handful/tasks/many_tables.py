"""Many tables as tasks: tables with differing columns, one of which is to be predicted, a number or a class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from handful import streams
from handful.cells import class_order
from handful.data_options import DataOptions
from handful.errors import unknown_name
from handful.limits import LOCAL, Limits
from handful.pipelines.own_tables import Layout, ManyTablesPipeline, measured, standardized
from handful.readers.paths import note_passed_over
from handful.readers.reader import read
from handful.readers.tables import table_files
from handful.table import Table
from handful.tasks.distribution import SPLITS, Pool, SizeRanges, Sizes, Split, places_in_time
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.own_rows import everywhere
from handful.tasks.splits import Contents, digests, own_order, split_names
from handful.tasks.task_collection import TaskCollection
from handful.types import Examples, Task, TaskSpec

WIDEST = 64
"""The most places that the inputs of a learner have for features, unless a pipeline says otherwise."""


class ManyTables(TaskCollection):
    """Regression tasks that are tables with differing columns. Tables are split, not rows.

    Inputs and target of a draw are standardized by its support alone, and laid out at random (see `Layout`): positions
    of features carry no meaning, so a learner must infer them from the support. Values, also targets, are clipped at 5
    deviations of the support from its mean: a single one would dominate the score. Errors are in the deviations of the
    support. Which rows are drawn, see `TaskCollection`.

    features, targets: of each table `(rows, features)` and `(rows, 1)`, both of the order of 1.
    names: of the tables.
    splits: numbers of the tables of each split.
    pipeline: encodes new tables; its width is that of the inputs.
    order: of all rows, see `TaskCollection`.
    """

    error_unit = "deviations of the examples' targets"
    nested = False

    def __init__(
        self,
        features: Sequence[Tensor],
        targets: Sequence[Tensor],
        names: Sequence[str],
        *,
        splits: Mapping[Split, Sequence[int]],
        pipeline: "ManyTablesPipeline",
        order: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        tasks = torch.arange(len(features)).repeat_interleave(torch.tensor([len(table) for table in features]))
        self.width = pipeline.width
        super().__init__(
            _as_one(features),
            torch.cat(list(targets)),
            tasks,
            names,
            splits=splits,
            order=order,
            pipeline=pipeline,
            seed=seed,
            copy=False,
        )

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Regression of one number."""
        return TaskSpec("regression", (self.width,), 1, "shared")

    def pool(self) -> Pool | None:
        """None: without supports, one network cannot use rows of different tables."""
        return None

    def _task(self, support: Tensor, query: Tensor) -> Task:
        rows = torch.cat([support, query])
        features, targets, count = self.inputs[rows], self.targets[rows], len(support)
        layout = Layout.of(features[:count], self.width, streams.table_layout(self.seed, support.tolist()))
        inputs = layout.inputs(features, self.width)
        mean, rate = measured(targets[:count])
        # Where all targets of the support are the same, they tell no unit: that of the whole table stays.
        targets = standardized(targets, mean, torch.where(rate > 0, rate, 1.0))
        return Task(Examples(inputs[:count], targets[:count]), Examples(inputs[count:], targets[count:]))


class LabeledTables(LabeledPool):
    """N-way K-shot tasks whose classes are those of one table; tables have differing columns.

    Tables are split, not rows. Inputs are standardized and laid out as in `ManyTables`. Tables are drawn as often as
    they have classes; one with fewer than N classes that have examples enough is not, see `LabeledPool`.

    features: of each table `(rows, features)`, of the order of 1.
    labels: the class of each row of each table.
    names: of the tables.
    splits, pipeline, order: see `ManyTables`.
    """

    default_sizes = SizeRanges(way=2, shot=5, query_shot=15)
    nested = False
    family = "table"
    families: Tensor

    def __init__(
        self,
        features: Sequence[Tensor],
        labels: Sequence[Sequence[str]],
        names: Sequence[str],
        *,
        splits: Mapping[Split, Sequence[int]],
        pipeline: "ManyTablesPipeline",
        order: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        classes = [(table, name) for table, own in enumerate(labels) for name in class_order(own)]
        place = {one: number for number, one in enumerate(classes)}
        super().__init__(
            _as_one(features),
            torch.tensor([place[table, name] for table, own in enumerate(labels) for name in own]),
            [f"{names[table]}/{name}" for table, name in classes],
            splits={on: [place[one] for one in classes if one[0] in splits[on]] for on in SPLITS},
            order=order,
            families=torch.tensor([table for table, _ in classes]),
            seed=seed,
            copy=False,
        )
        self.tables = tuple(names)
        self.pipeline, self.width = pipeline, pipeline.width

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Classification with class numbers drawn anew per task."""
        return TaskSpec("classification", (self.width,), sizes.way, "permuted")

    def pool(self) -> Pool | None:
        """None: without supports, one network cannot use rows of different tables."""
        return None

    @property
    def units(self) -> int:
        """The number of tables that are drawn from."""
        return len(set(self.families[self.drawable()].tolist()))

    def unit(self, index: int) -> int:
        """The table of draw `index`: many draws of few tables count as few tasks."""
        return int(self.families[self.draw(self.generator_of(index), self.sizes_of(index)).classes[0]])

    def split_manifest(self) -> dict[str, list[str]]:
        """The names of the tables of each split."""
        tables = {on: sorted(set(self.families[classes].tolist())) for on, classes in self.splits.items()}
        return {on: [self.tables[number] for number in numbers] for on, numbers in tables.items()}

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw a table, classes of it and their examples, and lay them out."""
        draw = self.draw(generator, sizes)
        count = len(draw.support)
        features = self.inputs[torch.cat([draw.support, draw.query])]
        inputs = Layout.of(features[:count], self.width, generator).inputs(features, self.width)
        return self._task(draw, inputs[:count], inputs[count:])


def _as_one(features: Sequence[Tensor]) -> Tensor:
    """The rows of all tables. Columns that a table lacks are 0 in all its rows, and have no place in a layout."""
    most = max(table.shape[1] for table in features)
    return torch.cat([F.pad(table, (0, most - table.shape[1])) for table in features])


def open_tables(
    folder: Path,
    *,
    target: str | None = None,
    label: str | None = None,
    order: str | None = None,
    drop: Sequence[str],
    seed: int,
    earlier: Contents | None = None,
    pipeline: ManyTablesPipeline | None,
    limits: Limits = LOCAL,
    written: DataOptions | None = None,
) -> ManyTables | LabeledTables:
    """All tables of a folder. With the pipeline of a trained model none is trained on, so that all are in each split.

    target or label: the column to predict, a number or a class.
    order: the column by which support precedes query.
    earlier: the splits of an earlier run, see `split_names`.
    written: the format of the files, see `DataOptions.for_file`.

    Raises `DataError` that names the table for a missing one, and for columns as `TablePipeline.fit` does; and a
    `UserError` for a column to drop that no table has, unless it is the pipeline that leaves it out.
    """
    files = table_files(folder)
    note_passed_over(folder, set(files))
    names = [file.name for file in files]
    if pipeline and earlier is None:
        splits = everywhere(len(files))
    else:
        splits = split_names(names, seed, earlier.placed() if earlier else None, noun="table")
    as_written = DataOptions().for_file(written)
    read_ones: list[Table] = [read(file, options=as_written, limits=limits).inputs for file in files]
    tables = [table.taken(own_order(table)) for table in read_ones]
    columns = {name for table in tables for name in table.names}
    for name in drop:
        if name not in columns.union(pipeline.drop if pipeline else ()):
            raise unknown_name("column to drop", name, columns)
    for table in tables:
        table.require([order] if order else [], ", the order")
    no_input = order or (pipeline.order if pipeline else None)
    asked = ManyTablesPipeline(width=WIDEST, target=target, label=label, order=no_input, drop=drop)
    plain = [asked.plain(table) for table in tables]
    features = [own.features(table) for own, table in zip(plain, tables, strict=True)]
    given = [own.labels_or_targets(table) for own, table in zip(plain, tables, strict=True)]
    if pipeline is None:
        width = max(features[number].shape[1] for number in splits["train"])
        pipeline = ManyTablesPipeline(width=min(width, WIDEST), target=target, label=label, order=order, drop=drop)
    times = places_in_time(np.concatenate([table.numbers(order) for table in tables])) if order else None
    made: ManyTables | LabeledTables
    if label:
        classes = cast(list[list[str]], given)
        made = LabeledTables(features, classes, names, splits=splits, pipeline=pipeline, order=times, seed=seed)
    else:
        targets = [own.scaled(values) for own, values in zip(plain, cast(list[Tensor], given), strict=True)]
        made = ManyTables(features, targets, names, splits=splits, pipeline=pipeline, order=times, seed=seed)
    of_table = [
        digests(zip(*(table.cells(column) for column in sorted(table.names) if column not in drop), strict=True))
        for table in tables
    ]
    made.digests = {on: {names[number]: of_table[number] for number in numbers} for on, numbers in splits.items()}
    known = ({own.label, own.target, own.order, *drop} for own in plain)
    dates = [name for table, roles in zip(tables, known, strict=True) for name in table.dates(roles)]
    made.dates = tuple(dict.fromkeys(dates))
    return made
