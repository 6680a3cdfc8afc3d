"""Tables in JSON: lists of objects, or of texts with their labels."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.tables import TableReader, text_of
from handful.table import arrow_column


class JsonReader(TableReader):
    """A list of objects, one per row; or lists of `[text, label]` by name, as intents are published.

    The latter become the columns `text`, `label` and `part`.
    """

    name = "json"
    described = "a table in JSON (.json)"
    suffixes = (".json", ".json.gz")
    by_people = False

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns, with their types."""
        import pyarrow as pa

        content = json.loads(text_of(path, options, limits))
        if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
            return table_of_rows(content, path, limits)
        if isinstance(content, dict) and any(content.values()) and all(map(_labeled_texts, content.values())):
            rows = [(text, label, part) for part, pairs in content.items() for text, label in pairs]
            return pa.table(dict(zip(("text", "label", "part"), map(list, zip(*rows, strict=True)), strict=True)))
        raise DataError(
            f"{path} should hold a list of objects, one per row, or lists of [text, label] by name "
            '({"train": [["a text", "its label"], ...], ...}).'
        )


def table_of_rows(rows: Sequence[Mapping[str, Any]], path: Path, limits: Limits) -> Any:
    """A table of Arrow with the names of all rows; a row that lacks one has an empty cell there."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    limits.check(path, bytes=8 * len(names) * len(rows))
    return pa.table({name: _column([row.get(name) for row in rows], path, name) for name in names})


def _column(cells: list[Any], path: Path, name: str) -> Any:
    """Cells of one type; if numbers and texts are mixed, as in 1 and "NA", all as texts."""
    import pyarrow as pa

    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if any(isinstance(cell, list | dict) for cell in cells):
            raise
        return arrow_column(cells, str(path), name)


def _labeled_texts(pairs: Any) -> bool:
    return isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(value, str) for value in pair) for pair in pairs
    )
