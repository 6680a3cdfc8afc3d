"""Tables in memory: cells of every type."""

import datetime

import pyarrow as pa
import pytest

from handful.dialect import DATE
from handful.errors import DataError
from handful.table import Table, require
from noted import noted

DAY = datetime.date(2024, 2, 1)


@pytest.mark.parametrize("days", [[DAY, None], [datetime.datetime(2024, 2, 1), None], ["2024-02-01", ""]])
@pytest.mark.parametrize("numbers", [[19754, None], [19754.0, None], ["19754", ""]])
def test_a_date_is_no_number_whatever_its_type(days, numbers):
    table = Table("t.parquet", pa.table({"day": days, "number": numbers}))
    assert table.numbers("day", gaps=True, unit=DATE)[0] == table.numbers("number", gaps=True, unit="")[0] == 19754
    with pytest.raises(DataError, match=r"column 'day', row 1: .* is not a finite number"):
        table.numbers("day", gaps=True, unit="")


def test_a_number_is_a_date_with_a_note_and_never_as_a_text():
    table = Table("t.parquet", pa.table({"number": [19754.0, None], "text": ["19754", ""]}))
    with noted("the column 'number' holds numbers, which are read as days since 1970"):
        assert table.numbers("number", gaps=True, unit=DATE)[0] == 19754
    with pytest.raises(DataError, match=r"column 'text', row 1: .* is not a date"):
        table.numbers("text", gaps=True, unit=DATE)


class Frame(dict):
    """A data frame, as far as a table asks."""

    @property
    def columns(self):
        return list(self)


@pytest.mark.parametrize(
    "values", [Frame({" a ": [1], 2: [3]}), [{" a ": 1, 2: 3}], pa.table({" a ": [1], "2": [3]})], ids=repr
)
def test_names_of_columns_are_spelled_as_in_files(values):
    table = Table.of(values, [])
    assert (table.names, table.numbers("a").tolist(), table.numbers("2").tolist()) == (["a", "2"], [1], [3])


@pytest.mark.parametrize("values", [Frame({"a": [1], "a ": [3]}), [{"a": 1}, {"a ": 3}]])
def test_two_columns_of_one_name_are_refused(values):
    with pytest.raises(DataError, match="two columns with the same name among 'a', 'a'"):
        Table.of(values, [])


def test_a_table_that_lacks_many_columns_names_some():
    with pytest.raises(DataError) as error:
        require("The input", [f"d{place}" for place in range(1_000)], [f"c{place}" for place in range(1_000)])
    message = error.value.message
    assert "'c0' (did you mean 'd0'?)" in message
    assert "and 995 more" in message
    assert "and 900 more" in message
    assert len(message) < 2_000
