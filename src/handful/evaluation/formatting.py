"""Numbers as text, for the sentences and tables of a report."""

import math
from dataclasses import replace
from typing import Any

from handful.errors import count_of
from handful.evaluation.intervals import Interval
from handful.metrics import Metric

OTHER_TASKS, ALONE = "other tasks too", "this task alone"
"""What a learner learns from."""


def percent(score: Interval) -> str:
    """A share with its interval, in percent."""
    return f"{share(score)} %{lost(score)}"


def lost(score: Interval) -> str:
    """How many draws diverged, and how many have an undefined score; empty if none."""
    counts = {"diverged": score.diverged, "undefined": score.undefined}
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f" ({told})" if told else ""


def share(score: Interval) -> str:
    """The same without the sign.

    An interval that would leave 0 to 100 % is clipped and written by its ends; so is one whose mean is not its middle.
    """
    text, half = f"{100 * score.mean:.1f}", score.half_width
    if math.isfinite(half) and (score.low < 0 or score.high > 1 or _lopsided(score)):
        return f"{text} ({100 * max(0.0, score.low):.1f} to {100 * min(1.0, score.high):.1f})"
    return text + plus_minus(100 * half, ".1f")


def signed(points: float) -> str:
    """Points with their sign, and without a minus zero."""
    return f"{round(points, 1) + 0.0:+.1f}"


def _lopsided(value: Interval) -> bool:
    """Whether the mean is not in the middle of a finite interval."""
    return abs((value.low + value.high) / 2 - value.mean) > 1e-6 * (value.high - value.low)


def points(gap: Interval) -> str:
    """By how many points the better of two is ahead, with the interval."""
    low, high = (gap.low, gap.high) if gap.mean >= 0 else (-gap.high, -gap.low)
    text = f"{100 * abs(gap.mean):.1f}"
    if math.isfinite(gap.half_width) and _lopsided(gap):
        return f"{text} points ({signed(100 * low)} to {signed(100 * high)})"
    return f"{text}{plus_minus(100 * gap.half_width, '.1f')} points"


def plus_minus(half_width: float, form: str = "") -> str:
    """Half of an interval's width in this format (two significant figures), or nothing without an interval."""
    if not math.isfinite(half_width):
        return ""
    if form:
        return f" ± {half_width:{form}}"
    whole = 99.5 <= half_width < 1e7  # where a format would write an exponent
    return f" ± {two_figures(round(half_width))}" if whole else f" ± {half_width:#.2g}".rstrip(".")


def figures(value: float, sign: str = "") -> str:
    """Three significant figures, with an exponent only for extreme numbers.

    sign: "+" to always write the sign.
    """
    return f"{value:{sign},.0f}" if 999.5 <= abs(value) < 1e7 else f"{value:{sign}#.3g}".rstrip(".")


def estimate(value: Interval, sign: str = "") -> str:
    """Three significant figures with their interval, or as many as the interval supports.

    sign: as for `figures`.
    """
    if math.isnan(value.mean):
        return "undefined" if value.undefined and not value.diverged else "diverged"
    texts, half = [figures(value.mean, sign)], value.half_width
    if math.isfinite(half) and half > 0:
        places = max(0, 1 - math.floor(math.log10(half)))  # those of its two significant figures
        texts.append(f"{round(value.mean, places) + 0.0:{sign},.{places}f}")
    return min(texts, key=len) + plus_minus(half) + lost(value)


def root(value: float) -> float:
    """The square root of a squared error; 0 for a negative end of its interval. NaN stays NaN."""
    return 0.0 if value < 0 else math.sqrt(value)


def rooted(score: Interval, metric: Metric) -> Interval:
    """A score in the unit in which it is shown: for squares, the root."""
    if not metric.root:
        return score
    return replace(score, mean=root(score.mean), low=root(score.low), high=root(score.high))


def rooted_gap(gap: Interval, metric: Metric, one: float, other: float) -> Interval:
    """The difference of two mean scores in that unit: of squares the difference of their roots.

    a - b is (a^2 - b^2) / (a + b); the ends of the interval are divided by the same a + b, as by the delta method.
    """
    width = root(one) + root(other)
    if not metric.root or not width > 0:
        return gap
    return replace(gap, mean=gap.mean / width, low=gap.low / width, high=gap.high / width)


def in_words(score: Interval, metric: Metric) -> str:
    """A score with its interval: a share in percent, an error in the target's unit."""
    return percent(score) if metric.unit == "share" else estimate(rooted(score, metric))


def heading(metric: Metric) -> str:
    """The metric's title as a sentence begins."""
    return metric.title[:1].upper() + metric.title[1:]


def one_score(score: float, metric: Metric) -> str:
    """A metric with a score of it that has no interval."""
    value = root(score) if metric.root else score
    return f"{metric.title} {value:.3f}" if metric.unit == "share" else f"{metric.title} {value:.4g}"


def nats(value: Interval) -> str:
    """A log-likelihood with its interval."""
    return f"{value.mean:.3f}{plus_minus(value.half_width, '.3f')} nats{lost(value)}"


def difference(paired: Interval, *, share: bool) -> str:
    """A difference of scores with its sign and interval; of shares in points."""
    if not share:
        return estimate(paired, "+")
    text = signed(100 * paired.mean)
    if math.isfinite(paired.half_width) and _lopsided(paired):
        return f"{text} ({signed(100 * paired.low)} to {signed(100 * paired.high)})"
    return f"{text}{plus_minus(100 * paired.half_width, '.1f')}"


def size(value: Any) -> str:
    """A size, or the two ends of a range."""
    return f"{value[0]} to {value[1]}" if isinstance(value, (tuple, list)) else str(value)


def examples(shot: Any) -> str:
    """So many examples."""
    return count_of(shot, "example") if isinstance(shot, int) else f"{size(shot)} examples"


def drawn(draws: int, tasks: int) -> str:
    """ "600 tasks"; or "600 draws of 13 tasks", where tasks were drawn several times."""
    return count_of(tasks, "task") if draws == tasks else f"{count_of(draws, 'draw')} of {count_of(tasks, 'task')}"


def setting_name(way: Any, shot: Any) -> str:
    """ "5-way 1-shot", or "3 to 46-shot" without a way."""
    return f"{'' if way is None else f'{size(way)}-way '}{size(shot)}-shot"


def two_figures(count: int) -> str:
    """Two figures: an extrapolation has no more."""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
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
