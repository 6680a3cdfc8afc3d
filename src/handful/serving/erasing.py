"""Erasing: examples and whole tasks, from every table, cache and file of a store."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence

from handful.errors import DataError, HandfulError, UserError
from handful.models.adapted_task import AdaptedTask
from handful.notes import collecting
from handful.serving.records import Example, Receipt, TaskRecord, as_datetime
from handful.serving.rows import Rows
from handful.serving.states import States
from handful.serving.store import Store
from handful.serving.versions import check_expected, insert_version, retried


class Eraser:
    """Erases so that nothing is left in tables, memory, the log of the database, or backups made afterwards.

    A receipt is given once the log is cut. Where that fails, what was erased is in no table any more, and the same
    request, sent again, ends it.
    """

    def __init__(self, store: Store, states: States, now: Callable[[], int]) -> None:
        self._store, self._states, self._now = store, states, now

    def examples(
        self, task: str, ids: Sequence[str], *, tenant: str, actor: str, expected: int | None = None
    ) -> Receipt:
        """Erase examples, and adapt the task anew where its head holds one; see `Service.erase`."""
        wanted = sorted(set(ids))
        if not wanted:
            raise UserError("The examples to erase are missing. Give their ids.")

        def attempt() -> tuple[str, list[int]]:
            with self._store.reading(tenant) as rows:
                record = rows.task(task, deleted=True)
                unknown = sorted(set(wanted) - rows.known_examples(task, wanted))
                if unknown:
                    return _earlier(rows, task, set(wanted), f"The task has no example {unknown[0]!r}."), []
                check_expected(record.head, expected)
                support = rows.examples(task, record.head.number)
            left = [example for example in support if example.id not in wanted]
            made = self._without(record, left) if len(left) < len(support) else None
            with self._forgetting(tenant, task):
                id_, gone, head = self._store.write(
                    tenant, lambda rows: self._erase_examples(rows, record, wanted, left, made, actor)
                )
            self._states.erase((tenant, task, number) for number in gone)
            if made is not None:
                self._states.hold((tenant, task, head), made)
            return id_, gone

        id_, _ = retried(attempt, once=expected is not None)
        return self._finished(id_, tenant)

    def task(self, task: str, *, tenant: str, actor: str, expected: int | None = None) -> Receipt:
        """Erase a task with all its versions and examples, deleted or not; see `Service.erase_task`."""

        def work(rows: Rows) -> tuple[str, list[int]]:
            try:
                record = rows.task(task, deleted=True)
            except UserError as error:
                return _earlier(rows, task, None, error.message), []
            check_expected(record.head, expected)
            numbers, id_, at = (
                [version.number for version in rows.versions(task)],
                self._store.ids.new("erasure"),
                self._now(),
            )
            rows.receipts.insert(id_, task, rows.all_examples(task), None, at)
            rows.erase_task(task)
            rows.log(at, actor, "erased", task, None)
            return id_, numbers

        with self._forgetting(tenant, task):
            id_, gone = self._store.write(tenant, work)
        self._states.erase((tenant, task, number) for number in gone)
        return self._finished(id_, tenant)

    @contextlib.contextmanager
    def _forgetting(self, tenant: str, task: str) -> Iterator[None]:
        """Inside, a failure leaves no state of a task in memory: it may have erased versions nevertheless."""
        with self._store.reading(tenant) as rows:
            last = rows.last_number(task)
        try:
            yield
        except HandfulError:
            self._states.forget((tenant, task, number) for number in range(1, last + 1))
            raise

    def _without(self, record: TaskRecord, left: Sequence[Example]) -> AdaptedTask:
        try:
            if not left:
                raise DataError("No examples would remain.", code="too-few-examples")
            with collecting():
                return self._states.adapt(self._states.model(record.head.model_digest), left)
        except DataError as error:
            raise DataError(
                f"{error.message} The task cannot predict without these examples: erase the whole task.",
                code=error.code,
            ) from error

    def _erase_examples(
        self,
        rows: Rows,
        record: TaskRecord,
        ids: Sequence[str],
        left: Sequence[Example],
        made: AdaptedTask | None,
        actor: str,
    ) -> tuple[str, list[int], int]:
        task, at, id_ = record.id, self._now(), self._store.ids.new("erasure")
        if made is not None:
            model = self._states.model(record.head.model_digest)
            insert_version(rows, record, left, model, made, change="erased", actor=actor, at=at)
        else:
            rows.set_head(task, record.head.number, expected=record.head.number)
        gone = rows.erase_examples(task, ids, at)
        head = rows.task(task, deleted=True).head
        rows.receipts.insert(id_, task, ids, head, at)
        rows.log(at, actor, "erased", task, head.number)
        return id_, gone, head.number

    def _finished(self, id_: str, tenant: str) -> Receipt:
        """The receipt of an erasure, once no file holds what was erased."""
        with self._store.reading(tenant) as rows:
            finished = rows.receipts.get(id_).finished_at is not None
        if not finished:
            try:
                self._store.empty_log()
                self._store.write(tenant, lambda rows: rows.receipts.finish(id_, self._now()))
            except HandfulError as error:
                raise HandfulError(
                    "The erased data are in no table any more, but traces may remain in files of the store, which "
                    "failed or is being read. Repeat the same erasure.",
                    code=error.code,
                ) from error
        with self._store.reading(tenant) as rows:
            row = rows.receipts.get(id_)
        return Receipt(
            row.id,
            row.task,
            tuple(json.loads(row.examples)),
            row.version,
            row.digest,
            as_datetime(row.started_at),
            as_datetime(row.finished_at),
            self._store.remains,
        )


def _earlier(rows: Rows, task: str, ids: set[str] | None, message: str) -> str:
    """The erasure of these examples, or of the whole task, that was made before; `UserError` without one."""
    for row in rows.receipts.of_task(task):
        if row.version is None if ids is None else ids <= set(json.loads(row.examples)):
            return str(row.id)
    raise UserError(message, code="not-found")
