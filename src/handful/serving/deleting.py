"""Tasks that are deleted: restored for some days, and then erased."""

from collections.abc import Callable, Sequence

from handful.errors import UserError
from handful.serving.erasing import Eraser
from handful.serving.records import Receipt, TaskRecord, as_datetime
from handful.serving.requests import KEPT
from handful.serving.rows import Rows
from handful.serving.store import Store
from handful.serving.versions import Terms, check_expected

RESTORABLE = 7 * 24 * 3600 * 1000
"""Milliseconds for which a deleted task can be restored."""


class Deleter:
    """Deletes and restores tasks; see the methods of `Service`.

    now: the time in milliseconds.
    """

    def __init__(self, store: Store, eraser: Eraser, now: Callable[[], int]) -> None:
        self._store, self._eraser, self._now = store, eraser, now

    def delete(self, task: str, terms: Terms) -> None:
        """Delete a task, whose name is free then."""

        def work(rows: Rows) -> None:
            head = rows.task(task).head
            check_expected(head, terms.expected)
            rows.set_deleted(task, self._now())
            rows.log(self._now(), terms.actor, "deleted", task, head.number)

        self._store.write(terms.tenant, work)

    def restore(self, task: str, terms: Terms) -> TaskRecord:
        """Bring a task back, where it is deleted and that is not too long ago."""

        def work(rows: Rows) -> TaskRecord:
            record = rows.task(task, deleted=True)
            if record.deleted_at is not None:
                if record.deleted_at < as_datetime(self._now() - RESTORABLE):
                    raise UserError(f"The task {task!r} does not exist.", code="not-found")
                rows.check_free(record.name)
                rows.set_deleted(task, None)
                rows.log(self._now(), terms.actor, "restored", task, record.head.number)
            return rows.task(task)

        return self._store.write(terms.tenant, work)

    def purge(self, tenant: str) -> Sequence[Receipt]:
        """Erase a tenant's tasks that cannot be restored any more, and forget its requests of more than a day ago."""
        forgotten = self._now() - KEPT
        with self._store.reading(tenant) as rows:
            old, answers = rows.deleted_before(self._now() - RESTORABLE), rows.has_answers(forgotten)
        if answers:
            self._store.write(tenant, lambda rows: rows.drop_answers(forgotten))
        return [self._eraser.task(task, tenant=tenant, actor="service") for task in old]
