"""Tables in JSON lines: an object in each line."""

import json
import re
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.json_tables import table_of_rows
from handful.readers.tables import TableReader, buffer, text_of

KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')
"""A name of JSON, and perhaps some more."""


class JsonLinesReader(TableReader):
    """A file of JSON lines, whose columns are the names in any of them."""

    name = "jsonl"
    described = "JSON lines (.jsonl)"
    suffixes = (".jsonl", ".jsonl.gz")
    by_people = False

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns with their types, but dates as they are written."""
        import pyarrow as pa
        from pyarrow import json as rows

        content = text_of(path, options, limits).encode()
        _check_cells(path, content, limits)
        one_block = rows.ReadOptions(block_size=min(len(content) + 1024, 2**31 - 1), use_threads=False)
        try:
            arrow = rows.read_json(buffer(content), one_block)
        except pa.ArrowInvalid:  # a column of several types, or what is no JSON
            lines = enumerate(content.splitlines(), start=1)
            return table_of_rows([_object(line, path, number) for number, line in lines if line.strip()], path, limits)
        dates = [field.with_type(pa.string()) for field in arrow.schema if pa.types.is_timestamp(field.type)]
        if not dates:
            return arrow
        # What looks like a date is a text in JSON, and stays as it is written; the columns stay in their order.
        as_written = rows.ParseOptions(explicit_schema=pa.schema(dates))
        return rows.read_json(buffer(content), one_block, as_written).select(arrow.column_names)


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number} is not JSON ({error}).", code="unsupported-media") from error
    if not isinstance(found, dict):
        raise DataError(f'{path}, line {number} is not a JSON object such as {{"a": 1}}.', code="unsupported-media")
    return found


def _check_cells(path: Path, content: bytes, limits: Limits) -> None:
    """Rows that lack a name have an empty cell, so that a table may be much larger than what is written."""
    lines = content.count(b"\n") + 1
    if 8 * lines * content.count(b":") > limits.bytes:
        limits.check(path, bytes=8 * lines * len({key[1] for key in KEY.finditer(content)}))
