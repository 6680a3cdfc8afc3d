"""An index of answered requests by time, by which those of the day before are dropped."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it: without it each request with a key looks at all others of its tenant."""
    op.create_index("requests_created", "requests", ["tenant", "created_at"])
