"""Typed columns, written as people of many countries write them in files of many forms, are read as they were meant.

Each case draws columns of counts, prices, shares, codes, dates and texts, writes them in one locale and form, shuffled
and with empty cells, and reads them again. A file may be refused, by an error that shows cells; but no number may be
read as another one.

    python -m tests.readers.locales --cases 2000 --seed 0
"""

import argparse
import csv
import datetime
import io
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handful.errors import DataError
from handful.notes import collecting
from handful.readers.reader import read

EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True)
class Locale:
    """How numbers and dates are written. indian: whether groups have two digits but for the last."""

    decimal: str
    group: str
    date: str
    indian: bool = False


LOCALES = {
    "en-US": Locale(".", ",", "%m/%d/%Y"),
    "en-GB": Locale(".", ",", "%d/%m/%Y"),
    "de-DE": Locale(",", ".", "%d.%m.%Y"),
    "de-CH": Locale(".", "\u2019", "%d.%m.%Y"),
    "de-AT": Locale(",", "\u00a0", "%d.%m.%Y"),
    "fr-FR": Locale(",", "\u202f", "%d/%m/%Y"),
    "sv-SE": Locale(",", " ", "%Y-%m-%d"),
    "es-ES": Locale(",", ".", "%d/%m/%Y"),
    "pt-BR": Locale(",", ".", "%d/%m/%Y"),
    "hi-IN": Locale(".", ",", "%d-%m-%Y", indian=True),
    "ja-JP": Locale(".", ",", "%Y/%m/%d"),
    "plain": Locale(".", "", "%Y-%m-%d"),
}
FORMS = {
    "comma": (",", "utf-8", ""),
    "semicolon": (";", "utf-8", ""),
    "tab": ("\t", "utf-8-sig", ""),
    "unicode text": ("\t", "utf-16", ""),
    "sep": (";", "utf-8", "sep=;\r\n"),
    "titled": (";", "utf-8", "Report of the year\r\n\r\n"),
}
"""The delimiter, encoding and first lines of a file."""


def grouped(digits: str, locale: Locale) -> str:
    if locale.indian and len(digits) > 3:
        head, tail = digits[:-3], digits[-3:]
        return locale.group.join([*(f"{int(head):_}" and _pairs(head)), tail])
    return f"{int(digits):,}".replace(",", locale.group)


def _pairs(digits: str) -> list[str]:
    first = len(digits) % 2
    return ([digits[:first]] if first else []) + [digits[i : i + 2] for i in range(first, len(digits), 2)]


def number(value: float, places: int, locale: Locale, parted: bool) -> str:
    whole, _, rest = f"{abs(value):.{places}f}".partition(".")
    sign = "-" if value < 0 and float(f"{value:.{places}f}") else ""
    return sign + (grouped(whole, locale) if parted else whole) + (locale.decimal + rest if rest else "")


def column(kind: str, rows: int, locale: Locale, draw: random.Random) -> tuple[list[str], list[float] | list[str]]:
    """The cells of a column, and what they mean: numbers, or texts."""
    parted, places = draw.random() < 0.5, draw.choice([1, 2, 2, 3, 4])
    if kind == "counts":
        values: list[float] = [draw.choice([draw.randrange(1, 10), draw.randrange(100, 10**6)]) for _ in range(rows)]
        return [number(value, 0, locale, parted) for value in values], values
    if kind in ("prices", "shares"):
        top = 10 ** draw.randrange(1, 6) if kind == "prices" else 100
        values = [round(draw.uniform(-top if kind == "prices" else 0, top), places) for _ in range(rows)]
        unit = draw.choice(["", "", " \u20ac"]) if kind == "prices" else draw.choice(["%", " %"])
        return [number(value, places, locale, parted) + unit for value in values], values
    if kind == "dates":
        days = [draw.randrange(0, 20000) for _ in range(rows)]
        return [(EPOCH + datetime.timedelta(days=day)).strftime(locale.date) for day in days], [float(d) for d in days]
    make = {
        "codes": lambda: draw.choice([f"A{draw.randrange(99)}", f"{draw.randrange(99):04d}"]),
        "texts": lambda: draw.choice(["red", "dark green", "blue, light", 'a "b"', "x;y"]),
    }[kind]
    cells = [make() for _ in range(rows)]
    return cells, cells


def check(path: Path, draw: random.Random) -> str:
    """Write one file, and read it: "read" or "refused"; AssertionError where something else is read than was meant."""
    locale, form = draw.choice(list(LOCALES)), draw.choice(list(FORMS))
    kinds = draw.sample(["counts", "prices", "shares", "dates", "codes", "texts"], draw.choice([1, 2, 4, 6]))
    rows = draw.choice([3, 3, 10, 60])
    meant, written = {}, {}
    for kind in kinds:
        written[kind], meant[kind] = column(kind, rows, LOCALES[locale], draw)
        for row in range(rows):
            if draw.random() < 0.1:
                written[kind][row] = draw.choice(["", "", "NA"]) if kind not in ("codes", "texts") else ""
    delimiter, encoding, first = FORMS["semicolon" if len(kinds) == 1 and form == "titled" else form]
    file = io.StringIO()
    rows_of_file = csv.writer(file, delimiter=delimiter)
    rows_of_file.writerow(kinds)
    rows_of_file.writerows([written[kind][row] for kind in kinds] for row in range(rows))
    path.write_bytes((first + file.getvalue()).encode(encoding))
    outcome, said = "read", f"{locale}, {form}: {path.read_bytes().decode(encoding)}"
    with collecting():
        table = read(path).inputs
        for kind in kinds:
            try:
                check_column(table, kind, written[kind], meant[kind])
            except DataError as error:
                if error.message.count("'") < 4:
                    raise AssertionError(f"{said}\nshows no cell: {error}") from error
                outcome = "refused"
            except AssertionError as error:
                raise AssertionError(f"{said}\n{kind}: {error}") from error
    return outcome


def check_column(table, kind, cells, values) -> None:
    table.require([kind])
    if isinstance(values[0], str):
        assert not table.numeric(kind) or not any(cells), "a code or text is read as a number"
        assert table.texts(kind) == [cell or None for cell in cells]
    elif set(cells) <= {"", "NA"}:
        return
    else:
        assert table.numeric(kind), "a number is read as a text"
        expected = [np.nan if cell in ("", "NA") else value for cell, value in zip(cells, values, strict=True)]
        np.testing.assert_allclose(table.numbers(kind, gaps=True), expected, rtol=1e-12)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, outcomes = random.Random(given.seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.cases):
            outcomes[check(Path(folder) / "table.csv", draw)] += 1
    sys.stdout.write(f"{given.cases} files, seed {given.seed}: {dict(outcomes)}, none read to other numbers\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
