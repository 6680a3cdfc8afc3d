"""Paths: what is there, or the error that names the nearest name."""

import difflib
from pathlib import Path

from handful.errors import DataError


def existing(path: str | Path) -> Path:
    """The path; `DataError` with the nearest name beside it if there is nothing there."""
    path = Path(path).expanduser()
    if path.exists():
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
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
