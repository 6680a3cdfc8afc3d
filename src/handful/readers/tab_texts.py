"""Tables saved by Excel as text: columns separated by tabs, in a .txt file."""

from pathlib import Path

from handful.readers.csv_tables import CsvReader
from handful.readers.tables import beginning

LOOKED_AT = 20
"""Lines that have as many tabs in a table."""


class TabTextReader(CsvReader):
    """A .txt file whose first lines have equally many tabs."""

    name = "tab-texts"
    described = "a .txt file of columns separated by tabs"
    suffixes = (".txt", ".txt.gz")
    by_content = True

    def matches(self, path: Path) -> bool:
        """Whether its lines have columns."""
        if not super().matches(path):
            return False
        lines = [line for line in beginning(path).splitlines()[:LOOKED_AT] if line.strip()]
        return len(lines) > 1 and len({line.count("\t") for line in lines}) == 1 and "\t" in lines[0]
