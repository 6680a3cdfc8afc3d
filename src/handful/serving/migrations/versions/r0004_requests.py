"""Indexes of answered requests: by time, by which old ones are dropped, and by task, with which they are erased."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them: without them each request with a key, and each erasure, looks at all requests of its tenant."""
    op.create_index("requests_created", "requests", ["tenant", "created_at"])
    op.create_index("requests_task", "requests", ["tenant", "task"])
