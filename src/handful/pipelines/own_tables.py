"""The input pipelines for tables with differing columns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Generator, Tensor

from handful import streams
from handful.dialect import DATE
from handful.errors import DataError, UserError
from handful.limits import LOCAL, Limits
from handful.pipelines.pipeline import InputPipeline
from handful.pipelines.rows import TablePipeline
from handful.raw_batch import INPUT, Place
from handful.table import Table

LAST = "last"
"""As a target: the last column, in tables without a column of this name."""

LIMIT = 5.0
"""Values are clipped at this many deviations of the support from its mean."""


class Layout(NamedTuple):
    """The mapping from features of a table to inputs of a given width: `(features,)` each, all computed from the
    support.

    A feature is standardized by `mean` and `rate` (one over the deviation; 0 for what is constant), and goes to its
    `place` times its `factor`. Features have separate places unless they outnumber the places; then they are added with
    random signs: *Feature Hashing for Large Scale Multitask Learning* (Weinberger et al., 2009),
    https://arxiv.org/abs/0902.2206. Empty places are 0, and inputs are scaled to compensate for them: as in *TabPFN*
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
    """Mean of each column, and one over its deviation: 0 if all values `(n, columns)` are the same. NaN marks missing
    values, which are ignored.
    """
    mean = values.nanmean(0).nan_to_num(0.0)
    deviation = (values - mean).square().nanmean(0).nan_to_num(0.0).sqrt()
    varies = deviation > 16 * torch.finfo(values.dtype).eps * mean.abs()  # more than rounding errors
    return mean, varies / torch.where(varies, deviation, 1.0)


def standardized(values: Tensor, mean: Tensor, rate: Tensor) -> Tensor:
    """Values in deviations from the mean, clipped at the limit; missing ones (NaN) become the mean."""
    return ((values - mean) * rate).nan_to_num(0.0).clamp(-LIMIT, LIMIT)


class ManyTablesPipeline(InputPipeline):
    """Tables with differing columns: each task has its own pipeline, fitted to its examples.

    width: of the inputs.
    target or label: the column to predict, or "last".
    order: the column by which support preceded query. It and the columns to drop are left out, in tables with them.
    """

    kind = "tables"
    per_task = True

    def __init__(
        self,
        *,
        width: int,
        target: str | None = None,
        label: str | None = None,
        order: str | None = None,
        drop: Sequence[str] = (),
    ) -> None:
        self.width, self.target, self.label, self.order, self.drop = width, target, label, order, tuple(drop)
        self.targets = (target,) if target else ()
        self.input_shape = (width,)

    def described(self) -> str:
        """The description of such tables."""
        return f"the columns of each table, as {self.width} numbers"

    def settings(self) -> dict[str, Any]:
        """Width, the column to predict, the order and dropped columns."""
        own = {"width": self.width, "target": self.target, "label": self.label, "drop": list(self.drop)}
        return own | ({"order": self.order} if self.order else {})

    def of_task(self, values: Any, target: str | None = None) -> "OwnTablePipeline":
        """A pipeline with the columns of this table, which standardizes by its rows and lays out its features."""
        table = Table.of(values, [])
        plain = self.plain(table, target)
        layout = Layout.of(plain.features(table), self.width, streams.new_table_layout())
        return OwnTablePipeline(
            width=self.width,
            layout={name: part.tolist() for name, part in layout._asdict().items()},
            **plain.settings(),
        )

    def of_rows(
        self, rows: Sequence[Mapping[str, Any]], labels: Sequence[str | float], places: Sequence[int]
    ) -> "OwnTablePipeline":
        """The same for rows `(n,)` and, apart from them, their labels or targets `(n,)`.

        A cell of a row in the column to predict is not read.

        places: of all rows, in the order in which they are read: the last digits of statistics depend on it.
        """
        column = self.target or self.label or LAST
        table = Table.of([{**rows[place], column: labels[place]} for place in places], [])
        return self.of_task(replace(table, name="The task", kept=tuple(places)))

    def plain(self, table: Table, column: str | None = None) -> TablePipeline:
        """Columns and labels or targets of a whole table, standardized by all its rows; `DataError` without the column.

        column: to predict, by default the pipeline's.
        """
        asked = column or self.target or self.label or LAST
        column = table.names[-1] if asked == LAST and LAST not in table.names else asked
        if column == self.order:
            raise UserError(f"{table.name}: the column {column!r} cannot be both the target and the order.")
        label, target = (column, None) if self.label else (None, column)
        table.require([column], ", the label" if label else ", the target")
        rows = np.arange(table.rows)
        return TablePipeline.fit(table, rows, label=label, target=target, order=self.order, drop=self.drop)

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Raises `DataError`: see `of_task`."""
        raise self._asked()

    def _asked(self) -> DataError:
        return DataError(
            "This model's tables have differing columns, so its inputs depend on an adapted task.",
            hint="Adapt to a table first, by `handful adapt` or handful.workflows.adapt.adapt_from_file, with "
            + ("{label}." if self.label else "{target}."),
        )


class OwnTablePipeline(TablePipeline):
    """The table of one task: rows as `TablePipeline` encodes them, laid out by the task's own layout.

    width: of the inputs.
    layout: see `Layout`, as lists.
    columns, roles: see `TablePipeline`.
    """

    kind = "own table"
    of_one_task = True
    whose = ", which the task's examples have"

    def __init__(self, *, width: int, layout: dict[str, list[float]], **table: Any) -> None:
        super().__init__(**table)
        self.width = width
        self.layout = Layout(**{name: torch.tensor(part) for name, part in layout.items()})
        self.input_shape = (width,)

    def settings(self) -> dict[str, Any]:
        """Width, layout, columns and roles."""
        layout = {name: part.tolist() for name, part in self.layout._asdict().items()}
        return {"width": self.width, "layout": layout, **super().settings()}

    def _cells(self, table: Table, column: dict[str, Any]) -> list[Any]:
        cells, unit = super()._cells(table, column), column.get("unit", "")
        if unit in ("", DATE):
            return cells
        return [None if cell is None else f"{cell} {unit}" for cell in cells]  # as other rows of the task have it

    def _inputs(self, features: Tensor) -> Tensor:
        return self.layout.inputs(features, self.width)
