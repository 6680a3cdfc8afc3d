"""One process at a time works in a folder."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from handful.errors import UserError

LOCK = ".lock"
"""The lock file, with the id of the process that works in the folder."""
TRIES = 1000
"""How often to retry a lock that others remove meanwhile."""


@contextlib.contextmanager
def locked(folder: Path, work: str = "training", hint: str = "choose another place with {path}") -> Iterator[None]:
    """Within this context, only this process works in a folder, which is created; `UserError` if another one does, or
    if the folder cannot be written.

    work: what messages call it.
    hint: what hints say to do else.

    The system releases the lock when the process ends, in any way.
    """
    place = Path(os.path.realpath(folder))  # a link may lead to a folder that is yet to be made
    lock, made = _taken(place, folder, work, hint)
    with lock:
        try:
            with contextlib.suppress(OSError):  # on a full disk, of which its first file will tell
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
            yield
        finally:
            with contextlib.suppress(OSError):
                (place / LOCK).unlink()
                if made:
                    place.rmdir()  # where nothing was written


def _taken(place: Path, folder: Path, work: str, hint: str) -> tuple[TextIO, bool]:
    """The lock of a folder at this place, and whether the folder was created for it.

    A process that ends removes its lock, and a folder that it made and left empty: then all begins again.
    """
    for _ in range(TRIES):
        made = not os.path.exists(place)
        lock = _opened(place, folder, hint)
        if not _got(lock):
            with lock:
                lock.seek(0)
                raise UserError(
                    f"Another {work} is running in {folder}, in process {lock.read().strip() or 'unknown'}.",
                    hint=f"Wait until it ends, stop it, or {hint}.",
                )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), (place / LOCK).stat()):
                return lock, made
        lock.close()
    raise _refused(folder, "its lock is not distinguishable from another file", hint)


def _opened(place: Path, folder: Path, hint: str) -> TextIO:
    for _ in range(TRIES):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return (place / LOCK).open("a+")
        except OSError as error:
            if isinstance(error, FileExistsError) and not os.path.lexists(place):
                continue  # it was removed while it was found to be there
            reason = "it is a file, not a folder" if os.path.isfile(place) else str(error.strerror)
            if os.path.islink(folder) and not os.path.exists(folder):
                reason = "it is a link that leads nowhere"
            raise _refused(folder, reason, hint) from error
    raise _refused(folder, f"its {LOCK} leads nowhere", hint)


def _refused(folder: Path, reason: str, hint: str) -> UserError:
    hint = f"{hint[0].upper()}{hint[1:]}."
    return UserError(f"Cannot write {folder}: {reason}.", code="unwritable", hint=hint)


def _got(lock: TextIO) -> bool:
    """Whether a file is locked now; True on systems without locks: Windows, some network disks."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def emptied(folder: Path) -> None:
    """Remove everything in a folder except its lock; `UserError` if that fails."""
    try:
        for entry in folder.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    except OSError as error:
        raise UserError(f"The run in {folder} cannot be removed ({error}). Choose another place.") from error
