"""Stores by their place: a folder, or the address of a database."""

from pathlib import Path

from handful.serving import sqlite_store
from handful.serving.schema import MIGRATIONS
from handful.serving.sqlite_store import SqliteStore
from handful.serving.store import Store


def open_store(place: str | Path) -> Store:
    """The store in a folder, which is made where there is none.

    Raises `UserError` where it cannot be used, and `ArtifactError` where it has another schema.
    """
    return SqliteStore(place)


def upgrade(place: str | Path, migrations: Path = MIGRATIONS) -> Path | None:
    """Bring a store to the schema of this version, after a copy beside it; returns the copy, None if none was needed.

    Raises as `open_store` does. Where the migration fails, the store is as it was.
    """
    return sqlite_store.upgrade(place, migrations)
