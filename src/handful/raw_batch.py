"""What readers give and pipelines take: a batch of the user's raw values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RawBatch:
    """The n values of a file or folder.

    inputs: the content of image files, each read when it is indexed; a `Table`; texts; or an array. ids: of each, file
    names or row numbers from 1. labels: names or targets, None where they were not asked for or there are none. source:
    what messages call the labels. groups: of each, where the file has some.
    """

    inputs: Any
    ids: Sequence[str]
    labels: Any = None
    source: str = ""
    groups: Sequence[str] | None = None
