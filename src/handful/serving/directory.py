"""Queries of tenants and their keys, which are read before it is known who asks."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, func, insert, select, true

from handful.errors import UserError
from handful.serving.records import Key, Tenant, as_datetime
from handful.serving.tables import AUDIT, KEYS, TENANTS
from handful.serving.usage import Counts

DEFAULT = "default"
"""The tenant that every store has, whose admin keys manage all tenants."""

EVERYONE = ""
"""In place of a tenant: whose tenants and keys are read, those of all; nothing is written for it."""


class Directory:
    """Tenants and keys: of one tenant, or for `EVERYONE` of all.

    connection: inside a transaction.
    counts: through which keys are written.
    """

    def __init__(self, connection: Connection, tenant: str, counts: Counts) -> None:
        self._run, self._tenant, self._counts = connection.execute, tenant, counts

    def tenant(self, name: str, *, lock: bool = False) -> Tenant:
        """A tenant; `UserError` if it does not exist.

        lock: until the transaction ends, others that lock it wait.
        """
        wanted = select(TENANTS.c.tenant, TENANTS.c.created_at).where(self._own(TENANTS), TENANTS.c.tenant == name)
        row = self._run(wanted.with_for_update() if lock else wanted).first()
        if row is None:
            raise UserError(f"The tenant {name!r} does not exist.", code="not-found")
        return Tenant(row.tenant, as_datetime(row.created_at))

    def tenants(self, limit: int, after: str) -> list[Tenant]:
        """Tenants by name.

        after: the last one seen.
        """
        wanted = select(TENANTS.c.tenant, TENANTS.c.created_at).where(self._own(TENANTS), TENANTS.c.tenant > after)
        rows = self._run(wanted.order_by(TENANTS.c.tenant).limit(limit))
        return [Tenant(row.tenant, as_datetime(row.created_at)) for row in rows]

    def insert_tenant(self, at: int) -> None:
        """Add the tenant."""
        self._run(insert(TENANTS).values(tenant=self._tenant, created_at=at))

    def key(self, id_: str) -> Key:
        """A key; `UserError` if it does not exist."""
        found = self.hashed_key(id_)
        if found is None:
            raise UserError(f"The key {id_!r} does not exist.", code="not-found")
        return found[0]

    def hashed_key(self, id_: str) -> tuple[Key, str] | None:
        """A key and the hash of its token; None if it does not exist."""
        row = self._run(select(KEYS).where(self._own(KEYS), KEYS.c.id == id_)).first()
        return None if row is None else (_key(row), row.hash)

    def keys(self, limit: int, after: str) -> list[Key]:
        """Keys by id, the revoked and expired ones too.

        after: the id of the last one seen.
        """
        wanted = select(KEYS).where(self._own(KEYS), KEYS.c.id > after)
        return [_key(row) for row in self._run(wanted.order_by(KEYS.c.id).limit(limit))]

    def successor(self, id_: str) -> str | None:
        """The id of the key that took the place of another one of the tenant; None if it was not rotated."""
        rotated = self._own(AUDIT), AUDIT.c.action == "key-rotated", AUDIT.c.task == id_
        last = select(func.max(AUDIT.c.number)).where(*rotated).scalar_subquery()
        return self._run(select(AUDIT.c.task).where(self._own(AUDIT), AUDIT.c.number == last + 1)).scalar()

    def has_admin(self, at: int) -> bool:
        """Whether the tenant has an admin key that is in force."""
        valid = KEYS.c.revoked_at.is_(None), KEYS.c.expires_at.is_(None) | (KEYS.c.expires_at > at)
        wanted = select(KEYS.c.id).where(self._own(KEYS), KEYS.c.scope == "admin", *valid)
        return self._run(wanted.limit(1)).first() is not None

    def insert_key(self, id_: str, name: str, scope: str, hash_: str, at: int, expires_at: int | None) -> Key:
        """Add a key of the tenant."""
        facts = {"id": id_, "name": name, "scope": scope, "hash": hash_, "created_at": at, "expires_at": expires_at}
        self._counts.insert(KEYS, None, facts)
        return self.key(id_)

    def set_key(self, id_: str, **facts: Any) -> Key:
        """Change facts of a key of the tenant; `UserError` if it does not exist."""
        self._counts.update(KEYS, None, KEYS.c.id == id_, **facts)
        return self.key(id_)

    def _own(self, table: Table) -> ColumnElement[bool]:
        return true() if self._tenant == EVERYONE else table.c.tenant == self._tenant


def _key(row: Row[Any]) -> Key:
    return Key(
        tenant=row.tenant,
        id=row.id,
        name=row.name,
        scope=row.scope,
        created_at=as_datetime(row.created_at),
        expires_at=None if row.expires_at is None else as_datetime(row.expires_at),
        revoked_at=None if row.revoked_at is None else as_datetime(row.revoked_at),
    )
