"""Columns of data frames of every kind give the tensors that the same data in a file give."""

import csv
import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
import torch

from handful.errors import DataError
from handful.notes import collecting
from handful.pipelines.rows import TablePipeline
from handful.table import Table
from tables import read_table

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = [datetime.datetime(2024, month, 1, 12, 30) for month in (2, 5, 7)]
DAYS = [moment.date() for moment in MOMENTS]
ZONED = [moment.replace(tzinfo=BERLIN) for moment in MOMENTS]
KINDS = {
    "whole": (["1", "3", "7", "3"], [1, 3, 7, 3]),
    "whole, some empty": (["1", "", "7", "3"], [1, None, 7, 3]),
    "numbers": (["0.5", "2.25", "", "4"], [0.5, 2.25, None, 4.0]),
    "numbers, none empty": (["0.5", "2.25", "-1e3", "4"], [0.5, 2.25, -1000.0, 4.0]),
    "decimals": (["0.5", "2.25", "", "4.00"], [Decimal("0.5"), Decimal("2.25"), None, Decimal("4.00")]),
    "truth": (["true", "false", "true", "true"], [True, False, True, True]),
    "truth, some empty": (["true", "false", "", "true"], [True, False, None, True]),
    "texts": (["a", "b", "", "a"], ["a", "b", None, "a"]),
    "codes": (["007", "12", "", "12"], ["007", "12", None, "12"]),
    "mixed": (["A1", "12", "b", "c"], ["A1", 12.0, "b", "c"]),
    "numbers as texts": (["1", "2.5", "NA", "7"], ["1", "2.5", "NA", "7"]),
    "days": (["2024-02-01", "2024-05-01", "", "2024-07-01"], [*DAYS[:2], None, DAYS[2]]),
    "moments": (["2024-02-01 12:30:00", "2024-05-01T12:30", "", "2024-07-01 12:30"], [*MOMENTS[:2], None, MOMENTS[2]]),
    "moments in a zone": (
        ["2024-02-01 12:30:00+01:00", "2024-05-01 10:30Z", "", "2024-07-01 12:30+02:00"],
        [*ZONED[:2], None, ZONED[2]],
    ),
    "times": (
        ["12:30:00", "13:00:00", "", "12:30:00"],
        [datetime.time(12, 30), datetime.time(13), None, datetime.time(12, 30)],
    ),
    "lists of one": (["a", "b", "a", "b"], [["a"], ["b"], ["a"], ["b"]]),
}


class NA:
    """As pandas has it: what it is compared with is neither true nor false."""

    def __eq__(self, other):
        return self

    __ne__ = __eq__
    __hash__ = None

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


class Series:
    """A column as Polars has it."""

    def __init__(self, arrow):
        self.to_arrow = lambda: arrow


class Frame(dict):
    """As much of a data frame as is asked of one."""

    @property
    def columns(self):
        return list(self)


def objects(values, missing=None):
    column = np.empty(len(values), object)
    column[:] = [missing if value is None else value for value in values]
    return column


def columns_of(name, values):
    """The columns by the form that they have."""
    known = [value for value in values if value is not None]
    yield "objects", objects(values)
    yield "NA", objects(values, NA())
    yield "NaN", objects(values, float("nan"))
    yield "NaT", objects(values, np.datetime64("NaT"))
    yield "a list", list(values)
    types = set(map(type, known))
    if len(types) == 1:
        arrow = pa.array(values)
        yield "Arrow", arrow
        yield "Polars", Series(pa.chunked_array([arrow[:1], arrow[1:]]))
    if types <= {str}:
        yield "bytes", objects([value and value.encode() for value in values])
        yield "categories", Series(arrow.dictionary_encode())
        yield "large texts", Series(arrow.cast(pa.large_string()))
        yield "a view", Series(arrow.cast(pa.string_view()))
        yield "objects of NumPy", objects([value and np.str_(value) for value in values])
    if types <= {int, float, Decimal}:
        typed = np.array([np.nan if value is None else float(value) for value in values])
        yield "floats", typed
        yield "masked", np.ma.array(np.nan_to_num(typed), mask=np.isnan(typed))
        yield "Decimal", objects([value and Decimal(str(value)) for value in values])
        yield "objects of NumPy", objects([value and np.float64(value) for value in values])
        yield "floats of Arrow", Series(pa.array(typed, from_pandas=True))
        yield "categories", Series(pa.array(typed, from_pandas=True).dictionary_encode())
        if all(value is not None and float(value).is_integer() for value in values):
            yield "bytes of numbers", typed.astype(np.int8)
            yield "without sign", typed.astype(np.uint64)
    if types == {bool} and len(known) == len(values):
        yield "truth values", np.array(values)
    if types == {datetime.date} or (types == {datetime.datetime} and known[0].tzinfo is None):
        typed = np.array(values, "M8[us]")
        yield "moments of NumPy", typed
        yield "nanoseconds", typed.astype("M8[ns]")
        yield "seconds", typed.astype("M8[s]")
        yield "nanoseconds of Arrow", Series(pa.array(typed).cast(pa.timestamp("ns")))
        yield "objects of NumPy", objects(list(typed))


def read(path, cells):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("x", "y"), *zip(cells, range(len(cells)), strict=True)])
    return read_table(path)


@pytest.fixture
def same(tmp_path):
    """Whether a frame gives what a file gives, to be predicted and to be learned from."""

    def compare(frame, cells):
        table, rows = read(tmp_path / "t.csv", cells), np.arange(len(cells))
        with collecting():
            pipeline = TablePipeline.fit(table, rows, target="y")
            assert torch.equal(pipeline.encode(frame), pipeline.encode(table))
            assert TablePipeline.fit(Table.of(frame, []), rows, target="y").columns == pipeline.columns

    return compare


@pytest.mark.parametrize("name", KINDS)
def test_a_column_of_a_frame_is_that_of_a_file(name, same):
    cells, values = KINDS[name]
    for form, column in columns_of(name, values):
        try:
            same(Frame(x=column, y=np.arange(len(values))), cells)
        except Exception as error:
            raise AssertionError(form) from error


PANDAS = {
    "whole": ["int64", "Int64", "int8", "Float32", "category", object, "int64[pyarrow]"],
    "whole, some empty": ["float64", "Int64", "Float64", object, "category", "Int32", "int64[pyarrow]"],
    "numbers": ["float64", "Float64", "float32", object, "double[pyarrow]", "category"],
    "truth": ["bool", "boolean", object, "category", "bool[pyarrow]"],
    "truth, some empty": ["boolean", object, "category", "bool[pyarrow]"],
    "texts": ["string", "str", object, "category", "string[pyarrow]"],
    "codes": ["string", object, "category"],
    "mixed": [object],
    "days": [object, "datetime64[ns]", "datetime64[s]", "date32[pyarrow]"],
    "moments": [object, "datetime64[ns]", "datetime64[us]", "timestamp[ms][pyarrow]"],
    "moments in a zone": [object, "datetime64[ns, Europe/Berlin]"],
    "lists of one": [object],
}


@pytest.mark.parametrize("name", PANDAS)
def test_pandas(name, same):
    pandas = pytest.importorskip("pandas")
    cells, values = KINDS[name]
    for dtype in PANDAS[name]:
        frame = pandas.DataFrame({"x": pandas.Series(values, dtype=dtype), "y": range(len(values))})
        try:
            same(frame, cells)
            same(frame.set_axis([7, 7, "a", 3]), cells)
        except Exception as error:
            raise AssertionError(dtype) from error


POLARS = {
    "whole": ["Int64", "UInt8", "Float64"],
    "whole, some empty": ["Int64", "Float64"],
    "numbers": ["Float64", "Float32"],
    "decimals": ["Decimal"],
    "truth, some empty": ["Boolean"],
    "texts": ["String", "Categorical"],
    "codes": ["String", "Categorical"],
    "days": ["Date", "Datetime"],
    "moments": ["Datetime"],
    "times": ["Time"],
    "lists of one": ["List"],
}


@pytest.mark.parametrize("name", POLARS)
def test_polars(name, same):
    polars = pytest.importorskip("polars")
    cells, values = KINDS[name]
    for dtype in POLARS[name]:
        column = (
            polars.Series(values)
            if dtype in ("List", "Decimal")
            else polars.Series(values, dtype=getattr(polars, dtype))
        )
        try:
            same(polars.DataFrame({"x": column, "y": range(len(values))}), cells)
        except Exception as error:
            raise AssertionError(dtype) from error


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (lambda: Frame({1: [1.0], "1": [2.0]}), "has two columns with the same name among '1', '1'"),
        (lambda: Frame(x=[10**400]), "column 'x' cannot be read"),
        (lambda: Frame(x=objects([np.zeros(2), np.ones(2)])), "column 'x', row 1: .* is not a finite number"),
        (lambda: Frame(x=np.array(["9999999-01-01"], "M8[D]")), "column 'x' cannot be read"),
        (lambda: Frame(x=pa.array([{"a": 1}])), "column 'x' is of type struct.*, which is not supported"),
        (
            lambda: type("Lazy", (Frame,), {"collect": None})(x=[1.0]),
            r"is not computed yet. Pass the result of its \.collect\(\)",
        ),
    ],
)
def test_columns_that_hold_no_cells_are_told(frame, said):
    pipeline = TablePipeline(columns=[{"name": "x", "median": 0.0, "width": 1.0, "clipped": False}])
    with pytest.raises(DataError, match=said):
        pipeline.encode(frame())


def test_what_is_masked_is_empty():
    pipeline = TablePipeline(columns=[{"name": "x", "median": 1.0, "width": 1.0, "clipped": False, "gaps": True}])
    masked = np.ma.array([[1.0], [2.0]], mask=[[False], [True]])
    assert torch.equal(pipeline.encode(masked), pipeline.encode([[1.0], [None]]))
