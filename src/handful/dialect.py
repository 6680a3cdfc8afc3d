"""The formats of numbers and dates: the decimal mark, the order of day and month, and units.

A cell such as `1.234` or `1/2/2024` can be read in two ways. Which one is right is settled for a whole file, by its
other cells; if none of them decides, nothing is guessed.
"""

import datetime
import functools
import re
import unicodedata
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

Mark: TypeAlias = Literal[".", ","]
DateOrder: TypeAlias = Literal["dmy", "mdy"]
WAYS = ("", ".", ",", "dmy", "mdy")
"""What the reading of a cell depends on: nothing, the decimal mark, or the order of a date."""
DECIMALS, ORDERS = (1, 2), (3, 4)
"""The places in `WAYS` that exclude one another."""
DATE = "a date"
"""The unit of dates, which are days since 1970."""

MACHINE = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""Numbers in standard form, which Arrow reads directly."""
POINT_OR_GROUP = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"
LONGEST = 50
"""Letters of a cell that may be a number."""
CODE = r"^[+-]?0\d+$"
"""A number with a leading zero, which is a code."""

CURRENCY = "$€£¥₹₩₽₺₴₦₫₱₪฿₸₡₲₵"
CURRENCIES = (
    "EUR|USD|GBP|CHF|JPY|CNY|INR|KRW|RUB|TRY|BRL|MXN|PLN|CZK|HUF|RON|SEK|NOK|DKK|AUD|CAD|NZD|ZAR|kr|Rs|Fr|zł|Kč"
)
PREFIX = rf"(?:[A-Z]{{0,3}}[{CURRENCY}]|(?:{CURRENCIES})\.?(?=[\s\d]))"
SUFFIX = rf"(?:\s?(?:[%‰{CURRENCY}]|°\s?[A-Za-z]?)|\s[^\W\d_][^\s\d]{{0,11}}[23]?)"
GROUPED = r"(?:\d{1,3}(?:G\d{3})+|\d{1,2}(?:G\d{2})*G\d{3})"
CELL = re.compile(
    rf"(?P<sign>[+-]?)\s?(?P<prefix>{PREFIX})?\s?(?P<inner>[+-]?)"
    rf"(?P<body>(?:\d[\d.,' ]*)?[.,]?\d[.,]?(?:[eE][+-]?\d+)?)(?P<suffix>{SUFFIX})?"
)
DAY_FIRST_OR_MONTH_FIRST = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:,?[ T](.+))?")
YEAR_FIRST = re.compile(r"(\d{4})([./])(\d{1,2})\2(\d{1,2})(?:,?[ T](.+))?")
ALIKE = str.maketrans({"\u2212": "-", "\u066b": ",", "\u066c": "'", "\u2019": "'", "\u02bc": "'", "\u0092": "'"})
"""Signs that stand for others: the minus sign, Arabic marks, apostrophes."""


class Reading(NamedTuple):
    """One way to read a cell: a number in its unit, or days since 1970."""

    value: float
    unit: str


class Dialect(NamedTuple):
    """How a file writes numbers and dates.

    decimal: its decimal mark, None if no cell decides.
    dates: which of day and month comes first, likewise.
    grouped: whether thousands may be separated; otherwise numbers are in standard form.
    """

    decimal: Mark | None = None
    dates: DateOrder | None = None
    grouped: bool = True


PROGRAM = Dialect(".", None, grouped=False)
"""Of JSON and Python."""


class Readings(NamedTuple):
    """What each of n texts may be.

    values: `(5, n)`, by the ways of `WAYS`; NaN where a text is no number in that way.
    units: n.
    codes: `(n,)`, which texts are numbers with a leading zero.
    """

    values: np.ndarray
    units: np.ndarray
    codes: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """Which texts are a number or date in some way `(n,)`."""
        found: np.ndarray = ~np.isnan(self.values).all(0)
        return found

    def unsettled(self, ways: tuple[int, int]) -> np.ndarray:
        """Which texts differ by the way in which they are read `(n,)`."""
        one, other = self.values[list(ways)]
        found: np.ndarray = ~np.isnan(one) & ~np.isnan(other) & (one != other)
        return found

    def deciding(self, way: int, other: int) -> np.ndarray:
        """Which texts can only be read in one of two ways `(n,)`."""
        found: np.ndarray = ~np.isnan(self.values[way]) & np.isnan(self.values[other])
        return found

    def read(self, dialect: Dialect) -> np.ndarray:
        """Numbers by a dialect `(n,)`, NaN for what is none, or is not settled."""
        found: np.ndarray = self.values[0].copy()
        for ways, chosen in ((DECIMALS, dialect.decimal), (ORDERS, dialect.dates)):
            one, other = self.values[list(ways)]
            settled = self.values[WAYS.index(chosen)] if chosen else np.where(one == other, one, np.nan)
            found = np.where(np.isnan(found), settled, found)
        return found


def readings(texts: Any, grouped: bool) -> Readings:
    """The readings of texts, a column of Arrow without empty cells; grouped: see `Dialect`."""
    import pyarrow as pa
    import pyarrow.compute as compute

    count = len(texts)
    values, units = np.full((len(WAYS), count), np.nan), np.full(count, "", dtype=object)
    plain = np.asarray(compute.match_substring_regex(texts, MACHINE))
    codes = np.asarray(compute.match_substring_regex(texts, CODE))
    points = np.asarray(compute.match_substring(texts, "."))
    groups = np.asarray(compute.match_substring_regex(texts, POINT_OR_GROUP)) & grouped
    numbers = compute.if_else(pa.array(plain), texts, pa.scalar("nan", texts.type)).cast(pa.float64()).to_numpy()
    values[0, plain & ~points], values[1, plain & points] = numbers[plain & ~points], numbers[plain & points]
    values[2, groups] = np.rint(numbers[groups] * 1000)
    short = np.asarray(compute.less_equal(compute.utf8_length(texts), LONGEST))
    for place in np.flatnonzero(~plain & short):
        for way, (value, unit) in cell_readings(texts[place].as_py(), grouped).items():
            values[WAYS.index(way), place], units[place] = value, unit
    return Readings(values, units, codes)


@functools.lru_cache(maxsize=100_000)
def cell_readings(text: str, grouped: bool = True) -> dict[str, Reading]:
    """All ways in which a text is a number or a date, by what each depends on (see `WAYS`).

    Raised or circled digits are a power of a unit (m²) or the number of a footnote (285¹), which is not a digit of the
    number.
    """
    if not text.isascii():
        if any(unicodedata.category(one) == "No" and not before.isalpha() for before, one in pairwise(f" {text}")):
            return {}
        text = "".join(str(unicodedata.decimal(letter, letter)) for letter in unicodedata.normalize("NFKC", text))
        text = text.translate(ALIKE)
    found = CELL.fullmatch(text)
    if not found:
        return _dates(text)
    unit = " ".join(filter(None, ((found["prefix"] or "").strip(), (found["suffix"] or "").strip())))
    if found["sign"] and found["inner"]:
        return {}
    sign = -1 if "-" in (found["sign"], found["inner"]) else 1
    values: dict[str, float] = {}
    for decimal, other in ((".", ","), (",", ".")):
        value = _number(found["body"], decimal, other) if grouped else _machine(found["body"], decimal)
        if value is not None:
            values[decimal] = sign * value
    if len(set(values.values())) == 1 and not set(".,") & set(found["body"]):
        return {"": Reading(values["."], unit)}
    return {way: Reading(value, unit) for way, value in values.items()} or _dates(text)


def _machine(body: str, decimal: str) -> float | None:
    return float(body) if decimal == "." and re.fullmatch(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", body) else None


def _number(body: str, decimal: str, other: str) -> float | None:
    """The value of digits with marks, where `decimal` is the decimal one."""
    found = _pattern(decimal, other).fullmatch(body)
    if not found or re.match(r"0\d", body):
        return None
    return float(re.sub(f"[{re.escape(other)}' ]", "", body).replace(decimal, "."))


@functools.cache
def _pattern(decimal: str, other: str) -> re.Pattern[str]:
    """Digits in groups by one mark, or not in groups."""
    groups = "|".join(f"(?!0){GROUPED.replace('G', re.escape(mark))}" for mark in (other, "'", " "))
    point = re.escape(decimal)
    return re.compile(rf"(?:{groups})(?:{point}\d*)?|(?:\d+(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?")


def _dates(text: str) -> dict[str, Reading]:
    """The ways in which a text is a date, with or without a time."""
    if found := YEAR_FIRST.fullmatch(text):
        year, _, month, day, time = found.groups()
        return {"": Reading(when, DATE)} if (when := _day(year, month, day, time)) is not None else {}
    if found := DAY_FIRST_OR_MONTH_FIRST.fullmatch(text):
        one, _, other, year, time = found.groups()
        ways = {"dmy": _day(year, other, one, time), "mdy": _day(year, one, other, time)}
        return {way: Reading(when, DATE) for way, when in ways.items() if when is not None}
    try:
        return {"": Reading(_since_1970(datetime.datetime.fromisoformat(text)), DATE)}
    except ValueError:
        return {}


def _day(year: str, month: str, day: str, time: str | None) -> float | None:
    """Days since 1970 of a date and, where it has one, a time; None for an invalid day or time."""
    for form in ("%H:%M:%S.%f", "%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p") if time else ("",):
        try:
            return _since_1970(datetime.datetime.strptime(f"{year}-{month}-{day} {time or ''}", f"%Y-%m-%d {form}"))
        except ValueError:
            continue
    return None


def _since_1970(moment: datetime.datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp() / 86_400
