"""Tables in memory: columns of typed cells, with errors that name column and row."""

import datetime
import functools
import itertools
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Real
from typing import Any, Self

import numpy as np

from handful.cells import (
    days,
    fault_of,
    is_empty,
    is_missing,
    is_text,
    spelled,
    too_large,
    unmasked,
    without_comma,
    written,
)
from handful.dialect import DATE, PROGRAM, Dialect
from handful.errors import DataError, Field, nearest_of
from handful.notes import note
from handful.written_columns import WrittenColumns

MOST_NAMED, MOST_COLUMNS = 5, 100
"""So many missing columns, and columns that are there, are named in a message."""


@dataclass(frozen=True)
class Table:
    """A table in memory. Rows are counted from 1 in messages and ids, without the header.

    name: what messages call it.
    arrow: its columns, as Arrow has them.
    header: whether its file has a row above the first one, which names the columns.
    given: how its texts write numbers and dates where no cell decides.
    kept: which rows of its file are here, None for all.
    """

    name: str
    arrow: Any
    header: bool = False
    given: Dialect = PROGRAM
    kept: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        import pyarrow as pa
        import pyarrow.types as kinds

        arrow = self.arrow
        for place, field in enumerate(arrow.schema):
            kind = field.type
            if kinds.is_dictionary(kind):  # how categories are stored
                kind = kind.value_type
            if kinds.is_string_view(kind):
                kind = pa.large_string()
            elif kinds.is_binary_view(kind):
                kind = pa.large_binary()
            elif kinds.is_timestamp(kind) and kind.unit == "ns":  # more than a moment of Python holds
                kind = pa.timestamp("us", kind.tz)
            if kind != field.type:
                arrow = arrow.set_column(place, field.name, arrow.column(place).cast(kind, safe=False))
        object.__setattr__(self, "arrow", arrow)

    @classmethod
    def of(cls, values: Any, columns: Sequence[str]) -> Self:
        """The table of rows in memory, with cells read as in a file.

        values: mappings, or a data frame, whose columns are found by name; else rows `(n, columns)` in the order of
            `columns`.

        Raises `DataError` for anything else.
        """
        import pyarrow as pa

        if isinstance(values, cls):
            return values
        name = "The input"
        if hasattr(values, "column_names"):  # a table of Arrow
            return cls(name, values.rename_columns(list(map(spelled, values.column_names))))
        if hasattr(values, "collect"):  # a lazy frame
            raise DataError(f"{name} is not computed yet. Pass the result of its .collect().", code="wrong-shape")
        if hasattr(values, "columns") and hasattr(values, "__getitem__"):
            found = named(name, values.columns, values.__getitem__)
        elif isinstance(values, Sequence) and values and all(isinstance(row, Mapping) for row in values):
            keys = dict.fromkeys(key for row in values for key in row)
            found = named(name, keys, lambda key: [row.get(key) for row in values])
        else:
            found = dict(zip(columns, _columns_of(values, columns), strict=True))
        return cls(name, pa.table({column: arrow_column(cells, name, column) for column, cells in found.items()}))

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row: its cells by the names of their columns."""
        return self.arrow.slice(row, 1).to_pylist()[0]  # type: ignore[no-any-return]

    @property
    def names(self) -> list[str]:
        """The columns, in their order."""
        return list(self.arrow.column_names)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.arrow.num_rows)

    @property
    def row_numbers(self) -> list[str]:
        """The number of each row in its file, from 1."""
        return [str(self._number(row)) for row in range(self.rows)]

    def _number(self, row: int) -> int:
        return (row if self.kept is None else self.kept[row]) + 1

    def with_known(self, column: str, *, numbers: bool) -> Self:
        """The rows with a non-empty cell in a column, by their numbers in the file; a note counts the others.

        numbers: whether it is a column of numbers, in which NA and the like are empty.
        """
        cells = self.texts(column)
        nothing = is_empty if numbers else is_missing
        known = np.array([row for row, cell in enumerate(cells) if not nothing(cell)], dtype=np.int64)
        if len(known) in (0, len(cells)):
            return self
        note(
            "unlabeled",
            f"{self.name}: rows without {column!r} are left out.",
            count=len(cells) - len(known),
        )
        return self.taken(known)

    def taken(self, rows: np.ndarray) -> Self:
        """The rows in these places `(m,)`, in this order, by their numbers in the file."""
        return replace(self, arrow=self.arrow.take(rows), kept=tuple(self._number(row) - 1 for row in rows.tolist()))

    def require(self, names: Iterable[str], why: str = "") -> None:
        """Raise `DataError` that names the missing columns, each with the nearest existing one."""
        require(self.name, self.names, names, why)

    @functools.cached_property
    def _written(self) -> WrittenColumns:
        """Its columns of texts, as numbers and dates."""
        columns = {name: self.arrow.column(name) for name in self.names}
        texts = {name: column for name, column in columns.items() if is_text(column.type)}
        return WrittenColumns(self.name, texts, self.given, self._row)

    @property
    def dialect(self) -> Dialect:
        """The formats of its numbers and dates, as far as cells or the user determine them."""
        return self._written.dialect

    def numeric(self, name: str) -> bool:
        """Whether a column holds numbers or dates: by its type, or as most of its texts; see `TextColumn.numeric`."""
        import pyarrow.types as kinds

        kind = self.arrow.column(name).type
        return (
            self._written.columns[name].numeric
            if is_text(kind)
            else not (kinds.is_boolean(kind) or kinds.is_nested(kind) or kinds.is_time(kind))
        )

    def unit(self, name: str) -> str:
        """The unit of a column: of most of its texts, such as a currency, %, mi; `DATE`; "" for none."""
        import pyarrow.types as kinds

        kind = self.arrow.column(name).type
        if is_text(kind):
            return self._written.columns[name].unit
        return DATE if kinds.is_date(kind) or kinds.is_timestamp(kind) else ""

    def dates(self, known: Container[str | None]) -> list[str]:
        """The columns of dates, except the known ones."""
        return [name for name in self.names if name not in known and self.unit(name) == DATE and self.numeric(name)]

    def numbers(self, name: str, *, gaps: bool = False, unit: str | None = None) -> np.ndarray:
        """A column as floats `(rows,)`, dates as days since 1970; `DataError` at the first cell that is not a number.

        gaps: empty cells are NaN, and no error.
        unit: that cells must have, by default the one that most of them have.
        """
        import pyarrow as pa
        import pyarrow.types as kinds

        column = self.arrow.column(name)
        kind = column.type
        if is_text(kind):
            numbers = self._written.numbers(name, unit)
        elif unit is not None and unit != DATE and self.unit(name) == DATE:
            numbers = np.where(column.is_valid(), np.inf, np.nan)
        elif kinds.is_date(kind) or kinds.is_timestamp(kind):
            numbers = days(column)
        elif kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_boolean(kind):
            numbers = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
            if unit == DATE and column.null_count < self.rows:
                note("days", f"{self.name}: the column {name!r} holds numbers, which are read as days since 1970.")
        elif kinds.is_null(kind):
            numbers = np.full(self.rows, np.nan)
        else:
            raise self._unusable(name)
        wrong = np.flatnonzero(too_large(numbers) if gaps else too_large(numbers) | np.isnan(numbers)).tolist()
        if wrong:
            number, unit = numbers[min(wrong, key=self._number)], self.unit(name) if unit is None else unit
            of_another = f"is not {DATE if unit == DATE else f'a number of {unit}'}"
            fault = of_another if unit and np.isinf(number) else fault_of(number)
            raise self._cell(name, wrong, fault)
        return numbers

    def note_numbers(self, name: str) -> None:
        """Make a note if a column of categories has cells that look like numbers."""
        if not is_text(self.arrow.column(name).type):
            return
        column = self._written.columns[name]
        count, row = int(column.counts[column.readings.readable].sum()), column.first(column.readings.readable)
        if row is not None:
            cell = self.arrow.column(name)[row].as_py()
            note(
                "numbers-in-categories",
                f"{self.name}: the column {name!r} is read as categories, although cells such as {cell!r} look like "
                f"numbers.",
                count=count,
            )

    def note_markers(self, name: str) -> None:
        """Make a note if a column of numbers has cells that mark empty ones, such as NA."""
        note_markers(self.name, name, self.cells(name))

    def texts(self, name: str) -> list[str | None]:
        """A column as texts, None if a cell is empty; whole numbers are written without a point."""
        import pyarrow.types as kinds

        kind = self.arrow.column(name).type
        if kinds.is_list(kind) or kinds.is_large_list(kind):
            return [written(self._only(name, row, cells)) for row, cells in enumerate(self.cells(name))]
        if kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
            raise self._unusable(name)
        return [written(cell) for cell in self.cells(name)]

    def _only(self, name: str, row: int, cells: list[Any] | None) -> Any:
        """The cell of a list of one, as programs for annotation write labels; None of an empty list."""
        if cells and len(cells) > 1:
            raise DataError(
                f"{self.name}: column {name!r}, {self._row(row)}: {cells!r} are several names. Each example has one "
                f"class: split the row, or remove it."
            )
        return cells[0] if cells else None

    def sentences(self, name: str) -> list[str]:
        """A column of texts as they are; `DataError` at the first empty cell."""
        names = self.names_in(name)
        return [cell if isinstance(cell, str) else names[row] for row, cell in enumerate(self.cells(name))]

    def cells(self, name: str) -> list[Any]:
        """A column as it is stored."""
        try:
            return self.arrow.column(name).to_pylist()  # type: ignore[no-any-return]
        except (ValueError, OverflowError) as error:  # dates beyond the year 9999
            raise DataError(
                f"{self.name}: column {name!r} cannot be read ({error}).", hint="Exclude it with {drop}."
            ) from error

    def names_in(self, name: str) -> list[str]:
        """A column of labels, tasks or groups as texts; `DataError` at the first empty cell."""
        values = self.texts(name)
        empty = [row for row, value in enumerate(values) if value is None]
        if empty:
            raise self._cell(name, empty, "is not a name")
        return [value for value in values if value is not None]

    def _cell(self, name: str, rows: Sequence[int], fault: str) -> DataError:
        row, count = min(rows, key=self._number), len(rows)
        value = self.cells(name)[row]
        found = "the cell is empty, NA or the like" if is_empty(value) else f"{value!r} {fault}"
        more = f" (and in {count - 1} more rows)" if count > 1 else ""

        def message(found: str) -> str:
            return (
                f"{self.name}: column {name!r}, {self._row(row)}: {found}{more}. Correct or remove the "
                f"{'rows' if count > 1 else 'row'}, or drop the column."
            )

        return DataError(
            message(found + without_comma(value)),
            field=() if self.header else ("inputs", self._number(row) - 1, name),
            unquoted="" if is_empty(value) else message(f"the cell {fault}"),
        )

    def place(self, row: int) -> str:
        """The name of a row in messages."""
        return f"{self.name}, {self._row(row)}"

    def _row(self, row: int) -> str:
        return f"row {self._number(row)}" + (" below the header" if self.header else "")

    def _unusable(self, name: str) -> DataError:
        kind = self.arrow.column(name).type
        if self.header and "binary" in str(kind):  # cells of a file of text
            return DataError(
                f"{self.name}: column {name!r} is not text in UTF-8.",
                code="unsupported-media",
                hint="Name the encoding of the file with {encoding}, or save it as UTF-8.",
            )
        return DataError(
            f"{self.name}: column {name!r} is of type {kind}, which is not supported.",
            hint="Exclude it with {drop}.",
        )


def require(source: str, there: Collection[str], names: Iterable[str], why: str = "", field: Field = ()) -> None:
    """Raise `DataError` that names the columns that are not there, each with the nearest one that is.

    source: what the message calls the table.
    why: follows their names.
    """
    missing = [name for name in names if name not in there]
    if not missing:
        return
    hints = []
    for name in missing[:MOST_NAMED]:
        nearest = nearest_of(name, there, cutoff=0.5)
        hints.append(f"{name!r}" + ("" if nearest is None else f" (did you mean {nearest!r}?)"))
    raise DataError(
        f"{source} has no column {_shortened(hints, len(missing))}{why}. Its columns: "
        f"{_shortened(list(map(repr, itertools.islice(there, MOST_COLUMNS))), len(there))}.",
        code="wrong-shape",
        field=field,
    )


def _shortened(named: Sequence[str], count: int) -> str:
    return ", ".join(named) + (f" and {count - len(named):,} more" if count > len(named) else "")


def note_markers(source: str, name: str, cells: Iterable[Any]) -> None:
    """Make a note of the cells of a column of numbers that stand for empty ones, such as NA, but for blank ones."""
    markers = [cell for cell in cells if isinstance(cell, str) and cell.strip() and is_empty(cell)]
    if markers:
        note(
            "empty-markers",
            f"{source}: cells of the column {name!r} such as {markers[0]!r} count as empty.",
            count=len(markers),
        )


def named(source: str, keys: Iterable[Any], cells: Callable[[Any], Any]) -> dict[str, Any]:
    """The cells of columns by their names, as they are in a file; `DataError` if two have the same."""
    names = [spelled(str(key)) for key in keys]
    if len(set(names)) < len(names):
        raise DataError(f"{source} has two columns with the same name among {', '.join(map(repr, names))}. Rename one.")
    return {name: cells(key) for name, key in zip(names, keys, strict=True)}


def _columns_of(values: Any, columns: Sequence[str]) -> list[Any]:
    """The cells of each column of rows `(n, columns)`, which may be of several types."""
    if hasattr(values, "__array__"):
        array = np.asarray(values)
        if array.ndim == 2 and array.shape[1] == len(columns):
            return list(array.T)
        shape: object = array.shape
    else:
        rows = list(values) if isinstance(values, Sequence) and not isinstance(values, str | bytes) else None
        whole = rows is not None and all(isinstance(row, Sequence) or hasattr(row, "__array__") for row in rows)
        if rows is not None and whole and all(len(row) == len(columns) for row in rows):
            return [[row[place] for row in rows] for place in range(len(columns))]
        shape = type(values).__name__ if rows is None else f"{len(rows)} of other lengths or types"
    raise DataError(
        f"The model needs rows of {len(columns)} values (columns {', '.join(map(repr, columns))}), got {shape}.",
        code="wrong-shape",
    )


def arrow_column(cells: Any, name: str, column: str) -> Any:
    """Cells of a column as a column of Arrow: numbers, dates or truth values, if all of them are, else texts."""
    import pyarrow as pa

    if isinstance(cells, pa.Array | pa.ChunkedArray):
        return cells
    cells = unmasked(cells)
    try:
        if hasattr(cells, "to_arrow"):
            return cells.to_arrow()
        array = np.asarray(cells) if hasattr(cells, "__array__") else None
        if array is not None and array.dtype.kind in "biuf":
            return pa.array(np.ascontiguousarray(array))
        if array is not None and array.dtype.kind == "M":
            return pa.array(np.ascontiguousarray(array.astype("M8[us]")))
        known = [None if is_missing(cell) else _plain(cell) for cell in (cells if array is None else array.tolist())]
        kinds = {type(cell) for cell in known if cell is not None}
        if kinds <= {float}:
            return pa.array(known, pa.float64())
        if len(kinds) == 1 and kinds <= {bool, datetime.date, datetime.datetime, list}:
            return pa.array(known)
        # a number is written as `Table.texts` writes it in a column without texts
        texts = [cell if cell is None else written(cell) if isinstance(cell, float) else str(cell) for cell in known]
        return pa.array(texts, pa.string())
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{name}: column {column!r} cannot be read ({error}).") from error


def _plain(cell: Any) -> Any:
    """A cell as a type of Python that files have too: a text, number, truth value, date or moment."""
    if isinstance(cell, np.datetime64):
        cell = cell.astype("M8[us]")
    if hasattr(cell, "as_py"):
        cell = cell.as_py()
    elif hasattr(cell, "item") and getattr(cell, "ndim", 1) == 0:
        cell = cell.item()
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    if isinstance(cell, datetime.datetime):  # also those of pandas, to the microsecond
        return datetime.datetime.fromisoformat(cell.isoformat())
    if isinstance(cell, Real | Decimal) and not isinstance(cell, bool):
        return float(cell)
    return cell
