"""A schema after the newest one, for tests of migrations."""

import shutil

from alembic.script import ScriptDirectory

from handful.serving.schema import MIGRATIONS

HEAD = ScriptDirectory(str(MIGRATIONS)).get_current_head()
NEXT = f"{int(HEAD) + 1:04}"

MIGRATION = f'''
"""Another column for tasks; in SQLite by a table of its own."""
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "{NEXT}", "{HEAD}", None, None
def upgrade():
    recreate = "always" if op.get_context().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("tasks", recreate=recreate) as batch:
        batch.add_column(sa.Column("note", sa.String))
    MORE
'''


def migrations(folder, more="pass"):
    """A folder of migrations with one more, which does this too."""
    made = folder / "migrations"
    shutil.copytree(MIGRATIONS, made, ignore=shutil.ignore_patterns("__pycache__"))
    (made / "versions" / f"r{NEXT}.py").write_text(MIGRATION.replace("MORE", more))
    return made
