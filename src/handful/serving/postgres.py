"""Connections to a store in PostgreSQL: one way to open them, to begin a transaction, and to try again."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, OperationalError, TimeoutError

from handful.errors import HandfulError, UserError
from handful.serving.directory import EVERYONE

Result = TypeVar("Result")

SCHEMES = ("postgresql://", "postgres://")

CONNECTIONS = 16
"""The most connections of one process."""

WAIT = 10
"""Seconds for which a connection, or a lock of another process, is waited for."""

SETTINGS = {
    "lock_timeout": f"{WAIT}s",
    "idle_in_transaction_session_timeout": "60s",  # of a process that was stopped, whose locks others wait for
}

PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds, at most, before a transaction is begun anew."""

CONFLICTS = {"40001", "40P01", "23505"}
"""States of a transaction that others made impossible: not to be serialized, a deadlock, a key that is taken."""

LOST = ("08", "57P")
"""First characters of the SQL states for a lost connection."""

FULL = ("25006", "53100", "58030")
"""States of a database that cannot be written: read-only, disk full, disk failed."""

SEE = "SELECT set_config('handful.tenant', :tenant, true), set_config('handful.everyone', :everyone, true)"
READ = text(SEE)
WRITE = text(f"{SEE}, pg_advisory_xact_lock(hashtextextended('handful ' || :tenant, 0))")


def parsed_url(address: str) -> URL:
    """The address of a database; `UserError` if it is none, or its driver is not installed."""
    if find_spec("psycopg") is None:
        raise UserError(
            "A store in PostgreSQL needs psycopg, which is not installed: pip install '.[postgres]' in handful's "
            "folder."
        )
    try:
        return make_url(address).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError) as error:
        raise UserError(
            "The address of the database cannot be read. Write it as postgresql://USER:PASSWORD@HOST/DATABASE."
        ) from error


def engine_of(url: URL) -> Engine:
    """A bounded pool of connections to a database."""
    engine = create_engine(
        url,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=WAIT,
        pool_use_lifo=True,
        connect_args={"connect_timeout": WAIT, "application_name": "handful"},
    )

    def set_up(driver: Any, _: object) -> None:
        with driver.cursor() as cursor:
            for name, value in SETTINGS.items():
                cursor.execute(f"SET {name} = '{value}'")
        driver.commit()

    event.listen(engine, "connect", set_up)
    return engine


def begin(connection: Connection, tenant: str, *, write: bool = False) -> None:
    """Begin a transaction that sees the rows of one tenant alone, for `EVERYONE` the tenants and keys of all.

    write: no other transaction that writes for the tenant runs meanwhile, in whatever process, so that versions and the
        audit are numbered without gaps.
    """
    connection.execute(WRITE if write else READ, {"tenant": tenant, "everyone": "on" if tenant == EVERYONE else ""})


def retrying(attempt: Callable[[], Result]) -> Result:
    """The result of a transaction, begun anew where others made it impossible or the connection was lost before."""
    for pause in PAUSES:
        try:
            return attempt()
        except DBAPIError as error:
            if not (_is_lost(error) or _state(error) in CONFLICTS):
                raise
        time.sleep(secrets.SystemRandom().uniform(0, pause))
    return attempt()


@contextlib.contextmanager
def committing() -> Iterator[None]:
    """Inside, a transaction is committed: raise a `HandfulError` if it is not known whether it was."""
    try:
        yield
    except DBAPIError as error:
        if not _is_lost(error):
            raise
        raise HandfulError(
            f"The connection to the database was lost ({_reason(error)}), and this request may have been carried out. "
            f"Check before you repeat it."
        ) from error


@contextlib.contextmanager
def connecting(url: URL) -> Iterator[None]:
    """Inside, a store is opened: where the database cannot be reached or refuses, raise a `HandfulError` with both."""
    try:
        yield
    except OperationalError as error:
        reason = _reason(error).removeprefix("connection failed: ").removeprefix("connection is bad: ")
        if "FATAL" in reason or "password" in reason:
            said = f"The database {shown(url)} refuses the connection ({reason}). Check its address, role and password."
        else:
            said = f"The database {shown(url)} cannot be reached ({reason}). Start PostgreSQL, or check the address."
        raise HandfulError(said, code="unavailable") from error


def shown(url: URL) -> str:
    """The address of a database without its password."""
    return url.set(drivername="postgresql").difference_update_query(["password"]).render_as_string()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Inside, errors of a database that fails are raised as a `HandfulError`: it kept nothing."""
    try:
        yield
    except TimeoutError as error:
        raise HandfulError(
            f"All {CONNECTIONS} connections to the database are in use. Try again later.", code="unavailable"
        ) from error
    except DataError as error:
        if _state(error) is not None:
            raise
        raise UserError(f"The database cannot store a text: {_reason(error)}.") from error
    except OperationalError as error:
        raise HandfulError(
            f"The database failed ({_reason(error)}), and nothing of this request was stored. Try again later.",
            code="unwritable" if _state(error) in FULL else "unavailable",
        ) from error


def _is_lost(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    return isinstance(error, OperationalError) and (_state(error) or LOST[0]).startswith(LOST)


def _state(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _reason(error: DBAPIError) -> str:
    """The first line of what the driver says."""
    return str(error.orig).strip().partition("\n")[0]
