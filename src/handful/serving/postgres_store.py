"""A store of tasks in PostgreSQL, which several processes read and write at once."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.exc import ProgrammingError

from handful.errors import ArtifactError, UserError
from handful.serving.ids import Ids
from handful.serving.postgres import begin, committing, connecting, engine_of, explained, parsed_url, retrying, shown
from handful.serving.row_security import check_role, check_tables, roles_of, secure, unguard
from handful.serving.rows import Rows
from handful.serving.schema import MIGRATIONS, check_schema, is_current, migrate
from handful.serving.store import Measured, Store

Result = TypeVar("Result")


class PostgresStore(Store):
    """Tasks in a database of PostgreSQL, to which `upgrade` gave its tables.

    Its writes for one tenant run one after another, in whatever process. Ids sort by when they were made as far as the
    clocks of the processes agree.

    address: `postgresql://role:password@host/database`; the role is neither a superuser nor the owner of the tables.

    Raises `UserError` if the role could see the rows of other tenants, `ArtifactError` if the database holds no store
    or has another schema, and `HandfulError` if it cannot be reached.
    """

    remains = (
        "Until PostgreSQL vacuums them, its files contain erased rows. The WAL, its archives and earlier backups "
        "contain them as long as they exist, and other processes of the service may until they end."
    )

    def __init__(self, address: str) -> None:
        url = parsed_url(address)
        self.ids, self._commits = Ids(), _Commits()
        with contextlib.ExitStack() as opening:
            self._engine = engine_of(url)
            opening.callback(self._engine.dispose)
            self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connecting(url), self._engine.connect() as connection:
                check_role(connection)
                _check_there(connection, url)
                check_schema(connection, shown(url))
                check_tables(connection)
                _check_durable(connection)
            opening.pop_all()

    def close(self) -> None:
        """End all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self, tenant: str) -> Iterator[Rows]:
        """See `Store.reading`."""

        def begun() -> Connection:
            connection = self._reading.connect()
            try:
                begin(connection, tenant)
            except BaseException:
                connection.close()
                raise
            return connection

        with explained(), contextlib.closing(retrying(begun)) as connection:
            yield Rows(connection, tenant, enter=partial(begin, connection))

    def write(self, tenant: str, work: Callable[[Rows], Result]) -> Result:
        """See `Store.write`."""

        def attempt() -> Result:
            with self._engine.connect() as connection:
                enter = partial(begin, connection, write=True)
                enter(tenant)
                result = self._carried_out(work, Rows(connection, tenant, enter=enter))
                with self._commits.timed(), committing():
                    connection.commit()
                return result

        with explained():
            return retrying(attempt)

    @property
    def measured(self) -> Measured:
        """See `Store.measured`."""
        return Measured(self._commits.count, self._commits.seconds, None)

    def empty_log(self) -> None:
        """Nothing that a role without more rights could do; see `remains`."""

    def backup(self, path: str | Path) -> Path:
        """Raise `UserError`: PostgreSQL has programs of its own for it."""
        raise UserError(
            "Back up this store with PostgreSQL's own programs, such as pg_dump, or pg_basebackup with the WAL."
        )


class _Commits:
    """The commits of all threads.

    count: their number.
    seconds: their time.
    """

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, a transaction is committed; it counts where it was."""
        started = time.monotonic()
        yield
        with self._lock:
            self.count += 1
            self.seconds += time.monotonic() - started


def upgrade(address: str, role: str | None, migrations: Path = MIGRATIONS) -> None:
    """Make the tables of a store, or bring them to the schema of this version, in one transaction.

    address: of the role that owns the tables, or will.
    role: the one that the service logs in as, in addition to those that may use the store already.

    Raises as `PostgresStore` does. Where the migration fails, the store is as it was.
    """
    url = parsed_url(address)
    engine = engine_of(url)
    try:
        with connecting(url):
            connected = engine.connect()
        with explained(), connected as connection, connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('handful', 0))"))
            made = inspect(connection).has_table("alembic_version")
            roles = sorted({*(roles_of(connection) if made else ()), *([role] if role else ())})
            _check_roles(connection, roles)
            if not is_current(connection, shown(url), migrations):
                unguard(connection)
                migrate(connection, migrations)
            secure(connection, roles)
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        raise UserError(
            f"The role {url.username!r} may not change the store ({error.orig}). Log in as the owner of its tables, or "
            f"of the database if it has none yet."
        ) from error
    finally:
        engine.dispose()


def _check_roles(connection: Connection, roles: list[str]) -> None:
    if not roles:
        raise UserError("The role of the service is missing.", hint="Set it as {role}.")
    known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    if missing := [role for role in roles if role not in known]:
        raise UserError(
            f"The database has no role {missing[0]!r}. Create it first: CREATE ROLE ... LOGIN.", code="unknown-name"
        )


def _check_there(connection: Connection, url: URL) -> None:
    there = text("SELECT to_regclass('alembic_version') IS NOT NULL")
    if not connection.execute(there).scalar():
        raise ArtifactError(
            f"{shown(url)} does not contain a store yet.",
            code="missing-artifact",
            hint="Create one with `handful store upgrade`, logged in as the owner of the database.",
        )
    if not connection.execute(text("SELECT has_table_privilege('alembic_version', 'SELECT')")).scalar():
        raise UserError(
            f"The role {url.username!r} may not use the store. Run `handful store upgrade` with its name, as the owner."
        )


def _check_durable(connection: Connection) -> None:
    """Raise `UserError` if what is acknowledged may be lost, or texts are changed."""
    for name, wrong, right in (("synchronous_commit", "off", "on"), ("server_encoding", "SQL_ASCII", "UTF8")):
        if connection.execute(text(f"SHOW {name}")).scalar() == wrong:
            raise UserError(f"The database has {name} = {wrong}, which could lose data. It must be {right}.")
