"""Tables: common parts of the readers of their formats."""

import codecs
import csv
import gzip
import io
import lzma
import re
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from handful.cells import spelled
from handful.data_options import DataOptions
from handful.dialect import PROGRAM, Dialect, cell_readings
from handful.errors import DataError, HandfulError, UserError, count_of
from handful.limits import Limits
from handful.notes import note
from handful.raw_batch import RawBatch
from handful.readers.paths import hidden
from handful.readers.reader import Reader, readers
from handful.table import Table

PIECE = 2**24
"""Bytes that are read at a time, to stop at the limit."""
PACKED = ".gz"
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
"""What unpacking fails with."""
LOOKED_AT = 2**16
"""Bytes of a file that are searched for a zero."""
BEGINNING = 2**20
"""Bytes of a file by which its format is found."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UNNAMED = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")
"""The names of columns without a name, also as pandas writes them."""


class TableReader(Reader):
    """Reads tables of one format: a subclass gives the `columns` of a file.

    Attributes:
        by_people: whether its texts may have localized numbers and dates; otherwise they are in standard form.
        header: whether a row above the first one names the columns, which messages do not count.
    """

    by_people: ClassVar[bool] = True
    header: ClassVar[bool] = False

    @abstractmethod
    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """The content of a file as a table of Arrow. Errors of Arrow and Python become a `DataError` that names the
        file."""

    def table(self, path: Path, options: DataOptions, limits: Limits) -> Table:
        """The table in a file; `DataError` if it is unreadable, has no rows, or more than the limits."""
        import pyarrow as pa

        try:
            arrow = self.columns(path, options, limits)
        except HandfulError:
            raise
        except UnicodeError as error:
            raise _no_text(path) from error
        except (
            pa.ArrowException,
            csv.Error,
            lzma.LZMAError,
            zlib.error,
            ArithmeticError,
            AttributeError,
            EOFError,
            LookupError,
            MemoryError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            reason = str(error).splitlines() or [type(error).__name__]
            raise DataError(
                f"{path} cannot be read as a {self.name} table: {reason[0]}", code="unsupported-media"
            ) from error
        arrow = _named_columns(path, arrow)
        if not arrow.num_rows:
            raise DataError(f"{path} has columns but no rows.", code="too-few-examples")
        limits.check(path, rows=arrow.num_rows)
        given: Any = Dialect(options.decimal, options.dates) if self.by_people else PROGRAM  # type: ignore[arg-type]
        table = Table(str(path), arrow, self.header, given)
        if self.header:
            _check_names(table)
        return table

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """The whole table; of labeled examples also the columns that have a role, if they are there."""
        table = self.table(path, options, limits)
        if labeled:
            table.require([options.target] if options.target else [], ", the target")
            table.require([options.label] if options.label else [], ", the label")
            if predicted := options.target or options.label:
                table = table.with_known(predicted, numbers=bool(options.target))
        raw = RawBatch(
            table, table.row_numbers, table.place, lambda role: f"{path}, column {getattr(options, role)!r},"
        )
        if not labeled:
            return raw

        def column(role: str | None, read: Callable[[str], Any]) -> Any:
            return read(role) if role in table.names else None

        return replace(
            raw,
            labels=column(options.label, table.names_in),
            targets=column(options.target, table.numbers),
            unit=column(options.target, table.unit) or "",
            tasks=column(options.task, table.texts),
            groups=column(options.group, table.names_in),
            order=column(options.order, table.numbers),
        )


def header_row(rows: Sequence[Sequence[str]], width: int) -> int:
    """Which of the first rows of texts has the names of the columns: the first one that is no title."""
    titles = 0
    while titles < len(rows) - 1 and _is_title(rows[titles], width):
        titles += 1
    # Names that are numbers are none: it was a column of single cells.
    return 0 if rows and any(cell_readings(cell.strip()) for cell in rows[titles]) else titles


def _is_title(row: Sequence[str], width: int) -> bool:
    """Whether no more than the first cell of a row is written; beside two columns a title has the delimiter too."""
    return bool(len(row) == width > 1 or width > 2) and not any(map(str.strip, row[1:]))


def note_titles(path: Path, rows: int) -> None:
    """Make a note of rows above the names of the columns."""
    if rows:
        note("title-rows", f"{path}: skipped {count_of(rows, 'row')} above the column names.")


def _named_columns(path: Path, arrow: Any) -> Any:
    """The columns that have names, each its own; those without one number the rows, or are empty."""
    arrow = arrow.rename_columns([spelled(name) for name in arrow.column_names])
    unnamed = [name for name in arrow.column_names if UNNAMED.fullmatch(name)]
    named = [index for index, name in enumerate(arrow.column_names) if not UNNAMED.fullmatch(name)]
    if unnamed:
        note("unnamed-column", f"{path}: a column without a name is ignored.", count=len(unnamed))
        arrow = arrow.select(named)
    spellings: dict[str, str] = {}
    for name in arrow.column_names:
        other = spellings.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(f"{path}: the columns {other!r} and {name!r} differ only in case. Rename one.")
    twice = [name for name, count in Counter(arrow.column_names).items() if count > 1]
    if twice and cell_readings(twice[0]):
        raise _no_names(str(path), arrow.column_names)
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}. Rename one of them.")
    return arrow


def _check_names(table: Table) -> None:
    """Raise `DataError` if the column names are a row of data: if all numeric columns have numbers as names, and these,
    or all other names, also occur in their columns, or all columns are numeric. Three or more numbers that rise or
    fall, whole or by equal steps, such as years or wavelengths, are names.
    """
    if not any(map(cell_readings, table.names)):
        return
    numbers = {name: list(cell_readings(name).values()) for name in table.names if table.numeric(name)}
    if not all(any(reading.unit == table.unit(name) for reading in ways) for name, ways in numbers.items()):
        return
    others = [name for name in table.names if name not in numbers]
    values = np.array([ways[0].value for ways in numbers.values()])
    steps = np.diff(values)
    regular = len(steps) > 1 and ((values % 1 == 0).all() or np.allclose(steps, steps[0]))
    found = any(own and all(name in table.cells(name) for name in own) for own in (list(numbers), others))
    if found or not (others or (regular and ((steps > 0).all() or (steps < 0).all()))):
        raise _no_names(table.name, table.names)


def _no_names(source: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"{source} has no column names: its first row looks like data ({', '.join(map(repr, names[:3]))}"
        f"{', ...' if len(names) > 3 else ''}). Add a row of names above it."
    )


def table_reader(path: Path) -> TableReader | None:
    """The reader of what is at this path as a table, if it is one."""
    return next((reader for reader in readers() if isinstance(reader, TableReader) and reader.matches(path)), None)


def table_files(folder: Path) -> list[Path]:
    """The tables of a folder by name; hidden files and others are passed over."""
    return sorted(file for file in folder.iterdir() if not hidden(file) and file.is_file() and table_reader(file))


def content_of(path: Path, limits: Limits) -> bytes:
    """The content of a file, unpacked up to the limit."""
    parts, size = [], 0
    try:
        with _opened(path) as file:
            while part := file.read(PIECE):
                parts.append(part)
                size += len(part)
                limits.check(path, bytes=size)
    except DAMAGED as error:
        raise DataError(f"{path} is not an intact .gz file: {error}.", code="unsupported-media") from error
    return b"".join(parts)


def beginning(path: Path) -> str:
    """The first letters of a file, in UTF-8 or by its mark in UTF-16; empty if it cannot be unpacked."""
    try:
        with _opened(path) as file:
            content = file.read(BEGINNING)
    except DAMAGED:
        return ""
    return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig", errors="replace")


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix.lower() == PACKED else path.open("rb")


def text_of(path: Path, options: DataOptions, limits: Limits) -> str:
    """The text in a file, with a line feed at the end of a line; `DataError` for other content, see `as_utf8`."""
    text = _decoded(as_utf8(content_of(path, limits), path, options.encoding), "utf-8-sig", path)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def as_utf8(content: bytes, path: Path, encoding: str | None) -> bytes:
    """The text of a file in UTF-8, from the encoding that is named, or that its first bytes are the mark of.

    Without either, it is unchanged. Raises `DataError` for text in another encoding, and `UserError` for an unknown
    encoding.
    """
    if encoding is None and content.startswith(UTF_16):
        encoding = "utf-16"
    if encoding is None:
        if b"\0" in content[:LOOKED_AT]:
            raise _no_text(path, "UTF-8: it has zero bytes, as UTF-16 has")
        return content
    return _decoded(content, encoding, path).encode()


def _decoded(content: bytes, encoding: str, path: Path) -> str:
    try:
        text = content.decode(encoding)
        text.encode()  # which halves of letters of UTF-16 cannot be
    except UnicodeError as error:
        raise _no_text(path, encoding.removesuffix("-sig").upper()) from error
    except (LookupError, ValueError) as error:
        raise UserError(
            f"The encoding {encoding!r} is unknown.", field=("encoding",), hint="Name another with {encoding}."
        ) from error
    return text


def _no_text(path: Path, encoding: str = "UTF-8") -> DataError:
    return DataError(
        f"{path} is not text in {encoding}.",
        code="unsupported-media",
        hint="Name its encoding with {encoding}, or save it as UTF-8.",
    )


def buffer(content: bytes) -> Any:
    """Bytes as what Arrow reads."""
    import pyarrow as pa

    return pa.BufferReader(content)
