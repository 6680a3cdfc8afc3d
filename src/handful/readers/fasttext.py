"""Labeled texts of fastText: in each line `__label__NAME`, and the text."""

from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.tables import TableReader, beginning, text_of

MARK = "__label__"


class FastTextReader(TableReader):
    """A .txt file whose lines begin with labels: a table of the columns `text` and `label`."""

    name = "fasttext"
    described = "a .txt file of fastText"
    suffixes = (".txt", ".txt.gz")
    by_content = True
    by_people = False

    def matches(self, path: Path) -> bool:
        """Whether it begins with a label."""
        return super().matches(path) and beginning(path).lstrip().startswith(MARK)

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Text and label of each line; several labels are an error."""
        import pyarrow as pa

        rows = []
        for number, line in enumerate(text_of(path, options, limits).split("\n"), start=1):
            labels = [word.removeprefix(MARK) for word in line.split() if word.startswith(MARK)]
            if len(labels) > 1:
                raise DataError(f"{path}, line {number} has {len(labels)} labels. Each text has one class.")
            if line.strip():
                text = " ".join(word for word in line.split() if not word.startswith(MARK))
                rows.append({"text": text, "label": labels[0] if labels else None})
        return pa.Table.from_pylist(rows)
