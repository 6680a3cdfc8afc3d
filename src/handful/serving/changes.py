"""Changes of tasks, each a new version, and moves of their heads."""

from collections.abc import Callable, Sequence
from typing import Any

from handful.errors import UserError
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.notes import Notes, collecting
from handful.serving.names import checked_name
from handful.serving.own_columns import check_added, own_columns, placed
from handful.serving.quotas import Quotas
from handful.serving.records import Estimate, Example, TaskRecord, Version
from handful.serving.requests import Request, Requests, content_of, of_task, task_of
from handful.serving.rows import Rows
from handful.serving.scoring import own_estimate
from handful.serving.states import States, check_there, digest_of
from handful.serving.store import Store
from handful.serving.supports import added, corrected, labeled, reencoded
from handful.serving.versions import (
    Terms,
    check_changeable,
    check_expected,
    facts_of,
    insert_version,
    keep_model,
    noted,
    retried,
)


class Changes:
    """Makes tasks and changes them; see the methods of `Service`.

    now: the time in milliseconds.
    """

    def __init__(self, store: Store, states: States, now: Callable[[], int], quotas: Quotas) -> None:
        self._store, self._states, self._now, self.quotas = store, states, now, quotas
        self.requests = Requests(store, now, task_of)

    def create(
        self,
        name: str,
        inputs: Sequence[Any],
        labels: Any,
        terms: Terms,
        *,
        model: str | None,
        keep_examples: bool,
        estimate: bool,
    ) -> TaskRecord:
        """Adapt a new task to examples."""
        name, (of_model, meta) = checked_name(name), self._states.named(model)
        with collecting() as notes:
            new = labeled(meta, inputs, labels, self._store.ids)
            content = name, of_model, keep_examples, estimate, content_of(new)
            with self.requests.once(terms.tenant, terms.key, "create", *content) as request:
                if request.earlier is not None:
                    return request.earlier
                examples = added([], new, classification=meta.spec.classification)
                self.quotas.check_support(examples, classification=meta.spec.classification)
                with placed(examples, new):
                    made = self._states.adapt(meta, examples)
                own = own_estimate(meta, examples) if estimate else None
                kept = examples if keep_examples else None
                return self.insert(name, of_model, kept, made, "created", notes, terms, request, own)

    def insert(
        self,
        name: str,
        model: str,
        examples: Sequence[Example] | None,
        made: AdaptedTask,
        change: str,
        notes: Notes,
        terms: Terms,
        request: Request[TaskRecord],
        estimate: Estimate | None = None,
    ) -> TaskRecord:
        """Write a new task with its first version.

        examples: None if they are not kept.
        """
        meta, id_, at = self._states.model(made.model_digest), self._store.ids.new("task"), self._now()

        def work(rows: Rows) -> TaskRecord:
            keep_model(rows, meta)
            rows.insert_task(id_, name, keep_examples=examples is not None, at=at)
            rows.insert_examples(id_, examples or [], at)
            facts = facts_of(made, estimate) | {"parent": None, "change": change}
            facts |= {"actor": terms.actor, "created_at": at}
            rows.insert_version(id_, 1, [example.id for example in examples or []], model=model, **facts)
            rows.set_head(id_, 1)
            rows.log(at, terms.actor, change, id_, 1)
            record = noted(rows.task(id_), notes)
            request.keep(rows, of_task(record), at)
            self.quotas.check_stored(rows, id_)
            return record

        record = self._store.write(terms.tenant, work)
        self._states.hold((terms.tenant, id_, 1), made)
        return record

    def label(
        self, task: str, inputs: Sequence[Any], labels: Any, change: str, terms: Terms, *, estimate: bool
    ) -> TaskRecord:
        """Adapt a task anew to these examples too.

        change: "added", or "corrected" where their labels take the place of others.
        """
        with self._store.reading(terms.tenant) as rows:
            meta = self._states.model(rows.task(task).head.model_digest)
        with collecting() as notes:
            new = labeled(meta, inputs, labels, self._store.ids)

            def edit(support: list[Example], model: MetaModel) -> list[Example]:
                examples = new if model.digest == meta.digest else reencoded(model, new)  # readapted meanwhile
                if own_columns(model):
                    check_added(support, examples)
                if change == "corrected":
                    return corrected(support, examples)
                return added(support, examples, classification=model.spec.classification)

            content = change, task, terms.expected, estimate, content_of(new)
            with self.requests.once(terms.tenant, terms.key, *content) as request:
                if request.earlier is not None:
                    return request.earlier
                return self._edited(task, change, edit, notes, terms, request, new=new, estimate=estimate)

    def remove(self, task: str, examples: Sequence[str], terms: Terms, *, estimate: bool) -> TaskRecord:
        """Adapt a task anew without the examples of these ids."""

        def edit(support: list[Example], model: MetaModel) -> list[Example]:
            unknown = sorted(set(examples) - {example.id for example in support})
            if unknown:
                raise UserError(f"The task has no example {unknown[0]!r}.", code="not-found")
            return [example for example in support if example.id not in examples]

        with collecting() as notes:
            return self._edited(task, "removed", edit, notes, terms, Request(None), estimate=estimate)

    def roll_back(self, task: str, version: int, terms: Terms) -> TaskRecord:
        """Move the head of a task to an earlier or later version."""

        def attempt() -> TaskRecord:
            with self._store.reading(terms.tenant) as rows:
                record, wanted = rows.task(task), rows.version(task, version)
            check_expected(record.head, terms.expected)
            check_there(wanted)
            if version == record.head.number:
                return record
            state = self._states.load((terms.tenant, task, version)).to_bytes()  # it may have been dropped

            def move(rows: Rows) -> TaskRecord:
                rows.task(task)
                check_there(rows.version(task, version))
                rows.set_state(task, version, state, digest_of(state))
                rows.set_head(task, version, expected=record.head.number)
                rows.drop_old_states(task, version)
                rows.log(self._now(), terms.actor, "rolled-back", task, version)
                return rows.task(task)

            return self._store.write(terms.tenant, move)

        return retried(attempt, once=terms.expected is not None)

    def pin(self, task: str, version: int, pinned: bool, terms: Terms) -> Version:
        """Keep the state of a version, or let it go with time."""
        with self._store.reading(terms.tenant) as rows:
            rows.task(task)
            wanted = rows.version(task, version)
        check_there(wanted)
        if wanted.pinned == pinned:
            return wanted
        state = self._states.load((terms.tenant, task, version)).to_bytes() if pinned else None  # it may be dropped

        def work(rows: Rows) -> Version:
            rows.task(task)
            check_there(rows.version(task, version))
            if state is not None:
                rows.set_state(task, version, state, digest_of(state))
            rows.set_pinned(task, version, pinned)
            rows.log(self._now(), terms.actor, "pinned" if pinned else "unpinned", task, version)
            if pinned:
                self.quotas.check_stored(rows, task)
            return rows.version(task, version)

        return self._store.write(terms.tenant, work)

    def rename(self, task: str, name: str, terms: Terms) -> TaskRecord:
        """Give a task another name."""
        name = checked_name(name)

        def work(rows: Rows) -> TaskRecord:
            record = rows.task(task)
            check_expected(record.head, terms.expected)
            if record.name != name:
                rows.set_name(task, name)
                rows.log(self._now(), terms.actor, "renamed", task, record.head.number)
            return rows.task(task)

        return self._store.write(terms.tenant, work)

    def _edited(
        self,
        task: str,
        change: str,
        edit: Callable[[list[Example], MetaModel], list[Example]],
        notes: Notes,
        terms: Terms,
        request: Request[TaskRecord],
        *,
        new: Sequence[Example] = (),
        estimate: bool,
    ) -> TaskRecord:
        """The task with a new version on what an edit makes of its examples; as it is where they stay the same."""

        def attempt() -> TaskRecord:
            with self._store.reading(terms.tenant) as rows:
                record = rows.task(task)
                support = rows.examples(task, record.head.number)
            check_expected(record.head, terms.expected)
            check_changeable(record)
            with collecting() as own:  # of this attempt
                model = self._states.model(record.head.model_digest)
                examples = edit(support, model)
                if examples == support:
                    return self._unchanged(noted(record, [*notes, *own]), terms, request)
                if change != "removed":
                    self.quotas.check_support(examples, classification=model.spec.classification)
                with placed(examples, new):
                    made = self._states.adapt(model, examples)
                score = own_estimate(model, examples) if estimate else None
            told = [*notes, *own]

            def work(rows: Rows) -> TaskRecord:
                rows.task(task)  # it may have been deleted
                at = self._now()
                number = insert_version(
                    rows, record, examples, model, made, change=change, actor=terms.actor, at=at, estimate=score
                )
                rows.log(at, terms.actor, change, task, number)
                result = noted(rows.task(task), told)
                request.keep(rows, of_task(result), at)
                if change != "removed":
                    self.quotas.check_stored(rows, task)
                return result

            result = self._store.write(terms.tenant, work)
            self._states.hold((terms.tenant, task, result.head.number), made, instead=record.head.number)
            return result

        return retried(attempt, once=terms.expected is not None)

    def _unchanged(self, record: TaskRecord, terms: Terms, request: Request[TaskRecord]) -> TaskRecord:
        """The response to a request that changes nothing; sent again, it changes nothing of what came between
        either."""

        def work(rows: Rows) -> None:
            rows.task(record.id)  # it may have been deleted
            request.keep(rows, of_task(record), self._now())

        if request.key is not None:
            self._store.write(terms.tenant, work)
        return record
