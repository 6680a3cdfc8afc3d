"""Tasks with versions, examples, audit, answered requests and erasures."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first schema. A migration stays as it was written, whatever the tables become later."""
    op.create_table(
        "models",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("keep_examples", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
    )
    op.create_index(
        "tasks_name",
        "tasks",
        ["tenant", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "versions",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("parent", sa.Integer),
        sa.Column("change", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("erased_at", sa.BigInteger),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("model_digest", sa.String, sa.ForeignKey("models.digest"), nullable=False),
        sa.Column("labels", sa.Text),
        sa.Column("targets", sa.Text),
        sa.Column("examples", sa.Integer),
        sa.Column("digest", sa.String),
        sa.Column("state", sa.LargeBinary),
        sa.ForeignKeyConstraint(["tenant", "task"], ["tasks.tenant", "tasks.id"]),
        sa.ForeignKeyConstraint(["tenant", "task", "parent"], ["versions.tenant", "versions.task", "versions.number"]),
    )
    op.create_table(
        "heads",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["tenant", "task", "version"], ["versions.tenant", "versions.task", "versions.number"]),
    )
    op.create_table(
        "examples",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("media", sa.String, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("encoded", sa.LargeBinary, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["tenant", "task"], ["tasks.tenant", "tasks.id"]),
    )
    op.create_table(
        "supports",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("example", sa.String, primary_key=True),
        sa.ForeignKeyConstraint(["tenant", "task", "version"], ["versions.tenant", "versions.task", "versions.number"]),
        sa.ForeignKeyConstraint(["tenant", "task", "example"], ["examples.tenant", "examples.task", "examples.id"]),
    )
    op.create_index("supports_example", "supports", ["tenant", "task", "example"])
    op.create_table(
        "requests",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["tenant", "task"], ["tasks.tenant", "tasks.id"]),
    )
    op.create_table(
        "erasures",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("examples", sa.Text, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("digest", sa.String),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
    )
    op.create_table(
        "audit",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("hash", sa.String, nullable=False),
    )
