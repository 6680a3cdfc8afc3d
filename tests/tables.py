"""For tests of tables in files."""

from handful.limits import LOCAL
from handful.readers.reader import read


def read_table(path, limits=LOCAL, options=None):
    """The table in a file."""
    return read(path, options=options, limits=limits).inputs
