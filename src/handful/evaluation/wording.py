"""Numbers in words: what the sentences of a report are made of."""

import math
from typing import Any

from handful.evaluation.intervals import Interval


def percent(score: Interval) -> str:
    """A share with its interval, in percent."""
    return f"{100 * score.mean:.1f}{plus_minus(100 * score.half_width, '.1f')} %"


def signed(points: float) -> str:
    """Points with their sign, and without a minus zero."""
    return f"{round(points, 1) + 0.0:+.1f}"


def plus_minus(half_width: float, form: str) -> str:
    """Half of an interval's width in this format, or nothing where there is no interval."""
    return f" ± {half_width:{form}}" if math.isfinite(half_width) else ""


def figures(value: float) -> str:
    """Three significant figures, without an exponent where a reader can do without."""
    return f"{value:,.0f}" if 1000 <= value < 1e7 else f"{value:.3g}"


def root(value: float) -> float:
    """The square root of a squared error; 0 for a negative end of its interval. What is not a number stays so."""
    return 0.0 if value < 0 else math.sqrt(value)


def nats(value: Interval) -> str:
    """A log-likelihood with its interval."""
    return f"{value.mean:.3f}{plus_minus(value.half_width, '.3f')} nats"


def squared_error(score: Interval) -> str:
    """A mean squared error with its interval."""
    return f"{figures(score.mean)}{plus_minus(score.half_width, '.2g')}"


def size(value: Any) -> str:
    """A size, or the two ends of a range."""
    return f"{value[0]} to {value[1]}" if isinstance(value, tuple) else str(value)


def examples(shot: Any) -> str:
    """So many examples."""
    return f"{size(shot)} example{'' if shot == 1 else 's'}"


def count_of(number: int, noun: str) -> str:
    """So many of a noun, which takes an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def two_figures(count: int) -> str:
    """Two figures: an extrapolation has no more."""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"


def duration(seconds: float) -> str:
    """Seconds as a reader takes them in."""
    if seconds < 1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def byte_size(count: int) -> str:
    """Bytes, in the unit that leaves three digits."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.3g} GB"


def rate_text(rate: float) -> str:
    """Three digits, and no power of ten."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
