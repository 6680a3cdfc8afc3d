"""One process at a time trains in a folder."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from handful.errors import UserError

LOCK = ".lock"
"""The file that the process which trains in a folder holds, with its number."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, this process alone trains in a folder, which is made; `UserError` where another one does, or none can.

    The system gives the lock back when the process ends, in whatever way.
    """
    new = not os.path.lexists(folder)
    with _opened(folder) as lock:
        if not _got(lock):
            lock.seek(0)
            raise UserError(
                f"Another training is under way in {folder}, by process {lock.read().strip() or 'unknown'}.",
                hint="Wait for its end, stop it, or choose another place with {path}.",
            )
        try:
            with contextlib.suppress(OSError):  # on a full disk, of which its first file will tell
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()
                if new:
                    folder.rmdir()  # where nothing was written


def _opened(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOCK).open("a+")
    except OSError as error:
        raise UserError(
            f"Cannot write {folder}: {error.strerror}.", code="unwritable", hint="Choose another place with {path}."
        ) from error


def _got(lock: TextIO) -> bool:
    """Whether a file is locked now; also where there are no locks: on Windows, on some disks of networks.

    A file that was removed meanwhile is no lock: another process may make the next one.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return os.fstat(lock.fileno()).st_nlink > 0


def emptied(folder: Path) -> None:
    """Remove all that is in a folder, but for its lock; `UserError` where that cannot be done."""
    try:
        for entry in folder.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    except OSError as error:
        raise UserError(f"The run in {folder} cannot be removed ({error}). Choose another place.") from error
