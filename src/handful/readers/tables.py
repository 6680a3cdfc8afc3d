"""Reading tables: csv, parquet and JSON."""

import contextlib
import csv as python_csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handful.cells import is_text
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import RawBatch
from handful.readers.paths import existing
from handful.readers.reader import Reader, check_one_task, row_numbers
from handful.table import Table

TABLES = frozenset({".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".json"})
PIECE = 2**24
"""Bytes that are read at a time, to stop at the limit."""
KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')
"""A name of JSON, and perhaps some more."""
PACKED = ".gz"
"""Also behind the name of a table; but parquet files are packed in themselves."""


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
    return Table(str(path), arrow, header=READERS[kind] is _read_csv)


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


class TableReader(Reader):
    """A csv, parquet or JSON file."""

    name = "tables"
    described = f"a table ({', '.join(sorted(TABLES))})"

    def matches(self, path: Path) -> bool:
        """By its name."""
        return path.is_file() and table_kind(path) is not None

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """The whole table, or its texts; with the label or the target, which only labeled examples have."""
        table = read_table(path, limits)
        labels: Any = None
        key = options.target or options.label
        if labeled and options.target:
            table.require([options.target], ", the target")
            labels = table.numbers(options.target)
        elif labeled and options.label:
            table.require([options.label], ", the label")
            labels = table.names_in(options.label)
        if labeled and options.task in table.names:
            check_one_task(table.texts(options.task), f"{path}, column {options.task!r},")
        groups = table.names_in(options.group) if labeled and options.group in table.names else None
        inputs: Any = table
        if options.text:
            table.require([options.text], ", the text")
            inputs = table.sentences(options.text)
        return RawBatch(inputs, row_numbers(table.rows), labels, f"{path}, column {key!r},", groups)
