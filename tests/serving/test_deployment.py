"""docs/how-to/deploy/postgres.sql makes roles and a database that a service accepts."""

from pathlib import Path

import pytest

from handful.serving.opening import open_store, upgrade

SQL = Path(__file__).parents[2] / "docs" / "how-to" / "deploy" / "postgres.sql"


@pytest.mark.slow
def test_the_roles_and_the_database_of_the_docs_hold_a_store(cluster):
    text = SQL.read_text(encoding="utf-8").replace("handful", "documented")  # the cluster has roles of these names
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    with cluster.superuser() as connection:
        for statement in filter(str.strip, "\n".join(lines).split(";")):
            connection.execute(statement)
    upgrade(cluster.address("documented", "documented_owner"), role="documented_service")
    with open_store(cluster.address("documented", "documented_service")) as store, store.reading("default") as rows:
        assert rows.tasks(1, "") == []
