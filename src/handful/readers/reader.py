"""Reading any file or folder of the user's by the reader of its format."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from handful.cells import written
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import RawBatch
from handful.readers.paths import existing
from handful.registry import Registry

READERS: Registry[Any] = Registry("reader", "handful.readers")


class Reader(ABC):
    """Reads one format. A subclass is registered under its name.

    described: what it reads, in words.
    """

    name: ClassVar[str]
    described: ClassVar[str]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        READERS.register(cls.name, cls())

    @abstractmethod
    def matches(self, path: Path) -> bool:
        """Whether what is at this path is of this format."""

    @abstractmethod
    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """See `read`."""


def read(
    path: str | Path, *, options: DataOptions | None = None, labeled: bool = False, limits: Limits = LOCAL
) -> RawBatch:
    """The values of a file or folder.

    options: which columns are what, as a model's pipeline tells (`InputPipeline.data_options`). labeled: whether they
    are the labeled examples of one task. limits: the most that is read. Raises `DataError` for what cannot be read,
    with the file, and the row or column.
    """
    path = existing(path)
    readers: list[Reader] = [reader for _, reader in READERS.items()]
    for reader in readers:
        if reader.matches(path):
            return reader.read(path, options or DataOptions(), labeled, limits)
    raise DataError(
        f"{path} is of no kind that is read here: {', '.join(reader.described for reader in readers)}.",
        code="unsupported-media",
    )


def check_one_task(names: Iterable[object], source: str) -> None:
    """Raise a `DataError` where labeled examples are of several tasks; a row without a name is one of the same task."""
    tasks = sorted({name for name in map(written, names) if name is not None})
    if len(tasks) > 1:
        raise DataError(
            f"{source} has {len(tasks)} tasks ({', '.join(tasks[:3])}{', ...' if len(tasks) > 3 else ''}), but a model "
            "adapts to one at a time. Give the rows of one."
        )


def row_numbers(count: int) -> Sequence[str]:
    """The ids of rows, from 1."""
    return [str(row + 1) for row in range(count)]
