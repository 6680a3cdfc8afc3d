"""Texts, one in each line of a file."""

from pathlib import Path

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.raw_batch import RawBatch, numbered
from handful.readers.reader import Reader, row_numbers
from handful.readers.tables import text_of


class LineReader(Reader):
    """A .txt file: its lines are inputs without labels."""

    name = "lines"
    described = "a .txt file with a text in each line"
    suffixes = (".txt", ".txt.gz")

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """The lines; an empty one is an error."""
        content = text_of(path, options, limits)
        # Not by `splitlines`, which also divides at such as U+2028 inside of a text.
        lines = content.removesuffix("\n").split("\n")
        limits.check(path, rows=len(lines))
        empty = [number for number, line in enumerate(lines, start=1) if not line.strip()]
        if empty:
            raise DataError(
                f"{path}{f', line {empty[0]},' if content else ''} is empty. Write one text in each line.",
                code="missing-value",
            )
        return RawBatch(lines, row_numbers(len(lines)), numbered(f"{path}, line", 1))
