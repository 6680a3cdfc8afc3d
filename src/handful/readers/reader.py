"""Reading any file or folder of the user's by the reader of its format."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import RawBatch
from handful.readers.paths import existing, reading
from handful.registry import Registry
from handful.storage import format_of

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
READERS: Registry[Any] = Registry("reader", "handful.readers")


class Reader(ABC):
    """Reads one format. A subclass with a `name` is registered under it: a new format is a module of this package.

    Attributes:
        name: of the format.
        described: what it reads, in words.
        suffixes: how its files end, in small letters; some have two, such as ".csv.gz".
        by_content: whether it inspects files whose endings other formats share, and so is tried before them.
    """

    name: ClassVar[str]
    described: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    by_content: ClassVar[bool] = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" in vars(cls) and not inspect.isabstract(cls):
            READERS.register(cls.name, cls())

    def matches(self, path: Path) -> bool:
        """Whether the path is of this format; here, a file with this ending."""
        return self.named(path) and path.is_file()

    def named(self, path: Path) -> bool:
        """Whether a path ends as files of this format do."""
        return path.name.lower().endswith(self.suffixes)

    @abstractmethod
    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """See `read`."""


def readers() -> list[Reader]:
    """The readers of all formats, in the order in which they are asked."""
    return sorted((reader for _, reader in READERS.items()), key=lambda reader: not reader.by_content)


def reader_of(path: Path) -> Reader:
    """The reader of this path; `DataError` for an unknown format."""
    for reader in readers():
        if reader.matches(path):
            return reader
    if path.name.lower().endswith(ARCHIVES):
        raise DataError(f"{path} is an archive. Unpack it, and use its content.", code="unsupported-media")
    if kind := format_of(path):
        raise DataError(
            f"{path} is not data: it is an {kind}. Use the data that it was made from, or a run.",
            code="unsupported-media",
        )
    raise DataError(
        f"{path} is not of a supported format: {', '.join(dict.fromkeys(one.described for one in readers()))}.",
        code="unsupported-media",
    )


def named_as_inputs(path: Path) -> bool:
    """Whether a path ends as files of some format do."""
    return any(reader.named(path) for reader in readers())


def read(
    path: str | Path, *, options: DataOptions | None = None, labeled: bool = False, limits: Limits = LOCAL
) -> RawBatch:
    """The values of a file or folder.

    options: the roles of columns; for a trained model `InputPipeline.data_options`.
    labeled: whether to read labeled examples, or only inputs: a folder of images can be either.
    limits: on the size.

    Raises `DataError` for unreadable data, with the file, and the row or column.
    """
    path = existing(path)
    with reading(path):
        return reader_of(path).read(path, options or DataOptions(), labeled, limits)


def row_numbers(count: int) -> Sequence[str]:
    """The ids of rows, from 1."""
    return [str(row + 1) for row in range(count)]
