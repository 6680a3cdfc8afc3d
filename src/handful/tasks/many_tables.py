"""Many tables as many tasks: each with columns of its own, and one of them to predict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from handful.errors import DataError, unknown_name
from handful.tasks.collection import TaskCollection
from handful.tasks.distribution import SPLITS, Pool, Sizes, Split, seeded
from handful.tasks.pipelines import InputPipeline, RawExamples
from handful.tasks.pool import split_classes
from handful.tasks.table_pipeline import TablePipeline
from handful.tasks.tables import Table, read_table, table_kind
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
    varies = deviation > 1e-5  # the values are of the order of 1
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
        most = max(table.shape[1] for table in features)
        # Features that a table does not have are 0 in all its rows: what is constant in the support has no place.
        rows = torch.cat([F.pad(table, (0, most - table.shape[1])) for table in features])
        tasks = torch.arange(len(features)).repeat_interleave(torch.tensor([len(table) for table in features]))
        self.width = pipeline.width
        super().__init__(rows, torch.cat(list(targets)), tasks, names, splits=splits, pipeline=pipeline, seed=seed)

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Regression of one number."""
        return TaskSpec("regression", (self.width,), 1, "shared")

    def pool(self) -> Pool | None:
        """None: rows of different tables mean nothing to one network without their supports."""
        return None

    def _task(self, support: Tensor, query: Tensor) -> Task:
        rows = torch.cat([support, query])
        features, targets, count = self.inputs[rows], self.targets[rows], len(support)
        layout = Layout.of(features[:count], self.width, seeded(self.seed, 5, *support.tolist()))
        inputs = layout.inputs(features, self.width)
        mean, rate = measured(targets[:count])
        # Where all answers of the support are the same, they tell no unit: that of the whole table stays.
        targets = standardized(targets, mean, torch.where(rate > 0, rate, 1.0))
        return Task(Examples(inputs[:count], targets[:count]), Examples(inputs[count:], targets[count:]))


class ManyTablesPipeline(InputPipeline):
    """Tables with columns of their own: each task has a pipeline of its own, made of its examples.

    width: of the inputs. target: the column to predict, or "last". drop: columns to leave out, in tables with them.
    """

    kind = "tables"

    def __init__(self, *, width: int, target: str, drop: Sequence[str] = ()) -> None:
        self.width, self.target, self.drop = width, target, tuple(drop)
        self.input_shape = (width,)

    def described(self) -> str:
        """That each table has columns of its own."""
        return f"the columns of each table, as {self.width} numbers"

    def settings(self) -> dict[str, Any]:
        """Width, target and dropped columns."""
        return {"width": self.width, "target": self.target, "drop": list(self.drop)}

    def of_task(self, examples: str | Path, target: str | None = None) -> "OwnTablePipeline":
        """A pipeline that knows the columns of this table, standardizes by its rows, and lays out its features."""
        table = read_table(examples)
        plain = plain_pipeline(table, target or self.target, self.drop)
        layout = Layout.of(plain.features(table), self.width, seeded(5))
        return OwnTablePipeline(
            width=self.width,
            layout={name: part.tolist() for name, part in layout._asdict().items()},
            **plain.settings(),
        )

    def examples(self, path: str | Path) -> RawExamples:
        """Raises a `DataError`: see `of_task`."""
        raise self._asked()

    def inputs(self, path: str | Path) -> tuple[Tensor, list[str]]:
        """Raises a `DataError`: see `of_task`."""
        raise self._asked()

    def of_array(self, array: Any) -> Tensor:
        """Raises a `DataError`: see `of_task`."""
        raise self._asked()

    def _asked(self) -> DataError:
        return DataError(
            "The tables of this model have columns of their own, which only an adapted task knows. Adapt to a table "
            "first: `handful adapt MODEL TABLE --target COLUMN -o TASK`, or handful.apps.prediction.adapt_to_file."
        )


class OwnTablePipeline(TablePipeline):
    """A table as one task of many has it: rows as `TablePipeline` encodes them, laid out by the task's own layout.

    width: of the inputs. layout: see `Layout`, as lists. columns, roles: see `TablePipeline`.
    """

    kind = "own table"
    of_one_task = True
    fills = True  # in meta-training too, queries lack numbers that the support has

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


def plain_pipeline(table: Table, target: str, drop: Sequence[str]) -> TablePipeline:
    """Columns and target of a whole table, standardized by all its rows; `DataError` without such a target."""
    column = table.names[-1] if target == LAST and LAST not in table.names else target
    table.require([column], ", the target")
    return TablePipeline.fit(table, np.arange(table.rows), target=column, drop=drop)


def table_files(folder: Path) -> list[Path]:
    """The tables of a folder by name; hidden files and others are passed over."""
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != "." and table_kind(file))


def open_tables(
    folder: Path, *, target: str, drop: Sequence[str], seed: int, pipeline: ManyTablesPipeline | None
) -> ManyTables:
    """All tables of a folder. With the pipeline of a trained model none is trained on, so that all are in each split.

    Raises a `DataError` that names the table for a missing target, and for columns as `TablePipeline.fit` does; and a
    `UserError` for a column to drop that no table has, unless it is the pipeline that leaves it out.
    """
    files = table_files(folder)
    count = len(files)
    splits = {on: list(range(count)) for on in SPLITS} if pipeline else split_classes(count, seed, noun="table")
    tables = [read_table(file) for file in files]
    columns = {name for table in tables for name in table.names}
    for name in drop:
        if name not in columns.union(pipeline.drop if pipeline else ()):
            raise unknown_name("column to drop", name, columns)
    features, targets = [], []
    for table in tables:
        plain = plain_pipeline(table, target, drop)
        features.append(plain.features(table))
        targets.append(plain.scaled(table.numbers(plain.targets[0])))
    if pipeline is None:
        width = max(features[number].shape[1] for number in splits["train"])
        pipeline = ManyTablesPipeline(width=min(width, WIDEST), target=target, drop=drop)
    return ManyTables(features, targets, [file.name for file in files], splits=splits, pipeline=pipeline, seed=seed)
