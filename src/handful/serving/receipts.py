"""Queries of receipts: what was erased, and whether files may hold traces of it yet."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, update

from handful.serving.records import Version
from handful.serving.tables import ERASURES
from handful.serving.usage import Counts


class Receipts:
    """The erasures of one tenant, as rows of their table.

    connection: inside a transaction.
    counts: through which they are written.
    """

    def __init__(self, connection: Connection, tenant: str, counts: Counts) -> None:
        self._run, self._tenant, self._counts = connection.execute, tenant, counts

    def insert(self, id_: str, task: str, examples: Sequence[str], head: Version | None, at: int) -> None:
        """Note that examples were erased, of which files may hold traces yet.

        head: what is left of the task.
        """
        facts = {"id": id_, "task": task, "examples": json.dumps(list(examples)), "started_at": at}
        if head is not None:
            facts |= {"version": head.number, "digest": head.digest}
        self._counts.insert(ERASURES, None, facts)

    def finish(self, id_: str, at: int) -> None:
        """Note that no file holds what was erased any more."""
        unfinished = self._of(id_) & ERASURES.c.finished_at.is_(None)
        self._run(update(ERASURES).where(unfinished).values(finished_at=at))

    def get(self, id_: str) -> Row[Any]:
        """An erasure that was noted."""
        return self._run(select(ERASURES).where(self._of(id_))).one()

    def of_task(self, task: str) -> list[Row[Any]]:
        """All erasures of a task, from the first."""
        own = (ERASURES.c.tenant == self._tenant) & (ERASURES.c.task == task)
        return list(self._run(select(ERASURES).where(own).order_by(ERASURES.c.id)))

    def _of(self, id_: str) -> ColumnElement[bool]:
        return (ERASURES.c.tenant == self._tenant) & (ERASURES.c.id == id_)
