"""A store of tasks in a folder: SQLite with one writer, and readers that see whole transactions."""

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from handful.errors import ArtifactError, HandfulError, UserError
from handful.serving.backups import backup
from handful.serving.heads import Heads
from handful.serving.ids import Ids
from handful.serving.records import Version
from handful.serving.rows import Rows
from handful.serving.schema import MIGRATIONS, check_schema, is_current, migrate, revision_of
from handful.serving.sqlite import (
    FILE,
    LOCK,
    check_local,
    engine_of,
    first_of_sqlite,
    opening_explained,
    reading_explained,
)
from handful.serving.store import Measured, Store
from handful.serving.tables import ERASURES, EXAMPLES, KEYS, TASKS
from handful.serving.write_ahead_log import WriteAheadLog
from handful.serving.writer import Writer
from handful.training.lock import locked

PATIENCE = 10.0
"""Seconds for which emptying the log waits for readers."""

Result = TypeVar("Result")


class SqliteStore(Store):
    """Tasks in a folder, which is created if missing. One process at a time uses it.

    path: the folder, on a local disk.

    Raises `UserError` if another process has the folder, or it cannot be written, and `ArtifactError` if it has another
    schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_local(self.path)
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            opening.enter_context(locked(self.path, *LOCK))
            opening.enter_context(opening_explained(self.path))
            file = _made(self.path)
            with contextlib.closing(_Upgrading(file)) as new, new.connection() as connection:
                if revision_of(connection) is None:
                    migrate(connection)
                check_schema(connection, self.path)
            writing, self._reading = engine_of(file, writes=True), engine_of(file, writes=False)
            self._log = WriteAheadLog(file)
            self.writer = Writer(writing, between=self._log.bound)
            opening.callback(self.writer.close)
            opening.callback(self._reading.dispose)  # first, so that the last connection can remove the log
            with self._reading.begin() as connection:
                largest = [select(func.max(table.c.id)) for table in (TASKS, EXAMPLES, KEYS, ERASURES)]
                self.ids = Ids(filter(None, (connection.execute(one).scalar() for one in largest)))
            self._heads = Heads(super().head)
            self._open = opening.pop_all()

    def close(self) -> None:
        """Finish what is being written, and give the folder back."""
        self._open.close()

    @contextlib.contextmanager
    def reading(self, tenant: str) -> Iterator[Rows]:
        """See `Store.reading`."""
        with reading_explained(self.path), self._reading.begin() as connection:
            driver = connection.connection.dbapi_connection
            assert isinstance(driver, sqlite3.Connection), "no other one is made"
            with self._log.read_by(driver):
                yield Rows(connection, tenant)

    def write(self, tenant: str, work: Callable[[Rows], Result]) -> Result:
        """Run work on the rows of a tenant, whole or not at all, and return once it is durable; see `Writer.run`."""
        changed: set[str] = set()
        if self._log.is_full:
            self.writer.outside(self._log.bound)
            self._log.check_room()
        return self.writer.run(
            lambda connection: self._carried_out(work, Rows(connection, tenant, changed)),
            then=lambda: self._heads.forget(tenant, changed),
        )

    @property
    def busy_for(self) -> float:
        """Seconds for which the writer has been at its present transaction."""
        return self.writer.busy_for

    @property
    def measured(self) -> Measured:
        """See `Store.measured`."""
        return Measured(self.writer.commits, self.writer.commit_seconds, self._log.size)

    def head(self, tenant: str, task: str) -> Version:
        """As `Store.head`, from memory, where no change that has returned leaves an older one."""
        return self._heads.of(tenant, task)

    def held_head(self, tenant: str, task: str) -> Version | None:
        """See `Store.held_head`."""
        return self._heads.held(tenant, task)

    def empty_log(self) -> None:
        """Bring all that was written into the database's own file, and cut the log: it holds what was erased.

        Raises `HandfulError` if a reader does not let go of it.
        """
        until = time.monotonic() + PATIENCE
        while True:
            busy = self.writer.outside(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            if not busy:
                return
            if time.monotonic() > until:
                raise HandfulError(
                    "The log of the store cannot be truncated while a reader uses it.", code="unwritable"
                )
            time.sleep(0.01)

    def backup(self, path: str | Path) -> Path:
        """Copy the store as it is now into one file, while it is in use.

        Raises `UserError` if the path exists.
        """
        return backup(self.path, path)


def upgrade(path: str | Path, migrations: Path = MIGRATIONS) -> Path | None:
    """Bring a store to the schema of this version, after a copy beside it; returns the copy, None if none was needed.

    Raises as `SqliteStore` does. Where the migration fails, the store is as it was.
    """
    folder = Path(path)
    check_local(folder)
    with locked(folder, *LOCK), opening_explained(folder):
        file = folder / FILE
        if not file.exists():
            raise ArtifactError(f"{folder} does not contain a store.", code="missing-artifact")
        with contextlib.closing(_Upgrading(file)) as old:
            with old.connection() as connection:
                found = revision_of(connection)
                if is_current(connection, folder, migrations):
                    return None
            copy = folder / f"before-{found}-{secrets.token_hex(4)}.sqlite3"
            backup(folder, copy)
            with old.connection() as connection:
                migrate(connection, migrations)
        return copy


class _Upgrading:
    """A connection that may rebuild tables: with foreign keys on, that deletes the rows of others."""

    def __init__(self, file: Path) -> None:
        self._file, self._engine = file, engine_of(file, writes=True, foreign_keys=False)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise UserError(
                f"The schema of {self._file} cannot be read or changed ({first_of_sqlite(error)}).",
                code="unwritable",
                hint="Make room on its disk, or make it writable, and try again.",
            ) from error

    def close(self) -> None:
        self._engine.dispose()


def _made(folder: Path) -> Path:
    """The file of the database, which its owner alone may read."""
    file = folder / FILE
    try:
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise UserError(
            f"Cannot write {file}: {error.strerror}.",
            code="unwritable",
            hint="Choose another folder, or make it writable.",
        ) from error
    return file
