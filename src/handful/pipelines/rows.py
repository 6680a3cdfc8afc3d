"""Input pipelines for tables: common parts, and rows of numbers, dates and categories as one vector."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from handful.cells import without_comma
from handful.data_options import DataOptions
from handful.dialect import DATE
from handful.errors import DataError, count_of
from handful.limits import LOCAL, Limits
from handful.notes import note
from handful.pipelines.pipeline import InputPipeline, as_moments, target_moments
from handful.pipelines.single_rows import SingleRows, projected
from handful.pipelines.spread import Spread, note_clipped
from handful.raw_batch import INPUT, Place
from handful.table import Table

MOST_CATEGORIES = 50
"""A text column with more values is refused: it contains ids or free text, not categories."""
MOST_NAMED = 12
"""How many columns a description names."""


class RowPipeline(InputPipeline):
    """The base of pipelines for tables: the columns of labels or targets, and their meaning.

    label, target: the column that is predicted.
    task, group, order: the columns that the tasks were made with.
    decimal, dates: the formats of the training file, which apply to later files with ambiguous cells.
    unit: of the target.
    """

    def __init__(
        self,
        *,
        label: str | None = None,
        target: str | None = None,
        task: str | None = None,
        group: str | None = None,
        order: str | None = None,
        labels: list[str] | None = None,
        target_mean: Sequence[float] = (0.0,),
        target_scale: Sequence[float] = (1.0,),
        decimal: str | None = None,
        dates: str | None = None,
        unit: str = "",
    ) -> None:
        self.label, self.target, self.task, self.group, self.order = label, target, task, group, order
        self.decimal, self.dates, self.unit = decimal, dates, unit
        self.labels = labels
        self.targets = (target,) if target else ()
        self.target_mean, self.target_scale = as_moments(target_mean), as_moments(target_scale)

    def settings(self) -> dict[str, Any]:
        """Roles, labels and the target's scale."""
        names = ("label", "target", "task", "group", "labels", "decimal", "dates", "unit")
        scale = {"target_mean": self.target_mean.tolist(), "target_scale": self.target_scale.tolist()}
        return {name: getattr(self, name) for name in names} | scale | ({"order": self.order} if self.order else {})

    def labels_or_targets(self, table: Table) -> list[str] | Tensor:
        """Label names, or targets in the user's units `(rows, 1)`."""
        if self.target:
            table.require([self.target], ", the target")
            return torch.from_numpy(table.numbers(self.target).reshape(-1, 1))
        assert self.label, "one of both"
        table.require([self.label], ", the label")
        return table.names_in(self.label)

    @property
    def data_options(self) -> DataOptions:
        """The roles, and the formats of numbers and dates."""
        names = ("label", "target", "task", "group", "decimal", "dates")
        return DataOptions(**{name: getattr(self, name) for name in names})


class TablePipeline(RowPipeline):
    """Rows of a table as one vector.

    Columns of numbers and dates are scaled by the training rows, and far values are clipped with a note: see `Spread`.
    Columns of text or true/false have one output per value that the training rows have (an unknown or empty value is 0
    in all; an unknown one gets a note). An empty cell in a column of numbers is 0, the median; if the training rows
    have such cells, the column has a second output, 1 for them, otherwise they get a note. Additional columns of a new
    file are ignored; a missing one is an error.

    columns: in the order of the outputs, that of their names: `{"name", "median", "width", "clipped"}`, with `"gaps":
        True` if the training rows have empty cells and `"unit"` if cells have one, or `{"name", "categories"}`.
    names: in the order of the training file, in which rows without names have them.
    roles: see `RowPipeline`.

    Attributes:
        whose: the columns that inputs need, in messages.
    """

    kind = "table"
    whose: ClassVar[str] = ", which the model was trained with"

    def __init__(self, *, columns: list[dict[str, Any]], names: Sequence[str] | None = None, **roles: Any) -> None:
        super().__init__(**roles)
        self.columns = columns
        self.names = [column["name"] for column in columns] if names is None else list(names)
        self.spreads = [None if "categories" in column else Spread.from_json(column) for column in columns]
        self.input_shape = (sum(len(c.get("categories", " ")) + c.get("gaps", False) for c in columns),)

    @classmethod
    def fit(
        cls,
        table: Table,
        rows: np.ndarray,
        *,
        label: str | None = None,
        target: str | None = None,
        task: str | None = None,
        group: str | None = None,
        order: str | None = None,
        labels: list[str] | None = None,
        drop: Sequence[str] = (),
    ) -> Self:
        """Fit to the training rows (indices) of a table; all columns that have no role and are not dropped are used."""
        roles = {label, target, task, group, order, *drop}
        used = [name for name in table.names if name not in roles]
        columns = [_fit_column(table, name, rows) for name in sorted(used)]
        columns = [column for column in columns if column.get("categories", " ")]
        learned = {column["name"] for column in columns}
        if not columns:
            raise DataError(f"{table.name} has no input columns beside {', '.join(filter(None, roles))}.")
        mean, scale = target_moments(table.numbers(target)[rows]) if target else ([0.0], [1.0])
        return cls(
            columns=columns,
            names=[name for name in used if name in learned],
            label=label,
            target=target,
            task=task,
            group=group,
            order=order,
            labels=labels,
            target_mean=mean,
            target_scale=scale,
            **written(table, target),
        )

    def settings(self) -> dict[str, Any]:
        """Columns, roles, labels and the target's scale."""
        return {"columns": self.columns, "names": self.names, **super().settings()}

    def described(self) -> str:
        """The columns, with the type of each."""
        columns = {column["name"]: _described(column) for column in self.columns}
        named = [f"{name} ({columns[name]})" for name in self.names]
        more = [f"and {len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
        return ", ".join(named[:MOST_NAMED] + more)

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Rows as `(n, features)`: a `Table`, mappings, a data frame, or `(n, columns)` in the order of `names`."""
        return self._inputs(self.features(Table.of(values, self.names)))

    def stored_alone(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Mappings are read by themselves: see `SingleRows`."""
        if not all(isinstance(row, Mapping) for row in values):
            return self.stored(values, limits, place)
        rows = SingleRows(projected(values, self.names, self.whose))
        cells = [
            rows.texts(column["name"])
            if "categories" in column
            else rows.numbers(column["name"], column.get("unit", ""))
            for column in self.columns
        ]
        return self._inputs(self._features(cells, len(values)))

    def alone(self, table: Table) -> list[dict[str, Any]]:
        """Rows of a file as mappings that can be read without the other rows: `stored` encodes them equally. Numbers
        and ISO dates replace the file's formats.
        """
        table.require(self.names, self.whose)
        columns = {column["name"]: self._cells(table, column) for column in self.columns}
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def _cells(self, table: Table, column: dict[str, Any]) -> list[Any]:
        name, unit = column["name"], column.get("unit", "")
        if "categories" in column:
            return list(table.texts(name))
        table.note_markers(name)
        numbers = table.numbers(name, gaps=True, unit=unit).tolist()
        if unit == DATE:
            return [None if number != number else _moment(number) for number in numbers]
        return [None if number != number else number for number in numbers]

    def features(self, table: Table) -> Tensor:
        """The features of inputs, `(rows, features)`: NaN marks missing numbers."""
        table.require(self.names, self.whose)
        for column in self.columns:
            if "categories" not in column:
                table.note_markers(column["name"])
        values = [
            table.texts(column["name"])
            if "categories" in column
            else table.numbers(column["name"], gaps=True, unit=column.get("unit", ""))
            for column in self.columns
        ]
        return self._features(values, table.rows)

    def _inputs(self, features: Tensor) -> Tensor:
        return features.nan_to_num(0.0)

    def _features(self, values: Sequence[Any], rows: int) -> Tensor:
        """Of columns of floats (numeric ones) and lists of texts (categories)."""
        parts = []
        for column, spread, cells in zip(self.columns, self.spreads, values, strict=True):
            if spread is None:
                places = {name: place for place, name in enumerate(column["categories"])}
                numbers = torch.tensor([places.get(cell, -1) for cell in cells], dtype=torch.long)
                unknown = sorted({cell for cell in cells if cell is not None and cell not in places})
                if unknown:
                    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
                    note(
                        "unknown-category",
                        f"Values of the column {column['name']!r} that do not occur in the training rows "
                        f"({unknown[0]!r}{more}) count as empty.",
                    )
                parts.append((numbers.unsqueeze(1) == torch.arange(len(places))).float())
            else:
                scaled, far = spread.scaled(cells.reshape(rows, 1))
                note_clipped(f"the column {column['name']!r}", far)
                parts.append(torch.from_numpy(scaled).float())
                missing = parts[-1].isnan()
                if column.get("gaps"):
                    parts.append(missing.float())
                elif missing.any():
                    note(
                        "empty-cells",
                        f"Empty cells of the column {column['name']!r} count as the median: the training rows have "
                        f"none.",
                        count=int(missing.sum()),
                    )
        return torch.cat(parts, dim=1)


def _fit_column(table: Table, name: str, rows: np.ndarray) -> dict[str, Any]:
    if table.numeric(name):
        found = table.numbers(name, gaps=True)[rows]
        there = found[~np.isnan(found)]
        if not len(there):
            return {"name": name, "categories": []}  # nothing to learn from
        spread = Spread.of(there.reshape(-1, 1)).to_json()
        column = {"name": name} | {fact: part[0] for fact, part in spread.items()}
        column |= {"unit": unit} if (unit := table.unit(name)) else {}
        return column if len(there) == len(found) else column | {"gaps": True}
    texts = table.texts(name)
    categories = sorted({text for row in rows if (text := texts[row]) is not None})
    if len(categories) > MOST_CATEGORIES:
        many = f"{table.name}: the text column {name!r} has {len(categories)} different values"
        most = f", but a category has at most {MOST_CATEGORIES}."
        raise DataError(
            f"{many}, such as {categories[0]!r}{without_comma(categories[0])}{most}",
            hint="Exclude it with {drop}, or merge its values.",
            unquoted=many + most,
        )
    table.note_numbers(name)
    return {"name": name, "categories": categories}


def written(table: Table, target: str | None) -> dict[str, Any]:
    """The formats of a file's numbers, dates and target, as arguments of `RowPipeline`."""
    dialect = table.dialect
    return {
        "decimal": dialect.decimal if dialect.grouped else None,
        "dates": dialect.dates,
        "unit": table.unit(target) if target else "",
    }


def _moment(days: float) -> str:
    """Days since 1970 as an ISO date, with the time if any."""
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(days=days)
    return moment.date().isoformat() if days.is_integer() else moment.isoformat(" ")


def _described(column: dict[str, Any]) -> str:
    if "categories" in column:
        return count_of(len(column["categories"]), "category", "categories")
    noun = "date" if column.get("unit") == DATE else "number"
    return f"{noun}, or empty" if column.get("gaps") else noun
