"""Reading tables: csv, parquet and JSON, with errors that name column and row."""

import contextlib
import csv as python_csv
import difflib
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handful.cells import days, floats, is_empty, is_text, without_comma, written
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.readers.paths import existing

TABLES = frozenset({".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".json"})
PIECE = 2**24
"""Bytes that are read at a time, to stop at the limit."""
KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')
"""A name of JSON, and perhaps some more."""
PACKED = ".gz"
"""Also behind the name of a table; but parquet files are packed in themselves."""


@dataclass(frozen=True)
class Table:
    """A table in memory. Rows are counted from 1 in messages and ids, without the header."""

    path: Path
    arrow: Any

    @property
    def names(self) -> list[str]:
        """The columns, in their order."""
        return list(self.arrow.column_names)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.arrow.num_rows)

    def require(self, names: Iterable[str], why: str = "") -> None:
        """Raise a `DataError` that names all missing columns, each with the nearest one that there is."""
        missing = [name for name in names if name not in self.names]
        if not missing:
            return
        hints = []
        for name in missing:
            nearest = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
            hints.append(f"{name!r}" + (f" (did you mean {nearest[0]!r}?)" if nearest else ""))
        raise DataError(
            f"{self.path} has no column {', '.join(hints)}{why}. Its columns: {', '.join(map(repr, self.names))}.",
            code="wrong-shape",
        )

    def numeric(self, name: str) -> bool:
        """Whether a column holds numbers or dates: by its type, or because most of its texts read as such."""
        import pyarrow.types as kinds

        column = self.arrow.column(name)
        if not is_text(column.type):
            return not kinds.is_boolean(column.type)
        found = floats(column)
        readable = np.isfinite(found).sum()
        return bool(readable and 2 * readable >= (~np.isnan(found)).sum())

    def numbers(self, name: str, *, gaps: bool = False) -> np.ndarray:
        """A column as floats `(rows,)`, dates as days since 1970; `DataError` at the first cell that is no number.

        gaps: empty cells are NaN, and no error.
        """
        import pyarrow as pa
        import pyarrow.types as kinds

        column = self.arrow.column(name)
        kind = column.type
        if is_text(kind):
            numbers = floats(column)
        elif kinds.is_date(kind) or kinds.is_timestamp(kind):
            numbers = days(column)
        elif kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_boolean(kind):
            numbers = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
        elif kinds.is_null(kind):
            numbers = np.full(self.rows, np.nan)
        else:
            raise self._unusable(name)
        wrong = np.flatnonzero(np.isinf(numbers) if gaps else ~np.isfinite(numbers))
        if len(wrong):
            raise self._cell(name, int(wrong[0]), len(wrong), "a finite number")
        return numbers

    def texts(self, name: str) -> list[str | None]:
        """A column as texts, None where a cell is empty; whole numbers are written without a point."""
        import pyarrow.types as kinds

        kind = self.arrow.column(name).type
        if kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
            raise self._unusable(name)
        return [written(cell) for cell in self.arrow.column(name).to_pylist()]

    def sentences(self, name: str) -> list[str]:
        """A column of texts as they are; `DataError` at the first empty cell."""
        names = self.names_in(name)
        cells = self.arrow.column(name).to_pylist()
        return [cell if isinstance(cell, str) else names[row] for row, cell in enumerate(cells)]

    def names_in(self, name: str) -> list[str]:
        """A column of labels, tasks or groups as texts; `DataError` at the first empty cell."""
        values = self.texts(name)
        empty = [row for row, value in enumerate(values) if value is None]
        if empty:
            raise self._cell(name, empty[0], len(empty), "a name")
        return [value for value in values if value is not None]

    def _cell(self, name: str, row: int, count: int, wanted: str) -> DataError:
        value = self.arrow.column(name)[row].as_py()
        found = "the cell is empty, NA or the like" if is_empty(value) else f"{value!r} is not {wanted}"
        found += without_comma(value)
        more = f" (and in {count - 1} more rows)" if count > 1 else ""
        line = f" (line {row + 2} with the header)" if READERS.get(table_kind(self.path) or "") is _read_csv else ""
        return DataError(
            f"{self.path}: column {name!r}, row {row + 1}{line}: {found}{more}. Correct or remove the "
            f"{'rows' if count > 1 else 'row'}, or drop the column."
        )

    def _unusable(self, name: str) -> DataError:
        kind = self.arrow.column(name).type
        hint = " If it is text, save the file as UTF-8." if "binary" in str(kind) else ""
        return DataError(f"{self.path}: column {name!r} is of type {kind}, which is not used; drop it.{hint}")


def table_kind(path: Path) -> str | None:
    """By which of the `TABLES` a file is read, told by its name; None if it is no table."""
    packed = path.suffix.lower() == PACKED
    kind = (path.with_suffix("") if packed else path).suffix.lower()
    return None if kind not in TABLES or (packed and kind in (".parquet", ".pq")) else kind


def read_table(path: str | Path, limits: Limits = LOCAL) -> Table:
    """Read a table; `DataError` if it is unreadable, has no rows, or more than the limits.

    A csv file (comma, semicolon or tab), parquet, JSON lines (one object per row), or JSON: a list of objects, or lists
    of `[text, label]` by name, as intents are published, which become the columns `text`, `label` and `part`.
    """
    import pyarrow as pa

    path = existing(path)
    kind = None if path.is_dir() else table_kind(path)
    if kind is None:
        raise DataError(
            f"{path} is not a table. Expected a file that ends in {', '.join(sorted(TABLES))}.",
            code="unsupported-media",
        )
    try:
        arrow = READERS[kind](path, limits)
        names = arrow.column_names
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8: save the table as UTF-8 csv, or as parquet.", code="unsupported-media"
        ) from error
    except DataError:
        raise
    except (
        pa.ArrowException,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        RecursionError,
        zlib.error,
        MemoryError,
    ) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise DataError(
            f"{path} cannot be read as a {kind.lstrip('.')} table: {reason[0]}", code="unsupported-media"
        ) from error
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}. Rename one of them.")
    if not arrow.num_rows:
        raise DataError(f"{path} has columns but no rows.", code="too-few-examples")
    limits.check(path, rows=arrow.num_rows)
    for index, field in enumerate(arrow.schema):
        if pa.types.is_dictionary(field.type):
            arrow = arrow.set_column(index, field.name, arrow.column(index).cast(field.type.value_type))
    return Table(path, arrow)


def _read_parquet(path: Path, limits: Limits) -> Any:
    import pyarrow.parquet as parquet
    import pyarrow.types as kinds

    facts = parquet.read_metadata(path)
    limits.check(path, rows=facts.num_rows, bytes=8 * facts.num_rows * facts.num_columns)
    limits.check(path, bytes=sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups)))
    # A value that is stored once may be in every row: such columns are read as they are stored, and then measured.
    texts = [field.name for field in parquet.read_schema(path) if is_text(field.type) or kinds.is_binary(field.type)]
    arrow = parquet.read_table(path, read_dictionary=texts)
    limits.check(path, bytes=sum(map(_unpacked, arrow.columns)))
    return arrow


def _unpacked(column: Any) -> int:
    """The bytes of a column where each row has its value."""
    import pyarrow.compute as compute
    import pyarrow.types as kinds

    kind = column.type
    if not kinds.is_dictionary(kind) or kinds.is_primitive(kind.value_type):
        return int(column.nbytes)
    sizes = (compute.binary_length(part.dictionary).take(part.indices) for part in column.chunks)
    return sum(compute.sum(part).as_py() or 0 for part in sizes)


def _read_csv(path: Path, limits: Limits) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    content = _content(path, limits)
    headers = {delimiter: _header(content, delimiter) for delimiter in ",;\t"}
    delimiter = max(headers, key=lambda one: len(headers[one]))
    # No threads: one that still runs when a command ends with an error aborts the process. `csv.open_csv`, which would
    # give the header, has one of its own whatever the options say.
    one_block = csv.ReadOptions(block_size=min(len(content) + 1024, 2**31 - 1), use_threads=False)
    parse = csv.ParseOptions(delimiter=delimiter)
    # Cells stay as they are written: by types of their own, the code 007 would be 7, and true another class in a file
    # that has no other word in the column.
    as_written = csv.ConvertOptions(column_types=dict.fromkeys(headers[delimiter], pa.binary()))
    arrow = csv.read_csv(_buffer(content), one_block, parse, as_written)
    for index, name in enumerate(arrow.column_names):
        with contextlib.suppress(pa.ArrowInvalid):  # not UTF-8, which matters only where the column is used
            arrow = arrow.set_column(index, name, arrow.column(index).cast(pa.string()))
    return arrow


def _header(content: bytes, delimiter: str) -> list[str]:
    """The cells of the first line that is not empty, of which no more is decoded than needed."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", errors="replace", newline="")
    try:
        return next(filter(None, python_csv.reader(text, delimiter=delimiter)), [])
    except python_csv.Error:  # a quote that is never closed; what is wrong is told by the one who reads the rows
        return []


def _read_json_lines(path: Path, limits: Limits) -> Any:
    import pyarrow as pa
    from pyarrow import json as rows

    content = _content(path, limits)
    _check_cells(path, content, limits)
    one_block = rows.ReadOptions(block_size=min(len(content) + 1024, 2**31 - 1), use_threads=False)
    arrow = rows.read_json(_buffer(content), one_block)
    dates = [field.with_type(pa.string()) for field in arrow.schema if pa.types.is_timestamp(field.type)]
    if not dates:
        return arrow
    # What looks like a date is a text in JSON, and stays as it is written; the columns stay in their order.
    as_written = rows.ParseOptions(explicit_schema=pa.schema(dates))
    return rows.read_json(_buffer(content), one_block, as_written).select(arrow.column_names)


def _check_cells(path: Path, content: bytes, limits: Limits) -> None:
    """Rows that lack a name have an empty cell, so that a table may be much larger than what is written."""
    lines = content.count(b"\n") + 1
    if 8 * lines * content.count(b":") > limits.bytes:
        limits.check(path, bytes=8 * lines * len({key[1] for key in KEY.finditer(content)}))


def _read_json(path: Path, limits: Limits) -> Any:
    import pyarrow as pa

    content = json.loads(_content(path, limits).decode("utf-8-sig"))
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        # By the names of all rows: `pa.Table.from_pylist` takes those of the first one.
        names = dict.fromkeys(name for row in content for name in row)
        limits.check(path, bytes=8 * len(names) * len(content))
        return pa.table({name: [row.get(name) for row in content] for name in names})
    if isinstance(content, dict) and any(content.values()) and all(map(_labeled_texts, content.values())):
        rows = [(text, label, part) for part, pairs in content.items() for text, label in pairs]
        return pa.table(dict(zip(("text", "label", "part"), map(list, zip(*rows, strict=True)), strict=True)))
    raise DataError(
        f"{path} should hold a list of objects, one per row, or lists of [text, label] by name "
        '({"train": [["a text", "its label"], ...], ...}).'
    )


def _labeled_texts(pairs: Any) -> bool:
    return isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(value, str) for value in pair) for pair in pairs
    )


def _content(path: Path, limits: Limits) -> bytes:
    """What a file holds, unpacked no further than the limit."""
    with gzip.open(path) if path.suffix.lower() == PACKED else path.open("rb") as file:
        parts, size = [], 0
        while part := file.read(PIECE):
            parts.append(part)
            size += len(part)
            limits.check(path, bytes=size)
    return b"".join(parts)


def _buffer(content: bytes) -> Any:
    import pyarrow as pa

    return pa.BufferReader(content)


READERS: dict[str, Callable[[Path, Limits], Any]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".jsonl": _read_json_lines,
    ".json": _read_json,
}


def table_files(folder: Path) -> list[Path]:
    """The tables of a folder by name; hidden files and others are passed over."""
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != "." and table_kind(file))
