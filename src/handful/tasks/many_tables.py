"""Many tables as many tasks: each with columns of its own, and one of them to predict, a number or a class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from handful import streams
from handful.cells import class_order
from handful.errors import DataError, unknown_name
from handful.limits import LOCAL, Limits
from handful.pipelines.pipeline import InputPipeline, RawExamples
from handful.pipelines.rows import TablePipeline
from handful.readers.tables import Table, read_table, table_kind
from handful.tasks.collection import TaskCollection
from handful.tasks.distribution import SPLITS, Pool, SizeRanges, Sizes, Split
from handful.tasks.pool import LabeledPool, split_classes
from handful.types import Examples, Task, TaskSpec

LAST = "last"
"""As a target: the last column, in tables that have none of this name."""

WIDEST = 64
"""The most places that the inputs of a learner have for features, unless a pipeline says otherwise."""

LIMIT = 5.0
"""Deviations of the support from its mean: what is further away counts as so far."""


class Layout(NamedTuple):
    """How the features of a table become inputs of a given width: `(features,)` each, all known from the support.

    A feature is standardized by `mean` and `rate` (one over the deviation; 0 for what is constant), and goes to its
    `place` times its `factor`. No two features share a place unless there are more features than places; then they are
    added with random signs: *Feature Hashing for Large Scale Multitask Learning* (Weinberger et al., 2009),
    https://arxiv.org/abs/0902.2206. Empty places are 0, and inputs are as large as if there were none: as in *TabPFN*
    (Hollmann et al., 2023), https://arxiv.org/abs/2207.01848.
    """

    mean: Tensor
    rate: Tensor
    place: Tensor
    factor: Tensor

    @classmethod
    def of(cls, support: Tensor, width: int, generator: Generator) -> Self:
        """A random one for a table with these support rows `(n, features)`."""
        mean, rate = measured(support)
        used = rate.nonzero().flatten()
        rounds = [torch.randperm(width, generator=generator) for _ in range(0, len(used), width)]
        place, factor = torch.zeros(len(rate), dtype=torch.long), torch.zeros_like(rate)
        if rounds:
            place[used] = torch.cat(rounds)[: len(used)]
            signs = 2 * torch.randint(2, used.shape, generator=generator) - 1
            factor[used] = signs * (width / len(used)) ** 0.5
        return cls(mean, rate, place, factor)

    def inputs(self, features: Tensor, width: int) -> Tensor:
        """Features `(n, features)` as inputs `(n, width)`."""
        placed = standardized(features, self.mean, self.rate) * self.factor
        return features.new_zeros(len(features), width).index_add(1, self.place, placed)


def measured(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each column, and one over its deviation: 0 where all values `(n, columns)` are the same.

    Of the values that are there; NaN stands for one that is not.
    """
    mean = values.nanmean(0).nan_to_num(0.0)
    deviation = (values - mean).square().nanmean(0).nan_to_num(0.0).sqrt()
    varies = deviation > 16 * torch.finfo(values.dtype).eps * mean.abs()  # more than rounding errors
    return mean, varies / torch.where(varies, deviation, 1.0)


def standardized(values: Tensor, mean: Tensor, rate: Tensor) -> Tensor:
    """Values in deviations from the mean, within the limit; what is not there (NaN) is the mean."""
    return ((values - mean) * rate).nan_to_num(0.0).clamp(-LIMIT, LIMIT)


class ManyTables(TaskCollection):
    """Regression tasks that are tables, each with columns of its own. Tables are split, not rows.

    Inputs and target of a draw are standardized by its support alone, and laid out anew (see `Layout`): no feature has
    a place that means something, so a learner has to find out from the support. Values further than 5 deviations of the
    support from its mean count as so far, also targets: one of them would be the whole score. Errors are in the
    deviations of the support. Which rows are drawn, see `TaskCollection`.

    features: of each table `(rows, features)`, targets: `(rows, 1)`, both of the order of 1. names: of the tables.
    splits: numbers of the tables of each split. pipeline: what new tables are read by; its width is that of the inputs.
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
        seed: int = 0,
    ) -> None:
        tasks = torch.arange(len(features)).repeat_interleave(torch.tensor([len(table) for table in features]))
        self.width = pipeline.width
        super().__init__(
            _as_one(features), torch.cat(list(targets)), tasks, names, splits=splits, pipeline=pipeline, seed=seed
        )

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Regression of one number."""
        return TaskSpec("regression", (self.width,), 1, "shared")

    def pool(self) -> Pool | None:
        """None: rows of different tables mean nothing to one network without their supports."""
        return None

    def _task(self, support: Tensor, query: Tensor) -> Task:
        rows = torch.cat([support, query])
        features, targets, count = self.inputs[rows], self.targets[rows], len(support)
        layout = Layout.of(features[:count], self.width, streams.table_layout(self.seed, support.tolist()))
        inputs = layout.inputs(features, self.width)
        mean, rate = measured(targets[:count])
        # Where all answers of the support are the same, they tell no unit: that of the whole table stays.
        targets = standardized(targets, mean, torch.where(rate > 0, rate, 1.0))
        return Task(Examples(inputs[:count], targets[:count]), Examples(inputs[count:], targets[count:]))


class LabeledTables(LabeledPool):
    """N-way K-shot tasks whose classes are those of one table, with columns of its own. Tables are split, not rows.

    Inputs are standardized and laid out as in `ManyTables`. Tables are drawn as often as they have classes; one with
    fewer than N classes that have examples enough is not.

    features: of each table `(rows, features)`, of the order of 1. answers: the class of each row of each table. names:
    of the tables. splits, pipeline: see `ManyTables`.
    """

    default_sizes = SizeRanges(way=2, shot=5, query_shot=15)
    nested = False
    family = "table"
    families: Tensor

    def __init__(
        self,
        features: Sequence[Tensor],
        answers: Sequence[Sequence[str]],
        names: Sequence[str],
        *,
        splits: Mapping[Split, Sequence[int]],
        pipeline: "ManyTablesPipeline",
        seed: int = 0,
    ) -> None:
        classes = [(table, name) for table, own in enumerate(answers) for name in class_order(own)]
        place = {one: number for number, one in enumerate(classes)}
        super().__init__(
            _as_one(features),
            torch.tensor([place[table, name] for table, own in enumerate(answers) for name in own]),
            [f"{names[table]}/{name}" for table, name in classes],
            splits={on: [place[one] for one in classes if one[0] in splits[on]] for on in SPLITS},
            families=torch.tensor([table for table, _ in classes]),
            seed=seed,
        )
        self.tables = tuple(names)
        self.pipeline, self.width = pipeline, pipeline.width

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Classification with class numbers drawn anew per task."""
        return TaskSpec("classification", (self.width,), sizes.way, "permuted")

    def pool(self) -> Pool | None:
        """None: rows of different tables mean nothing to one network without their supports."""
        return None

    @property
    def units(self) -> int:
        """The number of tables that are drawn from."""
        sizes = self.sizes.largest()
        return int((torch.bincount(self.families[self.eligible(sizes)]) >= sizes.way).sum())

    def unit(self, index: int) -> int:
        """The table of draw `index`: many draws of a few tables tell about few tasks."""
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
    """The rows of all tables. What a table does not have is 0 in all its rows, and so has no place in a layout."""
    most = max(table.shape[1] for table in features)
    return torch.cat([F.pad(table, (0, most - table.shape[1])) for table in features])


class ManyTablesPipeline(InputPipeline):
    """Tables with columns of their own: each task has a pipeline of its own, made of its examples.

    width: of the inputs. target or label: the column to predict, or "last". drop: columns to leave out, in tables with
    them.
    """

    kind = "tables"

    def __init__(
        self, *, width: int, target: str | None = None, label: str | None = None, drop: Sequence[str] = ()
    ) -> None:
        self.width, self.target, self.label, self.drop = width, target, label, tuple(drop)
        self.input_shape = (width,)

    def described(self) -> str:
        """That each table has columns of its own."""
        return f"the columns of each table, as {self.width} numbers"

    def settings(self) -> dict[str, Any]:
        """Width, the column to predict and dropped columns."""
        return {"width": self.width, "target": self.target, "label": self.label, "drop": list(self.drop)}

    def of_task(self, examples: str | Path, target: str | None = None, limits: Limits = LOCAL) -> "OwnTablePipeline":
        """A pipeline that knows the columns of this table, standardizes by its rows, and lays out its features."""
        table = read_table(examples, limits)
        plain = self.plain(table, target)
        layout = Layout.of(plain.features(table), self.width, streams.new_table_layout())
        return OwnTablePipeline(
            width=self.width,
            layout={name: part.tolist() for name, part in layout._asdict().items()},
            **plain.settings(),
        )

    def plain(self, table: Table, column: str | None = None) -> TablePipeline:
        """Columns and answers of a whole table, standardized by all its rows; `DataError` without such a column.

        column: to predict, by default the pipeline's.
        """
        asked = column or self.target or self.label or LAST
        column = table.names[-1] if asked == LAST and LAST not in table.names else asked
        label, target = (column, None) if self.label else (None, column)
        table.require([column], ", the label" if label else ", the target")
        return TablePipeline.fit(table, np.arange(table.rows), label=label, target=target, drop=self.drop)

    def examples(self, path: str | Path, limits: Limits = LOCAL) -> RawExamples:
        """Raises a `DataError`: see `of_task`."""
        raise self._asked()

    def inputs(self, path: str | Path, limits: Limits = LOCAL) -> tuple[Tensor, list[str]]:
        """Raises a `DataError`: see `of_task`."""
        raise self._asked()

    def of_array(self, array: Any) -> Tensor:
        """Raises a `DataError`: see `of_task`."""
        raise self._asked()

    def _asked(self) -> DataError:
        return DataError(
            "The tables of this model have columns of their own, which only an adapted task knows. Adapt to a table "
            f"first: `handful adapt MODEL TABLE --{'label' if self.label else 'target'} COLUMN -o TASK`, or "
            "handful.apps.prediction.adapt_to_file."
        )


class OwnTablePipeline(TablePipeline):
    """A table as one task of many has it: rows as `TablePipeline` encodes them, laid out by the task's own layout.

    width: of the inputs. layout: see `Layout`, as lists. columns, roles: see `TablePipeline`.
    """

    kind = "own table"
    of_one_task = True

    def __init__(self, *, width: int, layout: dict[str, list[float]], **table: Any) -> None:
        super().__init__(**table)
        self.width = width
        self.layout = Layout(**{name: torch.tensor(part) for name, part in layout.items()})
        self.input_shape = (width,)

    def settings(self) -> dict[str, Any]:
        """Width, layout, columns and roles."""
        layout = {name: part.tolist() for name, part in self.layout._asdict().items()}
        return {"width": self.width, "layout": layout, **super().settings()}

    def _inputs(self, features: Tensor) -> Tensor:
        return self.layout.inputs(features, self.width)


def table_files(folder: Path) -> list[Path]:
    """The tables of a folder by name; hidden files and others are passed over."""
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != "." and table_kind(file))


def open_tables(
    folder: Path,
    *,
    target: str | None = None,
    label: str | None = None,
    drop: Sequence[str],
    seed: int,
    pipeline: ManyTablesPipeline | None,
    limits: Limits = LOCAL,
) -> ManyTables | LabeledTables:
    """All tables of a folder. With the pipeline of a trained model none is trained on, so that all are in each split.

    target or label: the column to predict, a number or a class. Raises a `DataError` that names the table for a missing
    one, and for columns as `TablePipeline.fit` does; and a `UserError` for a column to drop that no table has, unless
    it is the pipeline that leaves it out.
    """
    files = table_files(folder)
    names = [file.name for file in files]
    count = len(files)
    splits = {on: list(range(count)) for on in SPLITS} if pipeline else split_classes(count, seed, noun="table")
    tables = [read_table(file, limits) for file in files]
    columns = {name for table in tables for name in table.names}
    for name in drop:
        if name not in columns.union(pipeline.drop if pipeline else ()):
            raise unknown_name("column to drop", name, columns)
    asked = ManyTablesPipeline(width=WIDEST, target=target, label=label, drop=drop)
    plain = [asked.plain(table) for table in tables]
    features = [own.features(table) for own, table in zip(plain, tables, strict=True)]
    answers = [own.answers(table) for own, table in zip(plain, tables, strict=True)]
    if pipeline is None:
        width = max(features[number].shape[1] for number in splits["train"])
        pipeline = ManyTablesPipeline(width=min(width, WIDEST), target=target, label=label, drop=drop)
    if label:
        classes = cast(list[list[str]], answers)
        return LabeledTables(features, classes, names, splits=splits, pipeline=pipeline, seed=seed)
    targets = [own.scaled(values) for own, values in zip(plain, cast(list[Tensor], answers), strict=True)]
    return ManyTables(features, targets, names, splits=splits, pipeline=pipeline, seed=seed)
