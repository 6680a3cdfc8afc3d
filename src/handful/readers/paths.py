"""Paths: existing ones, or an error with the nearest name."""

import contextlib
import difflib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from handful.errors import DataError
from handful.notes import note

SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx", "__pycache__")
"""Files that systems and programs leave in folders, in lower case."""


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Within this context, a file that the system refuses to read raises a `DataError` that names it, or else this
    path."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror or error}). Make it readable, or use another "
            f"path.",
            code="not-found",
        ) from error


def existing(path: str | Path) -> Path:
    """The path, also of a part of a file (`sales.xlsx:2024`); `DataError` with the nearest name if nothing exists
    there, if a link is broken, or if reading is not permitted.
    """
    path = Path(os.path.expanduser(path))
    file, _, part = str(path).rpartition(":")
    with reading(path):
        if _is_there(path) or (part and os.path.isfile(file)):
            return path
    if path.is_symlink():
        raise DataError(f"{path} is a link to {path.readlink()}, which does not exist.", code="not-found")
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        beside = []
    nearest = difflib.get_close_matches(path.name, beside, n=1)
    hint = f" Did you mean {path.parent / nearest[0]}?" if nearest else " Check the spelling."
    raise DataError(f"{path} does not exist.{hint}", code="not-found")


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a zero is in no name
        return False
    return True


def subfolders(folder: Path) -> list[Path]:
    """The subfolders by name, without hidden ones, and without links that lead back to a folder around them."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not (hidden(entry) or _leads_back(entry)))


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders by name, without hidden ones; each folder once, whatever links to it."""
    found, seen, waiting = [], set(), [folder]
    while waiting:
        at = waiting.pop()
        if (real := at.resolve()) not in seen:
            seen.add(real)
            waiting += subfolders(at)
            found += [entry for entry in at.iterdir() if entry.is_file() and not hidden(entry)]
    return sorted(found)


def names_within(folder: Path, files: Sequence[Path]) -> list[str]:
    """The paths of files relative to their folder."""
    return [Path(os.path.relpath(file, folder)).as_posix() for file in files]


def note_passed_over(source: Path, used: Collection[Path]) -> None:
    """Make a note with the number of files below a folder that are not used, except those that systems leave."""
    files = [file for file in files_below(source) if file not in used]
    if files:
        note(
            "passed-over",
            f"{source}: some files are ignored, such as {files[0].relative_to(source)}.",
            count=len(files),
        )


def hidden(entry: Path) -> bool:
    """Whether programs keep a file or folder for themselves: Excel calls what is open in it `~$sales.xlsx`."""
    return entry.name.startswith((".", "~$")) or entry.name.lower() in SYSTEMS


def _leads_back(folder: Path) -> bool:
    around = folder.parent.resolve()
    return folder.is_symlink() and folder.resolve() in (around, *around.parents)
