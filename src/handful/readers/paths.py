"""Paths: what is there, or the error that names the nearest name."""

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

from handful.errors import DataError
from handful.notes import note

SYSTEMS = ("thumbs.db", "desktop.ini")
"""What a system leaves in the folders of its users."""


def existing(path: str | Path) -> Path:
    """The path, also of a part of a file (`sales.xlsx:2024`); `DataError` with the nearest name if nothing is there."""
    path = Path(path).expanduser()
    file, _, part = str(path).rpartition(":")
    if path.exists() or (part and Path(file).is_file()):
        return path
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        beside = []
    nearest = difflib.get_close_matches(path.name, beside, n=1)
    hint = f" Did you mean {path.parent / nearest[0]}?" if nearest else " Check the spelling."
    raise DataError(f"{path} does not exist.{hint}", code="not-found")


def subfolders(folder: Path) -> list[Path]:
    """The subfolders by name, without hidden ones."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry))


def note_passed_over(source: Path, folders: Iterable[Path], used: Collection[Path]) -> None:
    """Make a note with the number of files in these folders that are not used, but for those that systems leave."""
    others = [entry for folder in folders for entry in sorted(folder.iterdir()) if entry not in used]
    files = [file for entry in others if not _hidden(entry) for file in _files_in(entry) if not _hidden(file)]
    if files:
        note(
            "passed-over",
            f"{source}: some files are passed over, such as {files[0].relative_to(source)}.",
            count=len(files),
        )


def _files_in(entry: Path) -> list[Path]:
    return [entry] if entry.is_file() else sorted(file for file in entry.rglob("*") if file.is_file())


def _hidden(entry: Path) -> bool:
    return entry.name.startswith((".", "__")) or entry.name.lower() in SYSTEMS
