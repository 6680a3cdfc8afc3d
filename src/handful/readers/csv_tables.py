"""Tables in csv files: comma, semicolon, tab or bar, in UTF-8, UTF-16 or a named encoding."""

import contextlib
import csv
import io
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from handful.data_options import DataOptions
from handful.dialect import cell_readings
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.tables import TableReader, as_utf8, buffer, content_of, header_row, note_titles

ROWS = 50
"""Rows of a file by which its header is found."""
DELIMITERS = ",;\t|"


class Header(NamedTuple):
    """Where the rows of a file begin.

    delimiter: of its cells.
    lines: how many are above the first row of data, with the one of the names.
    titles: how many rows are above that.
    fitting: how many rows have a cell for each name, or all one more.
    """

    delimiter: str
    names: list[str]
    lines: int = 0
    titles: int = 0
    fitting: int = 0


class CsvReader(TableReader):
    """A csv file. Titles above the column names, and Excel's line `sep=;`, are skipped."""

    name = "csv"
    described = "a csv table (.csv, .tsv)"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
    header = True

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns as texts."""
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        content = as_utf8(content_of(path, limits), path, options.encoding)
        header = header_of(content)
        if not header.names:
            raise DataError(f"{path} is empty: it needs a row of column names and, below it, rows of data.")
        "".join(header.names).encode()  # an error where they are not UTF-8
        note_titles(path, header.titles)
        # No threads: one that still runs when a command ends with an error aborts the process. `csv.open_csv`, which
        # would give the header, has one of its own whatever the options say.
        one_block = arrow_csv.ReadOptions(
            block_size=min(len(content) + 1024, 2**31 - 1),
            use_threads=False,
            skip_rows=header.lines,
            column_names=header.names,
        )
        parse = arrow_csv.ParseOptions(delimiter=header.delimiter)
        # Cells stay as they are written: by types of their own, the code 007 would be 7, and true another class in a
        # file that has no other word in the column.
        as_written = arrow_csv.ConvertOptions(column_types=dict.fromkeys(header.names, pa.binary()))
        try:
            arrow = arrow_csv.read_csv(buffer(content), one_block, parse, as_written)
        except pa.ArrowInvalid as error:
            if not any(words in str(error) for words in ("Empty CSV", "Could not skip")):  # names and nothing below
                raise
            arrow = pa.table({name: pa.array([], pa.string()) for name in header.names})
        for index, name in enumerate(arrow.column_names):
            with contextlib.suppress(pa.ArrowInvalid):  # not UTF-8, which matters only where the column is used
                arrow = arrow.set_column(index, name, arrow.column(index).cast(pa.string()))
        return arrow


def header_of(content: bytes) -> Header:
    """The header by the delimiter that makes columns, with the fewest titles above it and the most rows that fit."""
    start = content[:100].decode("utf-8-sig", errors="replace").splitlines()[:1]
    if start and (named := re.fullmatch("sep=(.)", start[0].strip("\r\n"), re.IGNORECASE)):
        return _header_by(named[1], content, above=1)
    headers = [_header_by(delimiter, content) for delimiter in DELIMITERS]
    best = max(
        headers,
        key=lambda found: (len(found.names) > 1 and found.fitting > 1, -found.titles, found.fitting, len(found.names)),
    )
    # Where no row fits, as after an unclosed quote, reading by the delimiter in the names reports the row.
    return next((found for found in headers if len(best.names) == 1 and found.delimiter in best.names[0]), best)


def _header_by(delimiter: str, content: bytes, above: int = 0) -> Header:
    """The first row that is not a title, decoding no more than needed; above: lines that are skipped. An unclosed quote
    makes no row; reading the table then reports the error.
    """
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(islice(text, above, None), delimiter=delimiter)
    rows: list[tuple[list[str], int]] = []
    with contextlib.suppress(csv.Error):
        rows += ((row, above + reader.line_num) for row in islice(reader, ROWS) if row)
    if not rows:
        return Header(delimiter, [])
    widths = Counter(len(row) for row, _ in rows)
    width = widths.most_common(1)[0][0]
    titles = header_row([row for row, _ in rows], width)
    names, lines = rows[titles]
    short = 1 < len(names) == width - 1
    if short and _are_numbered([row for row, _ in rows[titles + 1 :] if len(row) == width]):
        names = ["", *names]
    return Header(delimiter, names, lines, titles, widths[width if short else len(names)])


def _are_numbered(rows: list[list[str]]) -> bool:
    """Whether rows begin with the names or numbers of rows, for which R names no column.

    They do not where each row ends with a delimiter, or has a decimal comma in it.
    """
    first = [row[0] for row in rows]
    counted = first == [str(place + 1) for place in range(len(first))]
    return (
        len(set(first)) == len(first)
        and (counted or not any(cell_readings(cell.strip()) for cell in first))
        and any(row[-1].strip() for row in rows)
    )
