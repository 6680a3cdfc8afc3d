"""One dialect for all columns of a file: settled by its cells, or not at all."""

import numpy as np
import pyarrow as pa
import pytest

from handful.dialect import Dialect
from handful.errors import DataError
from handful.written_columns import WrittenColumns
from noted import noted


def columns(given=None, **cells):
    return WrittenColumns("t.csv", {name: pa.array(texts) for name, texts in cells.items()}, given or Dialect())


def test_a_cell_of_one_column_settles_the_others():
    for decider, value in (("0,5", 20123), ("0.5", 20.123)):
        assert columns(price=["20.123", "285"], share=[decider, "1"]).numbers("price").tolist() == [value, 285]


def test_where_no_cell_decides_two_cells_are_shown():
    with pytest.raises(DataError) as caught:
        columns(price=["285", "20.123"]).numbers("price")
    said = "t.csv: '20.123' (column 'price', row 2) can mean 20.123 or 20123: no column of numbers decides"
    assert caught.value.message == f"{said} ('285' does not either)."
    assert caught.value.hint == "Set the decimal mark with {decimal}."


def test_cells_that_contradict_one_another_are_shown():
    with pytest.raises(DataError, match=r"the cells '0\.5' \(column 'b', row 1\) and '0,5' \(column 'c', row 1\)"):
        columns(a=["1.234"], b=["0.5"], c=["0,5"]).numbers("a")


def test_what_is_given_holds_where_no_cell_decides_and_no_longer():
    given = Dialect(decimal=",")
    with noted("no cell determines the decimal mark; '20.123'"):
        assert columns(given, price=["20.123", "285"]).numbers("price").tolist() == [20123, 285]
    with noted(r"the decimal mark is '\.' and not ',', by the cell '0\.5'"):
        assert columns(given, price=["20.123", "0.5"]).numbers("price").tolist() == [20.123, 0.5]
    assert np.isinf(columns(Dialect(decimal="."), a=["0,5", "1"], b=["0.5", "1"]).numbers("a")).tolist() == [
        True,
        False,
    ]


def test_dates_are_settled_by_a_day_above_12():
    days = columns(start=["1/2/2024", "3/4/2024"], end=["13/2/2024", "1/1/2024"]).numbers("start")
    assert np.array(days, "M8[D]").astype(str).tolist() == ["2024-02-01", "2024-04-03"]
    with pytest.raises(DataError, match=r"'1/2/2024' .* can mean 2024-02-01 or 2024-01-02: no column of numbers"):
        columns(start=["5/5/2024", "1/2/2024"]).numbers("start")


def test_columns_of_texts_decide_nothing():
    versions = ["1.234.567", "a", "b", "c"]
    with pytest.raises(DataError, match="no column of numbers decides"):
        columns(price=["20.123"] * 4, version=versions).numbers("price")


@pytest.mark.parametrize(
    ("texts", "numeric"),
    [
        (["1", "2", "x"], True),
        (["1", "x"], True),
        (["1", "x", "y"], False),
        (["1", "", "NA", "x"], True),
        (["1", "2", "03"], False),
        (["5 kg", "6 kg", "7 lb"], True),
        (["5 kg", "6 lb", "7 st"], False),
        (["", ""], False),
    ],
)
def test_half_of_the_cells_make_a_column_of_numbers(texts, numeric):
    assert columns(a=texts).columns["a"].numeric == numeric


def test_cells_of_another_unit_are_none():
    found = columns(a=["5 kg", "6 kg", "7 lb", "8", ""])
    assert found.numbers("a").tolist()[:4] == [5, 6, np.inf, np.inf]
    assert np.isinf(found.numbers("a", "lb")).tolist() == [True, True, False, True, False]
