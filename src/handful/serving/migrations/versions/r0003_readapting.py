"""Estimates and pins of versions, and encodings of examples by further models."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and a table; no version of an earlier store has any of it."""
    op.add_column("versions", sa.Column("estimate", sa.Text))
    op.add_column("versions", sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "encodings",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("example", sa.String, primary_key=True),
        sa.Column("model_digest", sa.String, sa.ForeignKey("models.digest"), primary_key=True),
        sa.Column("encoded", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["tenant", "task", "example"], ["examples.tenant", "examples.task", "examples.id"]),
    )
