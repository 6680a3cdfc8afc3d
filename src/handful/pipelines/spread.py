"""How far the values of columns spread where they are learned from: by which they are scaled, and what is far away."""

from typing import Any, NamedTuple, Self

import numpy as np

from handful.notes import note

FAR = 20.0
"""Widths from the median; what is further away counts as so far."""
DEVIATIONS = 4.653
"""The width of a normal distribution, in its standard deviations."""


class Spread(NamedTuple):
    """Of each of some columns: the median, and the width, between the 1st and the 99th percentile.

    Neither is moved by a few values that stand for nothing, such as 9.97e36. Where the width is 0, it is that of all
    values; where that is 0, too, the column is constant.

    median, width: `(columns,)`. clipped: of each column, whether far values are clipped: not where it is constant, and
    not where it has two values only, which tell no distance.
    """

    median: np.ndarray
    width: np.ndarray
    clipped: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """That of floats `(n, columns)`; NaN stands for a value that is not there, but each column has one."""
        low, median, high = np.nanquantile(values, [0.01, 0.5, 0.99], axis=0)
        least, most = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        rounding = 1e-9 * np.abs(median)
        width = np.where(high - low > rounding, high - low, most - least)
        width = np.where(width > rounding, width, 0.0)
        two = ((values == least) | (values == most) | np.isnan(values)).all(axis=0)
        return cls(median, width, (width > 0) & ~two)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """That of which `to_json` told."""
        return cls(*(np.atleast_1d(np.asarray(facts[name])) for name in cls._fields))

    def to_json(self) -> dict[str, Any]:
        """As lists."""
        return {name: part.tolist() for name, part in self._asdict().items()}

    def scaled(self, values: np.ndarray) -> tuple[np.ndarray, int]:
        """Values `(n, columns)` in about standard deviations from the median, and how many of them were clipped."""
        most = np.where(self.clipped, FAR * self.width, np.inf)
        distance = values - self.median
        far = int(((distance > most) | (distance < -most)).sum())
        np.clip(distance, -most, most, out=distance)
        distance /= np.where(self.width > 0, self.width / DEVIATIONS, 1.0)
        return distance, far


AS_THEY_ARE = Spread(np.zeros(1), np.zeros(1), np.zeros(1, dtype=bool))
"""The spread of values that stay as they are."""


def note_clipped(what: str, far: int) -> None:
    """Make a note of so many values that were clipped, if there are some; what: in which they are, in words."""
    if far:
        note(
            "clipped",
            f"Values of {what} that are further from its median than {FAR:g} times the width of what was learned from "
            "count as so far.",
            count=far,
        )
