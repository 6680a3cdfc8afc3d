"""Bytes of all rows that a tenant has, in place of those of examples and states alone."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OF_TASK = {
    "tasks": (5, "tenant id name", ""),
    "versions": (6, "tenant task change actor model model_digest labels targets digest estimate", "state"),
    "heads": (1, "tenant task", ""),
    "examples": (1, "tenant task id media label", "content encoded"),
    "encodings": (0, "tenant task example model_digest", "encoded"),
    "supports": (1, "tenant task example", ""),
}
OF_TENANT = {
    "keys": (3, "tenant id name scope hash", ""),
    "requests": (1, "tenant key fingerprint task answer", ""),
    "erasures": (3, "tenant id task examples digest", ""),
    "audit": (3, "tenant actor action task hash", ""),
}
"""How many numbers the rows of each table have, and which texts and blobs."""


def upgrade() -> None:
    """Count anew what each task and tenant uses."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    octets = "LENGTH(CAST({} AS BLOB))" if sqlite else "OCTET_LENGTH({})"

    def total(name: str, numbers: int, texts: str, blobs: str, where: str) -> str:
        lengths = [octets.format(one) for one in texts.split()] + [f"LENGTH({one})" for one in blobs.split()]
        size = " + ".join([str(8 * numbers), *(f"COALESCE({one}, 0)" for one in lengths)])
        return f"COALESCE((SELECT SUM({size}) FROM {name} counted WHERE counted.tenant = {where}), 0)"

    sums = [
        total(name, *rest, f"tasks.tenant AND counted.{'id' if name == 'tasks' else 'task'} = tasks.id")
        for name, rest in OF_TASK.items()
    ]
    op.execute(f"UPDATE tasks SET bytes = {' + '.join(sums)}")
    sums = [total(name, *rest, "tenants.tenant") for name, rest in OF_TENANT.items()]
    tasks = "COALESCE((SELECT SUM(bytes) FROM tasks WHERE tasks.tenant = tenants.tenant), 0)"
    op.execute(f"UPDATE tenants SET bytes = {' + '.join([tasks, *sums])}")
