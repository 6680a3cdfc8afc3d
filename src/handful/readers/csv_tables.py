"""Tables in csv files: comma, semicolon or tab."""

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.limits import Limits
from handful.readers.tables import TableReader, buffer, content_of


class CsvReader(TableReader):
    """A csv file, whose first line has the names of the columns."""

    name = "csv"
    described = "a csv table (.csv, .tsv)"
    suffixes = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
    header = True

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns as texts."""
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        content = content_of(path, limits)
        headers = {delimiter: _header(content, delimiter) for delimiter in ",;\t"}
        delimiter = max(headers, key=lambda one: len(headers[one]))
        # No threads: one that still runs when a command ends with an error aborts the process. `csv.open_csv`, which
        # would give the header, has one of its own whatever the options say.
        one_block = arrow_csv.ReadOptions(block_size=min(len(content) + 1024, 2**31 - 1), use_threads=False)
        parse = arrow_csv.ParseOptions(delimiter=delimiter)
        # Cells stay as they are written: by types of their own, the code 007 would be 7, and true another class in a
        # file that has no other word in the column.
        as_written = arrow_csv.ConvertOptions(column_types=dict.fromkeys(headers[delimiter], pa.binary()))
        arrow = arrow_csv.read_csv(buffer(content), one_block, parse, as_written)
        for index, name in enumerate(arrow.column_names):
            with contextlib.suppress(pa.ArrowInvalid):  # not UTF-8, which matters only where the column is used
                arrow = arrow.set_column(index, name, arrow.column(index).cast(pa.string()))
        return arrow


def _header(content: bytes, delimiter: str) -> list[str]:
    """The cells of the first line that is not empty, of which no more is decoded than needed."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", errors="replace", newline="")
    try:
        return next(filter(None, csv.reader(text, delimiter=delimiter)), [])
    except csv.Error:  # a quote that is never closed; what is wrong is told by the one who reads the rows
        return []
