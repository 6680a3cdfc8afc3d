"""Tables in parquet files."""

from pathlib import Path
from typing import Any

from handful.cells import is_text
from handful.data_options import DataOptions
from handful.limits import Limits
from handful.readers.tables import TableReader


class ParquetReader(TableReader):
    """A parquet file."""

    name = "parquet"
    described = "a parquet table (.parquet, .pq)"
    suffixes = (".parquet", ".pq")

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns, with their types."""
        import pyarrow.parquet as parquet
        import pyarrow.types as kinds

        facts = parquet.read_metadata(path)
        limits.check(path, rows=facts.num_rows, bytes=8 * facts.num_rows * facts.num_columns)
        limits.check(path, bytes=sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups)))
        # A value that is stored once may be in every row: such columns are read as they are stored, and then measured.
        schema = parquet.read_schema(path)
        texts = [field.name for field in schema if is_text(field.type) or kinds.is_binary(field.type)]
        arrow = parquet.read_table(path, read_dictionary=texts)
        limits.check(path, bytes=sum(map(_unpacked, arrow.columns)))
        return arrow


def _unpacked(column: Any) -> int:
    """The bytes of a column where each row has its value."""
    import pyarrow.compute as compute
    import pyarrow.types as kinds

    kind = column.type
    if not kinds.is_dictionary(kind) or kinds.is_primitive(kind.value_type):
        return int(column.nbytes)
    sizes = (compute.binary_length(part.dictionary).take(part.indices) for part in column.chunks)
    return sum(compute.sum(part).as_py() or 0 for part in sizes)
