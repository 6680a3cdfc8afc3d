"""Answered requests for keys and tenants, which are about no task."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let a request have no task; SQLite makes the table anew for it."""
    with op.batch_alter_table("requests") as table:
        table.alter_column("task", existing_type=sa.String, nullable=True)
