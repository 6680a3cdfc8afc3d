"""Tasks that move to the present model of their name."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from handful.errors import ArtifactError, DataError, UserError
from handful.metrics import find_metric
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.notes import Notes, collecting, note
from handful.serving.quotas import Quotas
from handful.serving.records import Estimate, Example, Readaptation, TaskRecord
from handful.serving.rows import Rows
from handful.serving.scoring import Judged, estimates, left_out, surely_worse
from handful.serving.states import States
from handful.serving.store import Store
from handful.serving.supports import reencoded
from handful.serving.versions import Terms, check_changeable, check_expected, insert_version, noted, retried


class Readapter:
    """Adapts tasks anew under another model; of equal requests of one actor that come at once, one does it for all.

    now: the time in milliseconds.
    """

    def __init__(self, store: Store, states: States, now: Callable[[], int], quotas: Quotas) -> None:
        self._store, self._states, self._now, self._quotas = store, states, now, quotas
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[Terms, Future[Readaptation]]] = {}

    def run(self, task: str, terms: Terms) -> Readaptation:
        """Move a task to the present model of its name; see `Service.readapt`."""
        key, mine = (terms.tenant, task), Future[Readaptation]()
        while True:
            with self._lock:
                of, running = self._running.setdefault(key, (terms, mine))
            if running is mine:
                break
            if of == terms:
                return running.result()
            running.exception()  # of another actor: what is left to do is done in the name of this one
        try:
            made = retried(lambda: self._attempt(task, terms), once=terms.expected is not None)
            finish = partial(mine.set_result, made)
        except BaseException as error:
            finish = partial(mine.set_exception, error)
        with self._lock:
            del self._running[key]
        finish()
        return mine.result()

    def _attempt(self, task: str, terms: Terms) -> Readaptation:
        with self._store.reading(terms.tenant) as rows:
            record = rows.task(task)
            support = rows.examples(task, record.head.number)
        check_expected(record.head, terms.expected)
        with collecting() as notes:
            model = self._present(record)
            if model.digest == record.head.model_digest:
                note("present-model", "The task already uses the present model.")
                return Readaptation(noted(record, notes), False, None, None)
            examples = reencoded(model, support)
            made = self._states.adapt(model, examples)
            before, after = self._before(record, support), _judged(model, examples)
            scores = _estimate(before, model), _estimate(after, model)
            if before and after and surely_worse(after, before, find_metric(None, model.spec.kind)):
                note(
                    "not-promoted",
                    "The task stays at its version: the present model is significantly worse on its examples.",
                )
                return Readaptation(noted(record, notes), False, *scores)
            return Readaptation(self._written(record, examples, model, made, scores[1], notes, terms), True, *scores)

    def _present(self, record: TaskRecord) -> MetaModel:
        check_changeable(record)
        model = self._states.models.get(record.head.model)
        if model is None:
            raise UserError(
                f"The service has no model {record.head.model!r} now, only {', '.join(self._states.models)}. Start it "
                f"with a model of this name.",
                code="unknown-name",
            )
        if model.spec.classification != (record.head.labels is not None):
            raise UserError(
                f"The present model {record.head.model!r} is for {model.spec.kind}, unlike the task. Create a new task."
            )
        return model

    def _before(self, record: TaskRecord, support: Sequence[Example]) -> Judged | None:
        try:
            model = self._states.model(record.head.model_digest)
        except ArtifactError as error:  # the present model is the way out
            note("no-estimate", error.message)
            return None
        return _judged(model, support)

    def _written(
        self,
        record: TaskRecord,
        examples: Sequence[Example],
        model: MetaModel,
        made: AdaptedTask,
        estimate: Estimate | None,
        notes: Notes,
        terms: Terms,
    ) -> TaskRecord:
        def work(rows: Rows) -> TaskRecord:
            rows.task(record.id)  # it may have been deleted
            at = self._now()
            number = insert_version(
                rows, record, examples, model, made, change="readapted", actor=terms.actor, at=at, estimate=estimate
            )
            rows.log(at, terms.actor, "readapted", record.id, number)
            self._quotas.check_stored(rows, record.id)
            return noted(rows.task(record.id), notes)

        result = self._store.write(terms.tenant, work)
        self._states.hold((terms.tenant, record.id, result.head.number), made, instead=record.head.number)
        return result


def _judged(model: MetaModel, examples: Sequence[Example]) -> Judged | None:
    """What a model predicts for each example without it; None, with a note, where that cannot be."""
    try:
        return left_out(model, examples)
    except DataError as error:
        note("no-estimate", error.message)
        return None


def _estimate(judged: Judged | None, model: MetaModel) -> Estimate | None:
    if judged is None or judged.diverged == len(judged.ids):
        return None
    return estimates(judged, [find_metric(None, model.spec.kind)])[0]
