"""What can be done with the tasks of a store: one method for each use, without HTTP and without SQL."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from handful.errors import UserError
from handful.models.meta_model import MetaModel
from handful.serving import inputs as kept
from handful.serving.changes import Changes
from handful.serving.deleting import Deleter
from handful.serving.differences import with_differences
from handful.serving.erasing import Eraser
from handful.serving.evaluating import Evaluator
from handful.serving.keys import Keys
from handful.serving.opening import open_store
from handful.serving.predicting import Asked, Predictor
from handful.serving.quotas import Quotas
from handful.serving.readapting import Readapter
from handful.serving.records import (
    AuditEntry,
    Example,
    ExamplesPage,
    LabeledInput,
    Predictions,
    Readaptation,
    Receipt,
    Scores,
    TaskRecord,
    Version,
)
from handful.serving.states import States, check_there, opened_model
from handful.serving.store import Store
from handful.serving.tenants import Tenants
from handful.serving.transfers import Transfers
from handful.serving.usage import Usage
from handful.serving.versions import Terms

STATE_BYTES = 512 * 2**20
"""Of the states of one model that are held in memory, where nothing else is said."""


class Service:
    """Tasks adapted from the examples of many tenants, kept in a store with all their versions.

    Safe to use from many threads. A change is durable once its method has returned. No method shows whether another
    tenant has something.

    models: the model that new tasks are adapted from, or several by name, each a `MetaModel`, its folder or its run.
    store: a `Store`, which stays open when the service closes, or its folder, or the address of its database.
    trust: see `MetaModel.from_pretrained`.
    max_bytes: of the states of one model that are held in memory.
    quotas: the most that a task and a tenant may have; None: those of `Quotas`.
    clock: the time in nanoseconds since 1970.

    Most methods take `tenant`, whose task it is, and those that change one `actor`, who is named in its versions and
    in the audit. `expected` is the version that a task has to be at, else `UserError`. A request with an
    `idempotency_key` that was carried out in the last day, with the same content, is answered as it was then.

    Attributes:
        quotas: the most that a task and a tenant may have.
        tenants: see `Tenants`.
        keys: see `Keys`.

    >>> import tempfile
    >>> from handful.learners.prototypical import PrototypicalNetwork
    >>> from handful.types import TaskSpec
    >>> model = MetaModel(PrototypicalNetwork.build(TaskSpec("classification", (2,), 2), backbone="linear"))
    >>> folder = tempfile.TemporaryDirectory()
    >>> service = Service(model, folder.name)
    >>> task = service.create("shelf 12", [[0.0, 0.1], [1.0, 0.9]], ["apple", "pear"])
    >>> service.predict(task.id, [[1.0, 1.0]]).predictions[0].label
    'pear'
    >>> service.correct(task.id, [[1.0, 1.0]], ["plum"]).head.labels
    ('apple', 'pear', 'plum')
    >>> service.roll_back(task.id, 1).head.labels
    ('apple', 'pear')
    >>> service.close()
    >>> folder.cleanup()
    """

    def __init__(
        self,
        models: MetaModel | str | Path | Mapping[str, MetaModel | str | Path],
        store: Store | str | Path,
        *,
        trust: Sequence[str] = (),
        max_bytes: int = STATE_BYTES,
        quotas: Quotas | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        named = models if isinstance(models, Mapping) else {"default": models}
        if not named:
            raise UserError("The service needs at least one model.")
        self._clock = clock
        opened = {name: opened_model(one, trust) for name, one in named.items()}  # before a folder is made for them
        with contextlib.ExitStack() as opening:
            self.store = store if isinstance(store, Store) else opening.enter_context(open_store(store))
            self._states = States(opened, self.store, trust=trust, max_bytes=max_bytes, now=self._now)
            self._open = opening.pop_all()
        self.tenants, self.keys = Tenants(self.store, self._now), Keys(self.store, self._now)
        self._eraser = Eraser(self.store, self._states, self._now)
        self._deleter = Deleter(self.store, self._eraser, self._now)
        self.quotas = quotas or Quotas()
        self._changes = Changes(self.store, self._states, self._now, self.quotas)
        self._readapter = Readapter(self.store, self._states, self._now, self.quotas)
        self._evaluator = Evaluator(self.store, self._states)
        self._transfers = Transfers(self.store, self._states, self._changes)
        self.predictor = Predictor(self._states, self._version, self.store.held_head)

    @property
    def models(self) -> Mapping[str, MetaModel]:
        """The models that new tasks are adapted from, by name."""
        return self._states.models

    @property
    def states(self) -> States:
        """What is in memory of versions, and what was counted of it."""
        return self._states

    def model(self, name: str | None = None) -> MetaModel:
        """The model of this name, or the only one; `UserError` if it does not exist, or is ambiguous."""
        return self._states.named(name)[1]

    def model_of(self, version: Version) -> MetaModel:
        """The model that a version was adapted from."""
        return self._states.model(version.model_digest)

    def reader_of(self, task: str, version: int | None = None, *, tenant: str = "default") -> MetaModel:
        """The model of the head or another version, with the pipeline that reads its inputs from files."""
        wanted = self._version(task, version, tenant)
        return self._states.model_of(wanted.model_digest, (tenant, task, wanted.number))

    def close(self) -> None:
        """Finish what is being written, and close the store if it was opened here."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Making and changing tasks

    def create(
        self,
        name: str,
        inputs: Sequence[Any],
        labels: Any,
        *,
        model: str | None = None,
        keep_examples: bool = True,
        estimate: bool = False,
        tenant: str = "default",
        actor: str = "local",
        idempotency_key: str | None = None,
    ) -> TaskRecord:
        """Adapt a new task to examples.

        name: unlike those of the tenant's other tasks that are not deleted.
        inputs: texts, rows, arrays, or images as the bytes of their files: whatever the model's pipeline reads.
        labels: class names `(n,)`, or targets `(n,)` or `(n, outputs)`.
        model: the name of one; optional if the service has only one.
        keep_examples: whether the store keeps the examples, without which the task cannot change.
        estimate: whether to estimate the score of the version, as `evaluate` does on its own examples; too few of them
            give a note instead.

        Raises `DataError` for examples that cannot be used, and `UserError` for a name that is taken.
        """
        terms = Terms(tenant, actor, key=idempotency_key)
        return self._changes.create(
            name, inputs, labels, terms, model=model, keep_examples=keep_examples, estimate=estimate
        )

    def add(
        self,
        task: str,
        inputs: Sequence[Any],
        labels: Any,
        *,
        expected: int | None = None,
        estimate: bool = False,
        tenant: str = "default",
        actor: str = "local",
        idempotency_key: str | None = None,
    ) -> TaskRecord:
        """Adapt a task anew to its examples and more of them, of which new classes may be.

        inputs, labels, estimate: as for `create`. Inputs with labels that the task has already are left out, with a
            note; `DataError` if they have another label.
        """
        terms = Terms(tenant, actor, expected, idempotency_key)
        return self._changes.label(task, inputs, labels, "added", terms, estimate=estimate)

    def correct(
        self,
        task: str,
        inputs: Sequence[Any],
        labels: Any,
        *,
        expected: int | None = None,
        estimate: bool = False,
        tenant: str = "default",
        actor: str = "local",
        idempotency_key: str | None = None,
    ) -> TaskRecord:
        """Adapt a task anew with these labels: in place of others for inputs among its examples, else added to them.

        inputs, labels, estimate: as for `create`.
        """
        terms = Terms(tenant, actor, expected, idempotency_key)
        return self._changes.label(task, inputs, labels, "corrected", terms, estimate=estimate)

    def remove(
        self,
        task: str,
        examples: Sequence[str],
        *,
        expected: int | None = None,
        estimate: bool = False,
        tenant: str = "default",
        actor: str = "local",
    ) -> TaskRecord:
        """Adapt a task anew without the examples of these ids; earlier versions keep them, see `erase`.

        estimate: as for `create`.

        Raises `UserError` for unknown ids, and `DataError` if too few examples are left.
        """
        return self._changes.remove(task, examples, Terms(tenant, actor, expected), estimate=estimate)

    def roll_back(
        self,
        task: str,
        version: int,
        *,
        expected: int | None = None,
        tenant: str = "default",
        actor: str = "local",
    ) -> TaskRecord:
        """Let an earlier or later version of a task predict from now on; no version is lost.

        Raises `UserError` if the version does not exist, or was erased.
        """
        return self._changes.roll_back(task, version, Terms(tenant, actor, expected))

    def readapt(
        self, task: str, *, expected: int | None = None, tenant: str = "default", actor: str = "local"
    ) -> Readaptation:
        """Move a task to the model that its model's name has now, as a new version.

        The raw examples are read by that model. No version is made if its leave-one-out score on the examples is
        significantly below that of the previous model (95 %). Without such a score, with a note, the task moves.
        Equal requests of one actor that come at once are one.

        Raises `UserError` if the service has no model of this name, or the examples are not kept, and `DataError` where
        the model cannot read them.
        """
        return self._readapter.run(task, Terms(tenant, actor, expected))

    def pin(
        self, task: str, version: int, pinned: bool = True, *, tenant: str = "default", actor: str = "local"
    ) -> Version:
        """Keep the state of a version, so that it predicts at once however many versions follow.

        Else the head and the last 20 versions keep theirs; others are adapted again when they are asked for.

        pinned: False to let go of it again.

        Raises `UserError` if the version does not exist, or was erased.
        """
        return self._changes.pin(task, version, pinned, Terms(tenant, actor))

    def rename(
        self, task: str, name: str, *, expected: int | None = None, tenant: str = "default", actor: str = "local"
    ) -> TaskRecord:
        """Give a task another name, see `create`; it is no new version."""
        return self._changes.rename(task, name, Terms(tenant, actor, expected))

    def delete(self, task: str, *, expected: int | None = None, tenant: str = "default", actor: str = "local") -> None:
        """Delete a task; it can be restored, and its name is free."""
        self._deleter.delete(task, Terms(tenant, actor, expected))

    def restore(self, task: str, *, tenant: str = "default", actor: str = "local") -> TaskRecord:
        """Bring a task back that was deleted in the last 7 days.

        Raises `UserError` if its name was given to another one meanwhile.
        """
        return self._deleter.restore(task, Terms(tenant, actor))

    # Erasing

    def erase(
        self,
        task: str,
        examples: Sequence[str],
        *,
        expected: int | None = None,
        tenant: str = "default",
        actor: str = "local",
    ) -> Receipt:
        """Erase the examples of these ids, from all versions: those that hold one are gone, but for number and time.

        Where the head held one, the task is adapted anew without them. When the receipt is returned, they are in no
        table, memory or file of the store; the same request, sent again, gives the same receipt. Backups that were made
        before are not changed.

        Raises `UserError` for unknown ids, `DataError` if too few examples would be left to adapt to, and
        `HandfulError` if a reader kept the database's log from being cut: ask again.
        """
        return self._eraser.examples(task, examples, tenant=tenant, actor=actor, expected=expected)

    def erase_task(
        self, task: str, *, expected: int | None = None, tenant: str = "default", actor: str = "local"
    ) -> Receipt:
        """Erase a task with all its versions and examples, deleted or not; see `erase`."""
        return self._eraser.task(task, tenant=tenant, actor=actor, expected=expected)

    def purge(self, *, tenant: str | None = None) -> Sequence[Receipt]:
        """Erase the tasks that were deleted more than 7 days ago, and forget the requests of more than a day ago.

        tenant: whose; None: those of all tenants.
        """
        tenants = self.tenants.each() if tenant is None else [tenant]
        return [receipt for one in tenants for receipt in self._deleter.purge(one)]

    # Looking

    def get(self, task: str, *, tenant: str = "default") -> TaskRecord:
        """A task; `UserError` if it does not exist."""
        with self.store.reading(tenant) as rows:
            return rows.task(task)

    def tasks(
        self, *, limit: int = 100, after: str = "", deleted: bool = False, tenant: str = "default"
    ) -> list[TaskRecord]:
        """Tasks that are not deleted, from the oldest.

        after: the id of the last one seen.
        deleted: those that are, until they are erased, in place of the others.
        """
        with self.store.reading(tenant) as rows:
            return rows.tasks(limit, after, deleted=deleted)

    def versions(self, task: str, *, limit: int = 100, after: int = 0, tenant: str = "default") -> Sequence[Version]:
        """Versions of a task, from the first, each with its difference from its parent.

        after: the number of the last one seen.
        """
        with self.store.reading(tenant) as rows:
            rows.task(task)
            return with_differences(rows, task, rows.versions(task, limit, after))

    def version(self, task: str, version: int, *, tenant: str = "default") -> Version:
        """A version; `UserError` if it does not exist. An erased one is a tombstone."""
        with self.store.reading(tenant) as rows:
            rows.task(task)
            [shown] = with_differences(rows, task, [rows.version(task, version)])
        return shown

    def examples(self, task: str, version: int | None = None, *, tenant: str = "default") -> Sequence[LabeledInput]:
        """The examples of a version, the head by default; none where they are not kept, or the version was erased."""
        with self.store.reading(tenant) as rows:
            found = rows.version(task, rows.task(task).head.number if version is None else version)
            examples = rows.examples(task, found.number)
        return [_shown(example, found) for example in examples]

    def examples_page(
        self,
        task: str,
        version: int | None = None,
        *,
        limit: int,
        nbytes: int,
        after: str = "",
        tenant: str = "default",
    ) -> ExamplesPage:
        """Some of the examples of a version, see `examples`.

        limit: how many at most.
        nbytes: that they hold at most, unless the first alone holds more.
        after: the id of the last one seen.
        """
        with self.store.reading(tenant) as rows:
            found = rows.version(task, rows.task(task).head.number if version is None else version)
            ids, more = rows.page(task, found.number, limit, nbytes, after)
            examples = rows.examples(task, found.number, ids)
        return ExamplesPage([_shown(example, found) for example in examples], more)

    def usage(self, *, tenant: str = "default") -> Usage:
        """What a tenant uses, deleted tasks too until they are erased; see `quotas` for the most."""
        with self.store.reading(tenant) as rows:
            return rows.counts.of_tenant()

    def audit(self, *, limit: int = 100, after: int = 0, tenant: str = "default") -> Sequence[AuditEntry]:
        """What was changed by whom, from the first change.

        after: the number of the last one seen.
        """
        with self.store.reading(tenant) as rows:
            return rows.audit(limit, after)

    # Predicting

    def predict(
        self,
        task: str,
        inputs: Sequence[Any],
        *,
        version: int | None = None,
        top: int | None = None,
        tenant: str = "default",
    ) -> Predictions:
        """Predict inputs, by the head or by another version of a task.

        inputs: as for `create`; may be none.
        top: how many classes have their probability shown, the most probable first; None: all.

        Raises `UserError` for an unknown task or version, `DataError` for inputs that do not fit, and `DivergedError`
        where a prediction is not finite.
        """
        [made] = self.predictor.predict([Asked(tenant, task, inputs, version, top)])
        if isinstance(made, Exception):
            raise made
        return made

    def predict_many(
        self, asked: Sequence[tuple[str, Sequence[Any]]], *, tenant: str = "default"
    ) -> list[Predictions | Exception]:
        """Predict by several tasks at once: what `predict` returns for each, or in its place what it would raise.

        asked: ids of tasks, each with inputs as for `predict`.
        """
        return self.predictor.predict([Asked(tenant, task, inputs) for task, inputs in asked])

    def evaluate(
        self,
        task: str,
        inputs: Sequence[Any] | None = None,
        labels: Any = None,
        *,
        version: int | None = None,
        tenant: str = "default",
    ) -> Scores:
        """Score the head or another version of a task.

        inputs, labels: as for `create`, of classes that the task has. None: its own examples, each predicted by the
            task adapted without it and without those of equal inputs, for at most 100 adaptations: of more examples
            several are left out at a time.

        Raises `DataError` if examples cannot be scored, such as too few of its own, and `DivergedError` if no
        prediction is finite.
        """
        return self._evaluator.run(task, self._version(task, version, tenant), inputs, labels, tenant)

    # As files

    def export(self, task: str, version: int | None = None, *, tenant: str = "default") -> bytes:
        """A version, the head by default, as the file of an adapted task: `AdaptedTask.from_bytes` reads it.

        It holds the examples as the model sees them, where they are kept; those with columns of their own also as they
        were given.
        """
        return self._transfers.export(task, version, tenant)

    def import_task(
        self,
        name: str,
        content: bytes,
        *,
        tenant: str = "default",
        actor: str = "local",
        idempotency_key: str | None = None,
    ) -> TaskRecord:
        """Make a task of the file of an adapted task, which may be from elsewhere.

        Where the file holds examples, the task is adapted to them anew, and can change. Their inputs are known as the
        model sees them alone: a correction finds arrays and rows among them, and adds to them what is a text or image.
        Those with columns of their own are known as they were given.

        Raises `ArtifactError` if it is none, or its model is not here, and `DataError` for a task with columns of its
        own without its rows.
        """
        return self._transfers.take_in(name, content, Terms(tenant, actor, key=idempotency_key))

    def _version(self, task: str, number: int | None, tenant: str) -> Version:
        """A version that is no tombstone, the head by default."""
        if number is None:
            return self.store.head(tenant, task)
        with self.store.reading(tenant) as rows:
            rows.task(task)
            wanted = rows.version(task, number)
        check_there(wanted)
        return wanted

    def _now(self) -> int:
        return self._clock() // 10**6


def _shown(example: Example, version: Version) -> LabeledInput:
    value = (
        kept.encoded_tensor(example.encoded)
        if example.media == "encoded"
        else kept.value(kept.Written(example.media, example.content))
    )
    label = example.label if version.labels is not None else tuple(json.loads(example.label))
    return LabeledInput(example.id, value, label)
