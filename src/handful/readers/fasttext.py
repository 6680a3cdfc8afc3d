"""Labeled texts of fastText: in each line `__label__NAME`, and the text."""

from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.tables import TableReader, content_of

MARK = "__label__"


class FastTextReader(TableReader):
    """A .txt file whose lines begin with labels: a table of the columns `text` and `label`."""

    name = "fasttext"
    described = "a .txt file of fastText"
    suffixes = (".txt",)
    by_content = True
    by_people = False

    def matches(self, path: Path) -> bool:
        """Whether it begins with a label."""
        if not super().matches(path):
            return False
        with path.open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Text and label of each line; several labels are an error."""
        import pyarrow as pa

        lines = content_of(path, limits).decode(options.encoding or "utf-8").removesuffix("\n").split("\n")
        rows = [line.strip().split(" ") for line in lines]
        counts = [sum(word.startswith(MARK) for word in words) for words in rows]
        wrong = next((place for place, count in enumerate(counts) if count != 1), None)
        if wrong is not None:
            raise DataError(f"{path}, line {wrong + 1} has {counts[wrong]} labels. Each text has one class.")
        labels = [next(word.removeprefix(MARK) for word in words if word.startswith(MARK)) for words in rows]
        texts = [" ".join(word for word in words if not word.startswith(MARK)).strip() for words in rows]
        return pa.table({"text": texts, "label": labels})
