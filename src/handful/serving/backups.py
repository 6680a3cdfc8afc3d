"""Copies of a store in SQLite: made while it is in use, and restored into an empty folder."""

import contextlib
import fcntl
import os
import secrets
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from handful.errors import ArtifactError, UserError
from handful.serving.schema import is_current, revision_of
from handful.serving.sqlite import FILE, LOCK, check_local, engine_of, is_damage
from handful.training.lock import LOCK as LOCK_FILE
from handful.training.lock import locked

UNFINISHED = ".handful-copy-"
"""How the name of a copy begins while it is made."""

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database: it would take such files of an earlier one for those of a copy."""


def backup(folder: str | Path, path: str | Path) -> Path:
    """Copy the store in a folder, in use or not, as it is now into one file that its owner alone may read.

    Nothing is at this path before the copy is whole. Raises `UserError` if the path exists or cannot be written, and
    `ArtifactError` if the folder does not contain an intact store.
    """
    file, target = Path(folder) / FILE, Path(path)
    if not file.is_file():
        raise ArtifactError(f"{folder} does not contain a store.", code="missing-artifact")
    for place in (target, *beside(target)):
        if os.path.lexists(place):
            raise UserError(f"{place} already exists.", hint="Set {path} to another name.", code="unwritable")
    with _placed(target) as temporary:
        with _reading(file) as source:
            source.execute("VACUUM INTO ?", (str(temporary),))
        _check_store(temporary, Path(folder))
    return target


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads a store's database; an error names the store if it cannot be opened or is damaged."""
    with contextlib.ExitStack() as stack:
        try:
            source = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
            stack.enter_context(contextlib.closing(source)).execute("PRAGMA schema_version")
        except sqlite3.OperationalError as error:
            raise UserError(
                f"The store in {file.parent} cannot be opened ({error}).",
                code="unwritable",
                hint="Use the server's user: reading it too needs a folder that can be written.",
            ) from error
        try:
            yield source
        except sqlite3.Error as error:
            if is_damage(error):
                raise ArtifactError(f"The store in {file.parent} is damaged ({error}). Restore a backup.") from error
            raise


def restore(path: str | Path, folder: str | Path) -> Path:
    """Put a backup into a folder, as the store in it; returns the folder.

    path: the file that `backup` made.
    folder: empty but for what a restoration left that was killed, or not there yet.

    A store of an earlier version has to be upgraded afterwards. Raises `UserError` if the folder holds something, or
    the backup is a link or has files of a database in use beside it, and `ArtifactError` if it is no backup of a store,
    or damaged.
    """
    source, place = Path(path), Path(folder)
    check_local(place)
    content = _opened(source)
    with contextlib.closing(os.fdopen(content, "rb")) as given:
        _check_empty(place)
        with locked(place, *LOCK):
            _check_empty(place)  # another restoration may have ended
            with _placed(place / FILE) as temporary:
                with temporary.open("wb") as copy:
                    shutil.copyfileobj(given, copy)
                _check_store(temporary, source)
    return place


def _check_empty(place: Path) -> None:
    """Raise a `UserError` where a folder holds anything but what a restoration left that was killed."""
    if os.path.lexists(place) and (place.is_symlink() or not place.is_dir() or not all(map(_is_left, place.iterdir()))):
        raise UserError(f"{place} is not empty.", hint="Choose a new folder as {folder}.", code="unwritable")


def _is_left(file: Path) -> bool:
    return file.name == LOCK_FILE or file.name.startswith(UNFINISHED)


def _opened(source: Path) -> int:
    """A backup, opened for reading; `UserError` if it is a link, or a database that may be in use."""
    for place in beside(source):
        if os.path.lexists(place):
            raise UserError(
                f"{place} exists: {source} is a database in use, or of a killed process, and the file alone may be "
                f"incomplete. Make a backup with `handful store backup`, and restore that."
            )
    try:
        opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ArtifactError(f"Cannot read {source}: {error.strerror}.", code="missing-artifact") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ArtifactError(f"{source} is not a file.", code="missing-artifact")
    return opened


def _check_store(file: Path, source: Path) -> None:
    """Raise `ArtifactError` if a copy is not of a whole store of this version or an earlier one."""
    engine = engine_of(file, writes=False, resting=True, called=source)
    try:
        with engine.begin() as connection:
            kinds = set(connection.exec_driver_sql("SELECT DISTINCT type FROM sqlite_master").scalars())
            current = is_current(connection, source)
            if kinds != {"table", "index"} or not (current or revision_of(connection)):  # a trigger runs by itself
                raise ArtifactError(f"{source} is not a backup of a store.")
            check_whole(connection, source)
    except DBAPIError as error:
        raise ArtifactError(f"{source} is damaged ({error.orig}). Use another backup.") from error
    finally:
        engine.dispose()


def check_whole(connection: Connection, source: object) -> None:
    """Raise `ArtifactError` where SQLite finds a database damaged, or rows without those that they refer to."""
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    if found != "ok":
        raise ArtifactError(f"{source} is damaged ({found}). Check its disk, and use another backup.")
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if orphans:
        raise ArtifactError(f"{source} is damaged: {orphans[0][0]} has rows with broken references.")


@contextlib.contextmanager
def _placed(target: Path) -> Iterator[Path]:
    """A file to be written, which is at its place once it is whole and on the disk, and else nowhere."""
    try:
        _remove_unfinished(target.parent)
        with _unfinished(target.parent) as temporary:
            yield temporary
            _sync(temporary)
            temporary.rename(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"Cannot write {target}: {error}.", code="unwritable", hint="Choose another place.") from error


@contextlib.contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A new file in a folder, locked until the end, and removed then if it still has this name."""
    while True:
        temporary = folder / f"{UNFINISHED}{secrets.token_hex(8)}"
        held = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not os.fstat(held).st_nlink:
                continue  # another backup took it for one that was left, before it was locked
            yield temporary
            return
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
            os.close(held)


def _remove_unfinished(folder: Path) -> None:
    """Remove the copies that processes have left which were killed; those that are being made are locked."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError), left.open("r+b") as file:  # which makes none where it is gone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _sync(place: Path) -> None:
    opened = os.open(place, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def beside(file: Path) -> list[Path]:
    """What SQLite keeps beside a database in use, there or not."""
    return [file.with_name(file.name + end) for end in BESIDE]
