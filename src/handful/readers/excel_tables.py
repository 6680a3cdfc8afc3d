"""Tables in workbooks of Excel."""

import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful.cells import is_empty
from handful.data_options import DataOptions
from handful.dialect import POINT_OR_GROUP, cell_readings
from handful.errors import DataError, UserError
from handful.limits import Limits
from handful.readers.tables import TableReader, header_row, note_titles
from handful.table import arrow_column, note_markers

SHEET = re.compile(r"(.+\.xls[xm]):([^:/\\]+)", re.IGNORECASE)
"""The pattern of a path with the name of a sheet, as in `sales.xlsx:2024`."""
AMBIGUOUS = re.compile(POINT_OR_GROUP)
MERGED = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]*?ref=["']([A-Za-z0-9:$]+)""")
CELL = 64
"""Bytes that the place of a cell takes in memory, about, also an empty one."""


class ExcelReader(TableReader):
    """The first sheet of a workbook, or a named one: numbers and dates as stored by Excel, merged cells filled."""

    name = "excel"
    described = "an Excel table (.xlsx)"
    suffixes = (".xlsx", ".xlsm")
    header = True

    def matches(self, path: Path) -> bool:
        """Whether the path is a workbook, with or without the name of a sheet."""
        return super().matches(_workbook(path)[0])

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns: numbers or dates if all cells are, or mark empty ones, else texts."""
        import pyarrow as pa

        file, sheet = _workbook(path)
        try:
            with zipfile.ZipFile(file) as parts:
                limits.check(file, bytes=sum(part.file_size for part in parts.infolist()))
            rows = _rows(file, sheet, limits)
        except (zipfile.BadZipFile, KeyError, TypeError, AttributeError, SyntaxError) as error:  # as openpyxl fails
            raise ValueError(f"it is not a workbook ({error})") from error
        texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
        width = max(map(len, texts), default=0)
        place = header_row(texts, width)
        note_titles(path, place)
        names = [name or f"Unnamed: {index}" for index, name in enumerate(texts[place])] if texts else []
        if not rows[place + 1 :]:
            raise DataError(f"{path} has columns but no rows.", code="too-few-examples")
        columns = [
            (name, _without_markers(path, name, cells))
            for name, cells in zip(names, zip(*rows[place + 1 :], strict=True), strict=True)
        ]
        _check_marks(path, columns)
        return pa.table([arrow_column(_unmixed(cells), str(path), name) for name, cells in columns], names)


def _without_markers(path: Path, name: str, cells: Sequence[Any]) -> Sequence[Any]:
    """The cells of a column, without texts that stand for empty ones beside numbers or dates."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    if all(map(is_empty, texts)) and len(texts) < sum(cell is not None for cell in cells):
        note_markers(str(path), name, texts)
        return [None if isinstance(cell, str) else cell for cell in cells]
    return cells


def _check_marks(path: Path, columns: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Raise `DataError` if numbers beside texts would decide how a text such as 1.234 is read. Excel stores numbers
    without a format, so they do not show how the texts were written.
    """
    mixed = [
        name
        for name, cells in columns
        if any(isinstance(cell, float) and not cell.is_integer() for cell in cells)
        and any(isinstance(cell, str) for cell in cells)
    ]
    for name, cells in columns if mixed else ():
        for cell in cells:
            ways = cell_readings(cell.strip()) if isinstance(cell, str) else {}
            if {".", ","} <= set(ways) and ways["."] != ways[","]:
                raise DataError(
                    f"{path}: the text {cell!r} of the column {name!r} can mean {ways['.'].value:.15g} or "
                    f"{ways[','].value:.15g}, and the column {mixed[0]!r} has numbers beside texts. Make all of them "
                    "numbers in Excel."
                )


def _unmixed(cells: Sequence[Any]) -> Sequence[Any]:
    """The cells of a column that no dialect reads to other numbers.

    Beside texts a whole number is written without a point, and one such as 1.234 as 1.2340.
    """
    if {type(cell) for cell in cells if cell is not None} <= {int, float}:
        return cells
    cells = [str(int(cell)) if type(cell) in (int, float) and cell == cell // 1 else cell for cell in cells]
    return [f"{cell}0" if isinstance(cell, float) and AMBIGUOUS.fullmatch(str(cell)) else cell for cell in cells]


def _workbook(path: Path) -> tuple[Path, str | None]:
    """The file and the name of the sheet."""
    found = SHEET.fullmatch(str(path))
    return (Path(found[1]), found[2]) if found and not path.exists() else (path, None)


def _check_merged(file: Path, limits: Limits) -> None:
    """Stop at merged cells that cover more than the limits: openpyxl makes each place of them as it opens the file."""
    from openpyxl.utils import range_boundaries

    cells = 0
    with zipfile.ZipFile(file) as parts:
        for part in parts.infolist():
            for area in MERGED.findall(parts.read(part)) if part.filename.endswith(".xml") else ():
                left, top, right, bottom = range_boundaries(area.decode())
                cells += (right - left + 1) * (bottom - top + 1)
    limits.check(f"{file} with its merged cells", bytes=CELL * cells)


def _rows(file: Path, sheet: str | None, limits: Limits) -> list[list[Any]]:
    """The rows of a sheet that hold something, a merged cell in each place that it covers, but for a title."""
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(
            f"{file} needs openpyxl to read Excel files: pip install 'handful[excel]', or save the table as csv.",
            code="unsupported-media",
        ) from error
    _check_merged(file, limits)
    with file.open("rb") as opened, warnings.catch_warnings():  # openpyxl leaves its own handle open where it fails
        warnings.simplefilter("ignore")  # they are about styles
        book = openpyxl.load_workbook(opened, data_only=True)
    if sheet is not None and sheet not in book.sheetnames:
        raise DataError(f"{file} has no sheet {sheet!r}. Sheets: {', '.join(map(repr, book.sheetnames))}.")
    page = book[sheet or book.sheetnames[0]]
    last = page.dimensions.rpartition(":")[2]
    limits.check(f"{file} up to its last cell {last}", bytes=CELL * page.max_row * page.max_column)
    rows = [list(row) for row in page.iter_rows(values_only=True)]
    for area in page.merged_cells.ranges:
        covered = rows[area.min_row - 1 : area.max_row]
        first = covered[0][area.min_col - 1]
        beside = (cell for row in covered for cell in row[: area.min_col - 1] + row[area.max_col :])
        if area.max_col > area.min_col and all(cell is None for cell in beside):
            continue  # a title, which is no cell of each column
        for row in covered:
            row[area.min_col - 1 : area.max_col] = [first] * (area.max_col - area.min_col + 1)
    rows = [row for row in rows if any(cell is not None for cell in row)]
    width = max((place + 1 for row in rows for place, cell in enumerate(row) if cell is not None), default=0)
    return [row[:width] for row in rows]
