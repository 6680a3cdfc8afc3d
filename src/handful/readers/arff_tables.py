"""Tables in ARFF, the format of Weka."""

import csv
import re
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.tables import TableReader, text_of

ATTRIBUTE = re.compile(r"@attribute\s+(?:'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"|(\S+))\s+\S.*", re.IGNORECASE)
QUOTED = re.compile(r"(?:^|,)\s*(['\"])")
"""What begins a cell in quotes."""
ESCAPED = re.compile(r"\\([\\'\"%])")


class ArffReader(TableReader):
    """An ARFF file, whose cells are read as those of a csv file are; ? is an empty one."""

    name = "arff"
    described = "an ARFF table (.arff)"
    suffixes = (".arff", ".arff.gz")
    by_people = False

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns as texts."""
        import pyarrow as pa

        lines = text_of(path, options, limits).split("\n")
        data = next((place for place, line in enumerate(lines) if line.strip().lower() == "@data"), None)
        if data is None:
            raise DataError(f"{path} has no line @data.", code="unsupported-media")
        found = [ATTRIBUTE.fullmatch(line.strip()) for line in lines[:data]]
        names = [_unescaped(match[1] or match[2] or "") or match[3] for match in found if match]
        columns: list[list[str | None]] = [[] for _ in names]
        for number, line in enumerate(lines[data + 1 :], start=data + 2):
            if not line.strip() or line.lstrip().startswith("%"):
                continue
            if line.lstrip().startswith("{"):
                raise DataError(f"{path}, line {number}: sparse rows are not supported. Save the table as csv.")
            quote = '"'
            if quoted := QUOTED.search(line):
                quote = quoted[1]
                line = _unescaped(line, quote)
            cells = next(csv.reader([line], quotechar=quote, skipinitialspace=True))
            if len(cells) != len(names):
                raise DataError(f"{path}, line {number}: {len(cells)} cells for {len(names)} attributes.")
            for column, cell in zip(columns, cells, strict=True):
                column.append(None if cell.strip() == "?" else cell.strip())
        return pa.table([pa.array(column, pa.string()) for column in columns], names=names)


def _unescaped(text: str, quote: str = "") -> str:
    """A text with what its escapes stand for, but with two of a quote, as csv writes one in quotes."""
    return ESCAPED.sub(lambda found: found[1] * (2 if found[1] == quote else 1), text)
