"""Findings of the doctor, and their wording."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from handful.evaluation.formatting import difference
from handful.evaluation.intervals import Interval
from handful.tasks.distribution import TaskDistribution

Status: TypeAlias = Literal["ok", "warning", "problem", "skipped"]

DISTINCT_NUMBERS = 8
"""Examples of fewer numbers than this may be equal by chance, so equal ones are a warning and no problem."""


@dataclass(frozen=True)
class Finding:
    """One result of the doctor.

    check: its name, such as "overlap" or "memorization".
    message: the result, and on how much data.
    hint: the way out, with parameters as in the hint of a `HandfulError`.
    """

    check: str
    status: Status
    message: str
    hint: str = ""


def names_are_classes(split: TaskDistribution) -> bool:
    """Whether a split is by class: where class numbers are drawn anew, else it is by task."""
    return split.spec.classification and split.spec.labels == "permuted"


def signed(gain: Interval, *, classification: bool) -> str:
    """A difference of scores with half of its interval, in points or in squared units."""
    if classification:
        return f"{difference(gain, share=True)} points"
    return f"{difference(gain, share=False)} of squared error"
