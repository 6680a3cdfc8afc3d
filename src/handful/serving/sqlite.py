"""Connections to a store in SQLite: one way to open them, and its settings read back."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, TimeoutError

from handful.errors import ArtifactError, HandfulError, UserError

PRAGMAS: dict[str, Any] = {
    "journal_mode": "wal",
    "synchronous": 2,
    "foreign_keys": 1,
    "secure_delete": 1,
    "temp_store": 2,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "mmap_size": 0,
    "journal_size_limit": 64 * 2**20,
}
"""Settings of every connection, as SQLite shows them."""

NETWORKS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs"}
"""File systems whose locks do not keep two machines apart."""

DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")

FILE = "store.sqlite3"
"""The database of a store, in its folder."""

LOCK = ("service", "choose another folder")
"""What messages call the process that has the folder of a store, and what else to do than to wait for its end."""

READERS = 16


def engine_of(
    path: Path, *, writes: bool, foreign_keys: bool = True, resting: bool = False, called: Path | None = None
) -> Engine:
    """Connections to the database in a file: one that writes, or any number that only read.

    The driver's own transactions keep rolled-back changes, so they are switched off, and each begins here.

    foreign_keys: off to rebuild tables, which would else delete the rows of others.
    resting: whether nobody writes the file, as a backup: then nothing is made beside it.
    called: what messages call the file, where it is a copy.
    """
    mode = "rwc" if writes else "ro&immutable=1" if resting else "ro"
    wanted = PRAGMAS | {"foreign_keys": int(foreign_keys)}
    if not writes:  # a reader cannot set it: a backup that was restored has that of a file at rest until it is served
        del wanted["journal_mode"]

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10,
        )
        try:
            for name, value in wanted.items():
                connection.execute(f"PRAGMA {name} = {value}").fetchall()
            check_settings(connection, called or path, wanted)
        except BaseException as error:
            connection.close()
            if is_damage(error):
                raise ArtifactError(
                    f"{called or path} is not the database of a store, or damaged ({error}). Restore a backup."
                ) from error
            raise
        return connection

    how: dict[str, Any] = {"poolclass": NullPool} if writes else {"poolclass": QueuePool, "pool_size": READERS}
    engine = create_engine("sqlite+pysqlite://", creator=connect, **how)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def error_of_sqlite(error: BaseException) -> sqlite3.DatabaseError | None:
    """What SQLite itself raised, where that is what failed: a database that is damaged, or cannot be used now."""
    found = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(found, sqlite3.OperationalError) or is_damage(found):
        assert isinstance(found, sqlite3.DatabaseError), "both kinds are"
        return found
    return None


def first_of_sqlite(error: BaseException) -> BaseException:
    """What SQLite raised first: a full disk ends a transaction, after which other errors follow."""
    first, one = error, error.__context__
    while one is not None:
        first, one = one if isinstance(one, sqlite3.Error) else first, one.__context__
    return first


def is_damage(error: object) -> bool:
    """Whether SQLite found a database damaged, or a file that is none."""
    return getattr(error, "sqlite_errorname", "").startswith(DAMAGED)


@contextlib.contextmanager
def reading_explained(path: Path) -> Iterator[None]:
    """Inside, a database that cannot be read is a `HandfulError`, and one that is damaged an `ArtifactError`.

    path: of its folder.
    """
    try:
        yield
    except TimeoutError as error:
        raise HandfulError("Too many requests are reading the store.", code="unavailable") from error
    except DBAPIError as error:
        reason = error_of_sqlite(error)
        if reason is None:
            raise
        if is_damage(reason):
            raise ArtifactError(f"The store in {path} is damaged ({reason}). Restore a backup.") from error
        raise HandfulError(f"The store cannot be read ({reason}). Try again later.", code="unavailable") from error


@contextlib.contextmanager
def opening_explained(path: Path) -> Iterator[None]:
    """Inside, a database that cannot be opened is a `UserError`, and one that is damaged an `ArtifactError`.

    path: of its folder, or a backup.
    """
    try:
        yield
    except DBAPIError as error:
        reason = error_of_sqlite(error)
        if reason is None:
            raise
        if is_damage(reason):
            raise ArtifactError(f"The store in {path} is damaged ({reason}). Restore a backup.") from error
        raise UserError(
            f"The store in {path} cannot be opened ({reason}). Make room on its disk, or make it writable, and try "
            "again.",
            code="unwritable",
        ) from error


def check_settings(connection: sqlite3.Connection, path: Path, wanted: dict[str, Any]) -> None:
    """Raise `UserError` if a connection has other settings than those wanted."""
    for name, value in wanted.items():
        found = connection.execute(f"PRAGMA {name}").fetchone()
        if found is not None and found[0] != value:  # a build without memory maps shows no size of them
            raise UserError(
                f"SQLite does not keep {name} = {value} for {path}, but has {found[0]}: data could be lost, or erased "
                f"data could remain. Use another disk, or another build of SQLite.",
                code="unwritable",
            )


def check_local(folder: Path, mounts: str | None = None) -> None:
    """Raise `UserError` if a folder is on a network file system.

    mounts: lines as of /proc/mounts; None: those of this machine, where it shows them.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text()
        except OSError:
            return
    place, kinds = folder.resolve(), {}
    for line in mounts.splitlines():
        _, mounted, kind, *_ = line.split(" ")
        kinds[Path(mounted.encode().decode("unicode_escape"))] = kind
    nearest = next((kinds[part] for part in (place, *place.parents) if part in kinds), "")
    if nearest in NETWORKS:
        raise UserError(
            f"{folder} is on a network file system ({nearest}), whose locks do not protect a database.",
            code="unwritable",
            hint="Choose a folder on a local disk.",
        )
