"""Tables in JSON: lists of objects, or of texts with their labels."""

import json
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.tables import TableReader, text_of


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
