"""Texts, one in each line of a file."""

from pathlib import Path

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.raw_batch import RawBatch, numbered
from handful.readers.reader import Reader, row_numbers


class LineReader(Reader):
    """A .txt file in UTF-8: its lines are inputs without labels."""

    name = "lines"
    described = "a .txt file with a text in each line"
    suffixes = (".txt",)

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """The lines; an empty one is an error."""
        limits.check(path, bytes=path.stat().st_size)
        try:
            content = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not text in UTF-8: save it as UTF-8.", code="unsupported-media") from error
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
