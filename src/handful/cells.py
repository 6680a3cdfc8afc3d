"""Cells of tables, read by one rule from files and Python: names, numbers, dates, and empty cells."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

from handful.notes import note

EMPTY = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "-", "?"})
"""Texts that mark an empty cell in a column of numbers, in lower case."""
WHOLE = re.compile(r"^(-?\d+)\.0+$")
"""A whole number as floats are written: with empty cells in the column, pandas makes 7 to 7.0."""
LINE_END = re.compile("\r\n|\r|\n")
ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
"""Invisible characters in names, for `str.translate`."""
THOUSANDS = re.compile(r"^-?\d{1,3},\d{3}(\.\d*)?$")
"""A comma that may separate thousands, not only decimals."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
"""The name of a class that is a number: no sign for infinity, no date."""

LARGEST = float(np.float32(1e30))
"""The largest absolute value: larger ones are placeholders, such as 9.97e36, and their squares are infinite."""


def too_large(numbers: np.ndarray) -> np.ndarray:
    """Which numbers are beyond the largest, or infinite; NaN is not."""
    return np.asarray(np.abs(numbers) > LARGEST)


def fault_of(number: float) -> str:
    """What is wrong with a number that is NaN or too large, in words."""
    if np.isfinite(number):
        return "is beyond 1e30: if it marks a missing number, clear it"
    return "is not a finite number"


def written(value: object) -> str | None:
    """A cell as text, the same from csv, parquet, JSON and Python; None if it is empty."""
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = WHOLE.sub(r"\1", spelled(value.decode(errors="replace") if isinstance(value, bytes) else str(value)))
    return text.capitalize() if text.lower() in ("true", "false") else text or None


def spelled(text: str) -> str:
    """A name in its visible form: composed (NFC), without zero-width characters, with single blanks inside only, and
    with its lines."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(ZERO_WIDTH))
    return "\n".join(" ".join(line.split()) for line in LINE_END.split(text.strip()))


def note_case(names: Iterable[str], origin: object, noun: str = "label") -> None:
    """Make a note where two names differ only in case, which may be one label, task or group in two spellings."""
    known: dict[str, str] = {}
    for name in sorted(set(names)):
        if (other := known.setdefault(name.casefold(), name)) != name:
            note(
                "case-differs",
                f"{origin} may have one {noun} in two spellings: {other!r} and {name!r} are read as two.",
            )
            return


def class_order(names: Iterable[str]) -> list[str]:
    """Class names, each once: in the order of numbers where all of them are numbers, else of texts."""
    each = set(names)
    if all(map(NUMBER.fullmatch, each)):
        return sorted(each, key=lambda name: (float(name), name))
    return sorted(each)


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: None, "", NaN, or NA of pandas."""
    try:
        return value is None or bool(value == "" or value != value)
    except TypeError:  # NA equals nothing and differs from nothing
        return True
    except ValueError:  # several values
        return False


def unmasked(values: Any) -> Any:
    """Values as they are; of a masked array all of them, None in place of those that are masked."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    found = values.data.astype(object)
    found[np.ma.getmaskarray(values)] = None
    return found


def is_empty(value: object) -> bool:
    """Whether a cell of a column of numbers stands for none."""
    return is_missing(value) or (isinstance(value, str) and value.strip().lower() in EMPTY)


def without_comma(value: object) -> str:
    """How to write a cell that would be a number without its comma, in brackets; empty for other cells."""
    if not (isinstance(value, str) and NUMBER.fullmatch(point := value.strip().replace(",", ".")) and "," in value):
        return ""
    parts = f", or if it separates thousands, {value.replace(',', '')}" if THOUSANDS.match(value) else ""
    return f" (write {point}{parts})"


def days(moments: Any) -> np.ndarray:
    """Dates or times as days since 1970 `(rows,)`, NaN if missing."""
    import pyarrow as pa

    zone = getattr(moments.type, "tz", None)
    counted = moments.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
    return counted.cast(pa.float64(), safe=False).to_numpy() / 86_400e6  # type: ignore[no-any-return]


def is_text(kind: Any) -> bool:
    """Whether a column of this Arrow type holds texts."""
    import pyarrow.types as kinds

    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))
