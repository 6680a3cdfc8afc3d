"""Tables in memory: cells of every type."""

import datetime

import pyarrow as pa
import pytest

from handful.dialect import DATE
from handful.errors import DataError
from handful.table import Table

DAY = datetime.date(2024, 2, 1)


@pytest.mark.parametrize("days", [[DAY, None], [datetime.datetime(2024, 2, 1), None], ["2024-02-01", ""]])
@pytest.mark.parametrize("numbers", [[19754, None], [19754.0, None], ["19754", ""]])
def test_a_date_is_no_number_whatever_its_type(days, numbers):
    table = Table("t.parquet", pa.table({"day": days, "number": numbers}))
    assert table.numbers("day", gaps=True, unit=DATE)[0] == table.numbers("number", gaps=True, unit="")[0] == 19754
    with pytest.raises(DataError, match=r"column 'number', row 1: .* is not a date"):
        table.numbers("number", gaps=True, unit=DATE)
    with pytest.raises(DataError, match=r"column 'day', row 1: .* is not a finite number"):
        table.numbers("day", gaps=True, unit="")
