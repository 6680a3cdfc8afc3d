"""What Alembic runs for a migration: on the connection that it is given, inside the transaction that is open."""

from alembic import context

from handful.serving.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
