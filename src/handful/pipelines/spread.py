"""The spread of columns in the training rows, which scales and clips their values."""

from typing import Any, NamedTuple, Self

import numpy as np

from handful.notes import note

FAR = 20.0
"""Values are clipped at this many widths from the median."""
DEVIATIONS = 4.653
"""The width of a normal distribution, in its standard deviations."""


class Spread(NamedTuple):
    """Of each of some columns: the median, and the width, between the 1st and the 99th percentile.

    Neither is affected by a few placeholder values, such as 9.97e36. If the width is 0, the range of all values
    replaces it; if that is 0, too, the column is constant.

    median, width: `(columns,)`.
    clipped: of each column, whether far values are clipped: not if it is constant or has only two values, which define
        no scale.
    """

    median: np.ndarray
    width: np.ndarray
    clipped: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """The spread of floats `(n, columns)`; NaN marks missing values, but each column has some."""
        low, median, high = np.nanquantile(values, [0.01, 0.5, 0.99], axis=0)
        least, most = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        rounding = 1e-9 * np.abs(median)
        width = np.where(high - low > rounding, high - low, most - least)
        width = np.where(width > rounding, width, 0.0)
        two = ((values == least) | (values == most) | np.isnan(values)).all(axis=0)
        return cls(median, width, (width > 0) & ~two)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(*(np.atleast_1d(np.asarray(facts[name])) for name in cls._fields))

    def to_json(self) -> dict[str, Any]:
        """As lists."""
        return {name: part.tolist() for name, part in self._asdict().items()}

    def near(self, values: np.ndarray) -> np.ndarray:
        """Which of the values `(n, columns)` are not so far from the median that they are clipped."""
        most = np.where(self.clipped, FAR * self.width, np.inf)
        return np.asarray(np.abs(values - self.median) <= most)

    def scaled(self, values: np.ndarray) -> tuple[np.ndarray, int]:
        """Values `(n, columns)` in about standard deviations from the median, and how many of them were clipped."""
        most = np.where(self.clipped, FAR * self.width, np.inf)
        distance = values - self.median
        far = int(((distance > most) | (distance < -most)).sum())
        np.clip(distance, -most, most, out=distance)
        distance /= np.where(self.width > 0, self.width / DEVIATIONS, 1.0)
        return distance, far


AS_THEY_ARE = Spread(np.zeros(1), np.zeros(1), np.zeros(1, dtype=bool))
"""The spread that leaves values unchanged."""


def note_clipped(what: str, far: int) -> None:
    """Make a note of clipped values, if any; what: their column, in words."""
    if far:
        note(
            "clipped",
            f"Values of {what} are clipped at {FAR:g} times the training rows' width from the median.",
            count=far,
        )
