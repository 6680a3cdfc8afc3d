"""Cells as people write them: each way in which one can be a number or a date."""

import pyarrow as pa
import pytest

from handful.dialect import DATE, PROGRAM, Dialect, cell_readings, readings

DAY = 19754.0
"""2024-02-01, in days since 1970."""


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("285", {"": 285}),
        ("1.5", {".": 1.5}),
        ("0.123", {".": 0.123}),
        ("1.234", {".": 1.234, ",": 1234}),
        ("1,234", {".": 1234, ",": 1.234}),
        ("1.234.567", {",": 1234567}),
        ("1,23,456", {".": 123456}),
        ("12,34,567.50", {".": 1234567.5}),
        ("1.234,5", {",": 1234.5}),
        ("1 234,5", {",": 1234.5}),
        ("1\u202f234", {"": 1234}),
        ("1\u2019234.50", {".": 1234.5}),
        ("\u22125", {"": -5}),
        ("+ 5", {"": 5}),
        ("1e-3", {"": 0.001}),
        ("1.234e5", {".": 123400}),
        ("\u0661\u0662\u066b\u0665", {",": 12.5}),
        (",5", {",": 0.5}),
        ("5.", {".": 5}),
    ],
)
def test_numbers(text, ways):
    assert {way: reading.value for way, reading in cell_readings(text).items()} == ways
    assert {reading.unit for reading in cell_readings(text).values()} == {""}


@pytest.mark.parametrize(
    ("text", "way", "value", "unit"),
    [
        ("12,5 %", ",", 12.5, "%"),
        ("12%", "", 12, "%"),
        ("\u20ac 1,50", ",", 1.5, "\u20ac"),
        ("-\u20ac5", "", -5, "\u20ac"),
        ("R$ 1.234,50", ",", 1234.5, "R$"),
        ("EUR 12", "", 12, "EUR"),
        ("20.5\u00b0C", ".", 20.5, "\u00b0C"),
        ("12 m\u00b2", "", 12, "m2"),
        ("15,735 mi", ".", 15735, "mi"),
        ("15,735 mi", ",", 15.735, "mi"),
    ],
)
def test_units(text, way, value, unit):
    assert cell_readings(text)[way] == (value, unit)


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("2024-02-01", {"": DAY}),
        ("2024/02/01 12:00", {"": DAY + 0.5}),
        ("1/2/2024", {"dmy": DAY, "mdy": DAY - 30}),
        ("01.02.2024", {"dmy": DAY, "mdy": DAY - 30}),
        ("31/1/2024", {"dmy": DAY - 1}),
        ("1/31/2024 6:00 PM", {"mdy": DAY - 0.25}),
    ],
)
def test_dates(text, ways):
    assert cell_readings(text) == {way: (day, DATE) for way, day in ways.items()}


@pytest.mark.parametrize(
    "text",
    ["", "abc", "A12", "12B", "1,234,5", "1.2.3", "1 23", "1-2", "--5", "1/2", "31/31/2024", "0,123,456", "12 or more"]
    + ["285\u00b9", "285 \u00b9", "\u2460", "10\u00b2", "12 m\u00b2 \u2461", "1\u00bd", "\u00b2"],
)
def test_what_is_no_number(text):
    assert cell_readings(text) == {}


def test_programs_write_points_only():
    assert cell_readings("1.234", grouped=False) == {".": (1.234, "")}
    for text in ("1,5", "1 234", "1'234", "1,234.5"):
        assert cell_readings(text, grouped=False) == {}


@pytest.mark.parametrize("grouped", [True, False])
def test_whole_columns_are_read_as_single_cells(grouped):
    texts = ["1", "-2.5", "1.234", "99.999", "0.999", "1234.567", "1e3", "x", "1,5", "12 %", "1/2/2024", ".5", "7."]
    found = readings(pa.array(texts), grouped)
    for dialect in (PROGRAM, Dialect(".", "dmy"), Dialect(",", "mdy"), Dialect()):
        for text, number, unit in zip(texts, found.read(dialect), found.units, strict=True):
            ways = cell_readings(text, grouped)
            value = next((ways[way] for way in ("", dialect.decimal, dialect.dates) if way in ways), None)
            assert (number, unit) == value if value else number != number, (text, dialect)


def test_leading_zeros_make_codes():
    assert readings(pa.array(["0077", "-05", "0", "0.5", "10"]), True).codes.tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]
