"""A batch of the user's raw values, from readers to pipelines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Place: TypeAlias = Callable[[int], str]
"""What messages call the value at a place: "sales.csv, row 12"."""


def numbered(noun: str, first: int = 0) -> Place:
    """Values by their numbers, counted from `first`."""
    return lambda place: f"{noun} {place + first}"


INPUT = numbered("Input")
"""Inputs that come without a file."""


class Origin(NamedTuple):
    """What messages call labels, targets or names of some values.

    whole: all of them.
    place: one of them.
    noun: what one is.
    """

    whole: str
    place: Place
    noun: str = "label"


@dataclass(frozen=True)
class RawBatch:
    """The n values of a file or folder, with the labels and other roles that were requested and found.

    inputs: `(n,)`: the content of image files, each read when it is indexed; a `Table`; texts; or an array.
    ids: unique: file names, or row numbers from 1.
    origin: what messages call each: "sales.csv, row 12".
    called: what they call all labels, targets, tasks or groups, by the name of the `DataOptions`.
    labels: names of classes.
    targets: numbers `(n,)` or `(n, outputs)`.
    unit: of the targets, where they are written with one.
    tasks: names of tasks; of a table None if a cell is empty.
    groups: names of groups.
    order: numbers, what comes first.
    splits: "train", "val" or "test", where the data are split already.
    """

    inputs: Any
    ids: Sequence[str]
    origin: Place
    called: Callable[[str], str] = str
    labels: Any = None
    targets: Any = None
    unit: str = ""
    tasks: Any = None
    groups: Any = None
    order: Any = None
    splits: Sequence[str] | None = None

    def taken(self, rows: np.ndarray) -> "RawBatch":
        """Those rows of a table `(m,)`, in this order."""

        def own(given: Any) -> Any:
            return given[rows] if isinstance(given, np.ndarray) else given and [given[row] for row in rows]

        names = ("ids", "labels", "targets", "tasks", "groups", "order")
        found = {name: own(getattr(self, name)) for name in names} | {"inputs": self.inputs.taken(rows)}
        return replace(self, origin=lambda place: self.origin(int(rows[place])), **found)

    def named(self, role: str) -> Origin:
        """What messages call the labels, targets, tasks or groups."""
        return Origin(self.called(role), self.origin, role)
