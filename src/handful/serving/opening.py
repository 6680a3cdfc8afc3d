"""Stores by their place: a folder, or the address of a database."""

from pathlib import Path

from handful.errors import UserError
from handful.serving import postgres_store, sqlite_store
from handful.serving.postgres import SCHEMES
from handful.serving.postgres_store import PostgresStore
from handful.serving.schema import MIGRATIONS
from handful.serving.sqlite_store import SqliteStore
from handful.serving.store import Store


def open_store(place: str | Path) -> Store:
    """The store in a folder, which is created if missing, or in a database of PostgreSQL.

    place: the folder, or `postgresql://role:password@host/database`, see `PostgresStore`.

    Raises `UserError` if it cannot be used, and `ArtifactError` if it has another schema.
    """
    return PostgresStore(str(place)) if is_address(place) else SqliteStore(place)


def upgrade(place: str | Path, *, role: str | None = None, migrations: Path = MIGRATIONS) -> Path | None:
    """Bring a store to the schema of this version.

    place: as of `open_store`; in PostgreSQL of the role that owns the tables, or will: it makes those of a new store.
    role: which role of PostgreSQL the service logs in as; None: those that may use the store already.

    Returns the copy that was made beside a folder's store before, None if none was needed. Back a database up first.
    Raises as `open_store` does. Where the migration fails, the store is as it was.
    """
    if not is_address(place):
        return sqlite_store.upgrade(place, migrations)
    postgres_store.upgrade(str(place), role, migrations)
    return None


def is_address(place: str | Path) -> bool:
    """Whether a place is the address of a database, not a folder; `UserError` if it is that of another kind."""
    if "://" not in str(place):
        return False
    if not str(place).startswith(SCHEMES):
        raise UserError("The address of the store is not valid. Write it as postgresql://USER:PASSWORD@HOST/DATABASE.")
    return True
