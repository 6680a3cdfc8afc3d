"""Row security in PostgreSQL: a tenant's transaction sees the tenant's rows, whatever a query asks for."""

from collections.abc import Sequence

from sqlalchemy import Connection, Row, Table, bindparam, func, select, text

from handful.errors import UserError
from handful.serving.tables import AUDIT, KEYS, METADATA, TENANTS

OWN = "tenant = current_setting('handful.tenant', true)"
EVERYONE = "current_setting('handful.everyone', true) = 'on'"

DIRECTORY = (TENANTS, KEYS)
"""Tables that are also read before it is known whose the request is."""


def secure(connection: Connection, roles: Sequence[str]) -> None:
    """Let roles use the tables of a store, and see the rows of their transaction's tenant alone."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    for table in METADATA.sorted_tables:
        if "tenant" in table.c:
            _run(
                connection,
                f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
                f"DROP POLICY IF EXISTS own_tenant ON {table.name}",
                f"CREATE POLICY own_tenant ON {table.name} USING ({OWN}) WITH CHECK ({OWN})",
            )
        if table in DIRECTORY:
            _run(
                connection,
                f"DROP POLICY IF EXISTS everyone ON {table.name}",
                f"CREATE POLICY everyone ON {table.name} FOR SELECT USING ({EVERYONE})",
            )
        for role in roles:
            _run(connection, f"GRANT {', '.join(_rights(table))} ON {table.name} TO {quote(role)}")
    for role in roles:
        _run(connection, f"GRANT SELECT ON alembic_version TO {quote(role)}")


def unguard(connection: Connection) -> None:
    """Let the owner see all rows until the transaction ends: a migration would change none, and say nothing.

    Where the role sees some rows only, in spite of this, its queries fail.
    """
    forced = text("SELECT relname FROM pg_class WHERE relforcerowsecurity AND pg_table_is_visible(oid)")
    for name in connection.execute(forced).scalars().all():
        _run(connection, f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
    _run(connection, "SET LOCAL row_security = off")


def roles_of(connection: Connection) -> list[str]:
    """The roles that may use a store, but for its owner."""
    granted = text(
        "SELECT grantee FROM information_schema.role_table_grants WHERE table_schema = current_schema() "
        "AND table_name = 'alembic_version' AND privilege_type = 'SELECT' AND grantee NOT IN (current_user, 'PUBLIC')"
    )
    return list(connection.execute(granted).scalars())


def check_role(connection: Connection) -> None:
    """Raise `UserError` if row security does not hold for the role that is logged in."""
    above = text(
        "SELECT rolname FROM pg_roles WHERE rolname IN (current_user, session_user) AND (rolsuper OR rolbypassrls)"
    )
    role = connection.execute(above).scalar()
    if role is not None:
        raise _refused(f"The role {role!r} is a superuser or has BYPASSRLS, so it can read the rows of all tenants.")


def check_tables(connection: Connection) -> None:
    """Raise `UserError` if a table of a store has no row security, or the role owns it or may not use it."""
    names = [table.name for table in METADATA.sorted_tables if "tenant" in table.c]
    for table in _states(connection, names):
        if table.owned:
            raise _refused(f"The role {table.role!r} owns the table {table.name}, and could end its row security.")
        if not table.secured:
            raise UserError(f"The table {table.name} has no row security. Run `handful store upgrade` as its owner.")
    wanted = [(right, table.name) for table in METADATA.sorted_tables for right in _rights(table)]
    given = connection.execute(select(*(func.has_table_privilege(name, right) for right, name in wanted))).one()
    for (right, name), has in zip(wanted, given, strict=True):
        if not has:
            raise UserError(f"The role may not {right} in the table {name}. Run `handful store upgrade` with its name.")


def _states(connection: Connection, names: Sequence[str]) -> Sequence[Row[tuple[str, str, bool, bool]]]:
    found = text(
        "SELECT relname AS name, current_user AS role, relrowsecurity AND relforcerowsecurity AS secured, "
        "pg_has_role(relowner, 'MEMBER') AS owned FROM pg_class "
        "WHERE relname IN :names AND relkind = 'r' AND pg_table_is_visible(oid)"
    )
    return connection.execute(found.bindparams(bindparam("names", names, expanding=True))).all()


def _rights(table: Table) -> Sequence[str]:
    """What a service does with a table: it only appends to the audit."""
    return ("SELECT", "INSERT") if table is AUDIT else ("SELECT", "INSERT", "UPDATE", "DELETE")


def _refused(reason: str) -> UserError:
    return UserError(
        f"{reason} Log in as a separate role, created with CREATE ROLE ... LOGIN NOSUPERUSER NOBYPASSRLS, and pass it "
        f"to `handful store upgrade`."
    )


def _run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)
