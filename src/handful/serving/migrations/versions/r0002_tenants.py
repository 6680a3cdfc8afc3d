"""Tenants with what they use, and their keys."""

from datetime import UTC

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables, and count what the tenants of an earlier store use."""
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("tasks", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("examples", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "keys",
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.tenant"), primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_index("keys_id", "keys", ["id"], unique=True)
    for name in ("examples", "bytes"):
        op.add_column("tasks", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    of_examples = "FROM examples e WHERE e.tenant = tasks.tenant AND e.task = tasks.id"
    of_versions = "FROM versions v WHERE v.tenant = tasks.tenant AND v.task = tasks.id"
    op.execute(
        f"UPDATE tasks SET examples = (SELECT COUNT(*) {of_examples}), "
        f"bytes = COALESCE((SELECT SUM(LENGTH(e.content) + LENGTH(e.encoded)) {of_examples}), 0)"
        f" + COALESCE((SELECT SUM(LENGTH(v.state)) {of_versions}), 0)"
    )
    op.execute(
        "INSERT INTO tenants (tenant, created_at, tasks, examples, bytes) "
        "SELECT tenant, MIN(created_at), COUNT(*), SUM(examples), SUM(bytes) FROM tasks GROUP BY tenant"
    )
    now = op.get_bind().execute(sa.select(sa.func.current_timestamp())).scalar_one()
    utc = now.replace(tzinfo=UTC) if now.tzinfo is None else now  # SQLite's has no time zone, but is in UTC
    milliseconds = int(utc.timestamp() * 1000)
    op.execute(
        f"INSERT INTO tenants (tenant, created_at) SELECT 'default', {milliseconds} "
        "WHERE NOT EXISTS (SELECT 1 FROM tenants WHERE tenant = 'default')"
    )
