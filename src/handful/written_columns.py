"""Text columns with localized numbers and dates: one dialect for all columns of a file."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from handful.cells import EMPTY
from handful.dialect import DATE, DECIMALS, ORDERS, WAYS, Dialect, Readings, readings
from handful.errors import DataError
from handful.notes import note
from handful.raw_batch import Place, numbered

ROW = numbered("row", 1)


class TextColumn:
    """A column of texts, each different one of which is read once.

    column: of Arrow.
    grouped: see `Dialect`.
    """

    def __init__(self, column: Any, grouped: bool) -> None:
        import pyarrow as pa
        import pyarrow.compute as compute

        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        bare = compute.utf8_trim_whitespace(column)
        empty = compute.is_in(compute.utf8_lower(bare), value_set=pa.array(sorted(EMPTY), bare.type))
        encoded = compute.if_else(empty, pa.scalar(None, bare.type), bare).dictionary_encode()
        self.texts = encoded.dictionary.to_pylist()
        self.places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)  # (rows,)
        self.counts = np.bincount(self.places[self.places >= 0], minlength=len(self.texts))
        self.readings: Readings = readings(encoded.dictionary, grouped)
        self.unit = self._commonest_unit()

    def _commonest_unit(self) -> str:
        counts: dict[str, int] = {}
        for place in np.flatnonzero(self.readings.readable):
            unit = self.readings.units[place]
            counts[unit] = counts.get(unit, 0) + int(self.counts[place])
        return max(counts, key=lambda unit: (counts[unit], unit), default="")

    @property
    def readable(self) -> np.ndarray:
        """Which of the texts are numbers of the commonest unit, or dates if these are commonest."""
        found: np.ndarray = self.readings.readable & (self.readings.units == self.unit)
        return found

    @property
    def numeric(self) -> bool:
        """Whether at least half of the cells that are not empty are numbers or dates, and none is a code."""
        found = self.counts[self.readable].sum()
        return bool(found and 2 * found >= self.counts.sum() and not self.readings.codes.any())

    def numbers(self, dialect: Dialect, unit: str | None) -> np.ndarray:
        """Numbers `(rows,)`: NaN for an empty cell, infinite for what is none in this unit and dialect."""
        found = self.readings.read(dialect)
        found[np.isnan(found) | (self.readings.units != (self.unit if unit is None else unit))] = np.inf
        numbers: np.ndarray = np.append(found, np.nan)[self.places]
        return numbers

    def first(self, chosen: np.ndarray) -> int | None:
        """The first row with one of the chosen texts, or None."""
        rows = np.flatnonzero(np.append(chosen, False)[self.places])
        return int(rows[0]) if len(rows) else None


class Question(NamedTuple):
    """An ambiguity of a file until its cells settle it: two of `WAYS`, the option that decides, and its name."""

    ways: tuple[int, int]
    option: str
    words: str
    hint: str


QUESTIONS = (
    Question(DECIMALS, "decimal", "decimal mark", "Set the decimal mark with {decimal}."),
    Question(ORDERS, "dates", "order of day and month", "Set {dates} to dmy (day first) or mdy."),
)


class WrittenColumns:
    """The columns of texts of one file.

    source, row: what messages call it, and each of its rows.
    given: what holds where no cell decides.
    """

    def __init__(self, source: str, columns: Mapping[str, Any], given: Dialect, row: Place = ROW) -> None:
        self.source, self.row = source, row
        self.columns = {name: TextColumn(column, given.grouped) for name, column in columns.items()}
        settled = [self._settled(question, getattr(given, question.option)) for question in QUESTIONS]
        self.dialect = given._replace(decimal=cast(Any, settled[0]), dates=cast(Any, settled[1]))

    def _settled(self, question: Question, given: str | None) -> str | None:
        """The way that the cells determine; the given one if they do not, or contradict one another."""
        found = {way: cell for way, cell in zip(question.ways, self._deciding(question), strict=True) if cell}
        if len(found) != 1:
            return given
        ((way, cell),) = found.items()
        if given not in (None, WAYS[way]):
            note(
                "other-dialect",
                f"{self.source}: the {question.words} is {WAYS[way]!r} and not {given!r}, by the cell {cell}.",
            )
        return WAYS[way]

    def _deciding(self, question: Question) -> list[str]:
        """For each way, the first cell that can only be read in it; empty without one."""
        return [
            next(
                (
                    self._place(name, row)
                    for name, column in self.columns.items()
                    if column.numeric
                    and (row := column.first(column.readable & column.readings.deciding(way, other))) is not None
                ),
                "",
            )
            for way, other in (question.ways, question.ways[::-1])
        ]

    def numbers(self, name: str, unit: str | None = None) -> np.ndarray:
        """A column, see `TextColumn.numbers`; `DataError` if one of its cells is ambiguous."""
        column = self.columns[name]
        for question in QUESTIONS:
            row = column.first(column.readings.unsettled(question.ways))
            if row is not None:
                self._check_settled(question, name, row)
        return column.numbers(self.dialect, unit)

    def _check_settled(self, question: Question, name: str, row: int) -> None:
        cells = self._deciding(question)
        settled = getattr(self.dialect, question.option)
        if settled and sum(map(bool, cells)) == 1:
            return
        if settled:
            note(
                "assumed-dialect",
                f"{self.source}: no cell determines the {question.words}; {self._place(name, row)} is read by "
                f"{settled!r}.",
            )
            return
        column = self.columns[name]
        one, other = column.readings.values[list(question.ways), column.places[row]]
        if all(cells):
            reason = f"the cells {cells[0]} and {cells[1]} contradict one another"
        else:
            second = next((place for place in range(len(column.texts)) if place != column.places[row]), None)
            beside = "" if second is None else f" ({column.texts[second]!r} does not either)"
            reason = f"no column of numbers decides{beside}"
        raise DataError(
            f"{self.source}: {self._place(name, row)} can mean {_shown(one, column.unit)} or "
            f"{_shown(other, column.unit)}: {reason}.",
            hint=question.hint,
        )

    def _place(self, name: str, row: int) -> str:
        column = self.columns[name]
        return f"{column.texts[column.places[row]]!r} (column {name!r}, {self.row(row)})"


def _shown(value: float, unit: str) -> str:
    if unit == DATE:
        return str(np.datetime64(int(value), "D"))
    return f"{value:.15g}" + (f" {unit}" if unit else "")
