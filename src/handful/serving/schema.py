"""The schema of a store: made, brought up to date, or refused."""

import io
import shlex
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select, table

from handful.errors import ArtifactError

MIGRATIONS = Path(__file__).parent / "migrations"


def check_schema(connection: Connection, source: object, migrations: Path = MIGRATIONS) -> None:
    """Raise `ArtifactError` if a store has an older or newer schema than this version of handful."""
    if not is_current(connection, source, migrations):
        raise ArtifactError(
            f"The store {source} has the schema {revision_of(connection)} of an earlier version. Upgrade it with "
            f"`handful store upgrade {shlex.quote(str(source))}`.",
            code="other-version",
        )


def is_current(connection: Connection, source: object, migrations: Path = MIGRATIONS) -> bool:
    """Whether a store has the newest schema, else an older one or none; `ArtifactError` if it has a newer one."""
    found, script = revision_of(connection), ScriptDirectory(str(migrations))
    head = script.get_current_head()
    if found not in (None, *(revision.revision for revision in script.walk_revisions())):
        raise ArtifactError(
            f"The store {source} has the schema {found}, but this version of handful reads {head}. Install the version "
            "that wrote it.",
            code="other-version",
        )
    return found == head


def revision_of(connection: Connection) -> str | None:
    """Which schema a database has; None if it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def migrate(connection: Connection, migrations: Path = MIGRATIONS) -> None:
    """Bring a database to the newest schema, inside the transaction that is open; in SQLite with foreign keys off.

    Raises `ArtifactError` if rows were lost on the way or do not find those that they refer to; the caller then rolls
    back.
    """
    before = _counts(connection)
    config = Config(output_buffer=io.StringIO(), stdout=io.StringIO())
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    after = _counts(connection)
    lost = [name for name, count in before.items() if name != "alembic_version" and after.get(name, count) != count]
    if lost:
        raise ArtifactError(
            f"The migration would change {lost[0]} from {before[lost[0]]} rows to {after[lost[0]]}. "
            "Nothing was changed."
        )
    if connection.dialect.name == "sqlite":  # which had them off
        _check_foreign_keys(connection)


def _check_foreign_keys(connection: Connection) -> None:
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if orphans:
        raise ArtifactError(
            f"The migration would leave {len(orphans)} rows, the first in {orphans[0][0]}, with broken references. "
            f"Nothing was changed."
        )


def _counts(connection: Connection) -> dict[str, int]:
    names = inspect(connection).get_table_names()
    return {name: connection.execute(select(func.count()).select_from(table(name))).scalar_one() for name in names}
