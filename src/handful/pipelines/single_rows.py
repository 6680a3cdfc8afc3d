"""Rows that are read each by itself, at once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from handful.dialect import DATE, ORDERS, PROGRAM, WAYS, Reading, cell_readings
from handful.table import Table, arrow_column, named, require

ORDERED = {WAYS[order] for order in ORDERS}


def projected(rows: Sequence[Mapping[str, Any]], names: Sequence[str], why: str) -> dict[str, list[Any]]:
    """The cells of these columns `(rows,)`; what else rows have is not read.

    Raises `DataError` about the first row without one, whatever others have; why: follows its name in the message.
    """
    keys: dict[tuple[str, ...], list[str]] = {}  # of rows with the same columns: those of the wanted ones
    cells = []
    for place, row in enumerate(rows):
        kind = tuple(row)
        if kind not in keys:
            found = named("The input", kind, str)
            require(f"The input, row {place + 1},", found, names, why, field=("inputs", place))
            keys[kind] = [found[name] for name in names]
        cells.append([row[key] for key in keys[kind]])
    return {name: list(column) for name, column in zip(names, zip(*cells, strict=True), strict=True)}


class SingleRows:
    """The cells of rows in memory, each row read as a `Table` of this row alone has them.

    The cells of a table decide together what their texts mean, and a column of numbers and texts holds only texts. Here
    only cells of one type in a column are read together, and the order of day and month is that of a row's own dates.

    cells: of each column `(rows,)`.
    """

    def __init__(self, cells: Mapping[str, Sequence[Any]]) -> None:
        self._cells = cells

    def texts(self, name: str) -> list[str | None]:
        """See `Table.texts`."""
        found: list[str | None] = [None] * len(self._cells[name])
        for some in self._of_one_type(name, range(len(found))):
            for place, text in zip(some, self._table([name], some).texts(name), strict=True):
                found[place] = text
        return found

    def numbers(self, name: str, unit: str) -> np.ndarray:
        """See `Table.numbers`, with gaps; and `Table.note_markers`."""
        cells = self._cells[name]
        found, dates = np.empty(len(cells)), self._dates(name) if unit == DATE else {}
        for some in self._of_one_type(name, [place for place in range(len(cells)) if place not in dates]):
            table = self._table([name], some)
            table.note_markers(name)
            found[some] = table.numbers(name, gaps=True, unit=unit)
        for place, date in dates.items():
            if date is None:  # the row alone says why
                [date] = self._table(list(self._cells), [place]).numbers(name, gaps=True, unit=unit)
            found[place] = date
        return found

    def _of_one_type(self, name: str, places: Sequence[int]) -> list[list[int]]:
        """These places, those of cells of one type of Arrow together."""
        cells = self._cells[name]
        found: dict[type, list[int]] = defaultdict(list)
        for place in places:
            found[type(cell) if isinstance(cell := cells[place], str | bool) else float].append(place)
        return list(found.values())

    def _dates(self, name: str) -> dict[int, float | None]:
        """The dates in a column that begin with day or month, by their rows, in days; None where it is not settled."""
        cells = self._cells[name]
        ordered = {cell for cell in set(cells) if ORDERED & _ways(cell).keys()}
        return {place: self._date(place, cell) for place, cell in enumerate(cells) if cell in ordered}

    def _date(self, place: int, cell: str) -> float | None:
        readings = _ways(cell)
        both = {reading.value for reading in readings.values()} if len(readings) == 2 else set()
        if len(both) == 1:
            return both.pop()
        ways = (ORDERED & _ways(cells[place]).keys() for cells in self._cells.values())
        deciding = set().union(*(some for some in ways if len(some) == 1))
        return readings[deciding.pop()].value if len(deciding) == 1 else None

    def _table(self, names: Sequence[str], places: Sequence[int]) -> Table:
        import pyarrow as pa

        columns = {name: [self._cells[name][place] for place in places] for name in names}
        arrow = pa.table({name: arrow_column(cells, "The input", name) for name, cells in columns.items()})
        return Table("The input", arrow, kept=tuple(places))


def _ways(cell: Any) -> dict[str, Reading]:
    """The ways in which a text is a number or a date."""
    return cell_readings(cell.strip(), PROGRAM.grouped) if isinstance(cell, str) else {}
