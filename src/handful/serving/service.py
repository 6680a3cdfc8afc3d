"""What can be done with the tasks of a store: one method for each use, without HTTP and without SQL."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from handful.errors import ArtifactError, HandfulError, UserError
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.models.results import results
from handful.models.task_bank import TaskBank
from handful.notes import Note, collecting
from handful.pipelines.pipeline import InputPipeline
from handful.serving import inputs as kept
from handful.serving.names import checked_name
from handful.serving.records import Example, LabeledInput, Predictions, TaskRecord, Version
from handful.serving.rows import Rows
from handful.serving.store import Store
from handful.serving.supports import adapted, added, corrected, encoded, labeled, prepared

TRIES = 16
"""How often a change is made anew because others changed the task meanwhile."""

Key = tuple[str, str, int]
"""Tenant, task and version."""

Edit = Callable[[list[Example]], list[Example]]
"""From the examples of a version to those of the next."""


class Service:
    """Tasks adapted from the examples of many tenants, kept in a store with all their versions.

    Safe to use from many threads. A change is durable once its method has returned. No method shows whether another
    tenant has something.

    models: the model that new tasks are adapted from, or several by name, each a `MetaModel`, its folder or its run.
    store: a `Store`, which stays open when the service closes, or its folder.
    trust: see `MetaModel.from_pretrained`.
    max_bytes: of the states of one model that are held in memory.
    clock: the time in nanoseconds since 1970.

    Most methods take `tenant`, whose task it is, and those that change one `actor`, who is named in its versions and
    in the audit. `expected` is the version that a task has to be at, else `UserError`.

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
        max_bytes: int = 512 * 2**20,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        named = models if isinstance(models, Mapping) else {"default": models}
        if not named:
            raise UserError("The service has no model. Give one at least.")
        self._trust, self._max_bytes, self._clock = trust, max_bytes, clock
        self.models = {name: _checked(_loaded(model, trust)) for name, model in named.items()}
        self._banks: dict[str, TaskBank[Key]] = {}
        self._opening = threading.Lock()
        self._owns = not isinstance(store, Store)
        self.store = store if isinstance(store, Store) else Store(store)
        for model in self.models.values():
            self._bank_of(model)

    def close(self) -> None:
        """Finish what is being written, and close the store if it was opened here."""
        if self._owns:
            self.store.close()

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
        tenant: str = "default",
        actor: str = "local",
    ) -> TaskRecord:
        """Adapt a new task to examples.

        name: unlike those of the tenant's other tasks that are not deleted.
        inputs: texts, rows, arrays, or images as the bytes of their files: whatever the model's pipeline reads.
        labels: class names `(n,)`, or targets `(n,)` or `(n, outputs)`.
        model: the name of one; may be left out where there is but one.
        keep_examples: whether the store keeps the examples, without which the task cannot change.

        Raises `DataError` for examples that cannot be used, and `UserError` for a name that is taken.
        """
        name, (of_model, meta) = checked_name(name), self._named(model)
        with collecting() as notes:
            examples = added([], labeled(meta, inputs, labels, self.store.ids), classification=meta.spec.classification)
            task = adapted(meta, examples)
        id_, at, content = self.store.ids.new("task"), self._now(), task.to_bytes()

        def insert(rows: Rows) -> TaskRecord:
            if not rows.has_model(meta.digest):
                rows.insert_model(meta.digest, meta.to_bytes())
            rows.insert_task(id_, name, keep_examples=keep_examples, at=at)
            if keep_examples:
                rows.insert_examples(id_, examples, at)
            support = [example.id for example in examples] if keep_examples else []
            facts = _facts(task, content) | {"parent": None, "change": "created", "actor": actor, "created_at": at}
            rows.insert_version(id_, 1, support, model=of_model, **facts)
            rows.set_head(id_, 1)
            rows.log(at, actor, "created", id_, 1)
            return rows.task(id_)

        record = self.store.write(tenant, insert)
        self._bank_of(meta).put((tenant, id_, 1), task)
        return _with(record, notes)

    def add(
        self,
        task: str,
        inputs: Sequence[Any],
        labels: Any,
        *,
        expected: int | None = None,
        tenant: str = "default",
        actor: str = "local",
    ) -> TaskRecord:
        """Adapt a task anew to its examples and more of them, of which new classes may be.

        inputs, labels: as for `create`. Inputs with labels that the task has already are left out, with a note;
        `DataError` where they have another label.
        """
        return self._with_labels(task, inputs, labels, "added", added, expected, tenant, actor)

    def correct(
        self,
        task: str,
        inputs: Sequence[Any],
        labels: Any,
        *,
        expected: int | None = None,
        tenant: str = "default",
        actor: str = "local",
    ) -> TaskRecord:
        """Adapt a task anew with these labels: in place of others for inputs among its examples, else added to them.

        inputs, labels: as for `create`.
        """

        def edit(support: Sequence[Example], new: Sequence[Example], *, classification: bool) -> list[Example]:
            return corrected(support, new)

        return self._with_labels(task, inputs, labels, "corrected", edit, expected, tenant, actor)

    def remove(
        self,
        task: str,
        examples: Sequence[str],
        *,
        expected: int | None = None,
        tenant: str = "default",
        actor: str = "local",
    ) -> TaskRecord:
        """Adapt a task anew without the examples of these ids; earlier versions keep them, see `erase`.

        Raises `UserError` for unknown ids, and `DataError` where too few examples are left.
        """

        def edit(support: list[Example]) -> list[Example]:
            unknown = sorted(set(examples) - {example.id for example in support})
            if unknown:
                raise UserError(f"The task has no example {unknown[0]!r}.", code="not-found")
            return [example for example in support if example.id not in examples]

        return self._changed(task, "removed", edit, expected, tenant, actor)

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

        Raises `UserError` where there is no such version, or it was erased.
        """
        for tries in range(TRIES, 0, -1):
            with self.store.reading(tenant) as rows:
                head, wanted = rows.task(task).head, rows.version(task, version)
            _check(head, expected)
            _check_there(wanted)
            if version == head.number:
                return self.get(task, tenant=tenant)
            state = self._load((tenant, task, version)).to_bytes()  # the head's state is never dropped
            try:
                return self.store.write(
                    tenant, partial(self._move, task=task, head=head.number, to=version, state=state, actor=actor)
                )
            except UserError as error:
                if error.code != "version-conflict" or expected is not None or tries == 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def delete(self, task: str, *, tenant: str = "default", actor: str = "local") -> None:
        """Delete a task; it can be restored, and its name is free."""

        def work(rows: Rows) -> None:
            head = rows.task(task).head
            rows.set_deleted(task, self._now())
            rows.log(self._now(), actor, "deleted", task, head.number)

        self.store.write(tenant, work)

    def restore(self, task: str, *, tenant: str = "default", actor: str = "local") -> TaskRecord:
        """Bring a deleted task back; `UserError` where its name was given to another one meanwhile."""

        def work(rows: Rows) -> TaskRecord:
            record = rows.task(task, deleted=True)
            if record.deleted_at is not None:
                rows.check_free(record.name)
                rows.set_deleted(task, None)
                rows.log(self._now(), actor, "restored", task, record.head.number)
            return rows.task(task)

        return self.store.write(tenant, work)

    # Looking

    def get(self, task: str, *, tenant: str = "default") -> TaskRecord:
        """A task; `UserError` where there is none."""
        with self.store.reading(tenant) as rows:
            return rows.task(task)

    def tasks(self, *, limit: int = 100, after: str = "", tenant: str = "default") -> list[TaskRecord]:
        """Tasks that are not deleted, from the oldest. after: the id of the last one seen."""
        with self.store.reading(tenant) as rows:
            return rows.tasks(limit, after)

    def versions(self, task: str, *, tenant: str = "default") -> Sequence[Version]:
        """All versions of a task, from the first."""
        with self.store.reading(tenant) as rows:
            rows.task(task)
            return rows.versions(task)

    def examples(self, task: str, version: int | None = None, *, tenant: str = "default") -> Sequence[LabeledInput]:
        """The examples of a version, the head by default; none where they are not kept, or the version was erased."""
        with self.store.reading(tenant) as rows:
            found = rows.version(task, rows.task(task).head.number if version is None else version)
            examples = rows.examples(task, found.number)
        return [_shown(example, found) for example in examples]

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

        Raises `UserError` where there is no such task or version, `DataError` for inputs that do not fit, and
        `DivergedError` where a prediction is not finite.
        """
        with self.store.reading(tenant) as rows:
            head = rows.task(task).head
            wanted = head if version is None else rows.version(task, version)
        _check_there(wanted)
        bank = self._bank(wanted.model_digest)
        made: tuple[Any, ...] = ()
        with collecting() as notes:
            if len(inputs):
                given = [kept.written(value, place) for place, value in enumerate(inputs)]
                tensor = prepared(bank.model, encoded(bank.model, given))
                [prediction] = bank.predict([((tenant, task, wanted.number), tensor)])
                if isinstance(prediction, HandfulError):
                    raise prediction
                made = tuple(results(wanted, prediction, top=top))
        return Predictions(task, wanted.number, wanted.model, wanted.model_digest, made, tuple(notes))

    # Changes, each a new version

    def _with_labels(
        self,
        task: str,
        inputs: Sequence[Any],
        labels: Any,
        change: str,
        edit: Callable[..., list[Example]],
        expected: int | None,
        tenant: str,
        actor: str,
    ) -> TaskRecord:
        meta = self._bank(self.get(task, tenant=tenant).head.model_digest).model
        with collecting() as notes:
            new = labeled(meta, inputs, labels, self.store.ids)
        whole = partial(edit, new=new, classification=meta.spec.classification)
        return _with(self._changed(task, change, whole, expected, tenant, actor), notes)

    def _changed(self, task: str, change: str, edit: Edit, expected: int | None, tenant: str, actor: str) -> TaskRecord:
        """The task with a new version on what an edit makes of its examples; as it is where they stay the same."""
        for tries in range(TRIES, 0, -1):
            with self.store.reading(tenant) as rows:
                record = rows.task(task)
                support = rows.examples(task, record.head.number)
            _check(record.head, expected)
            if not record.keep_examples:
                raise UserError(f"The examples of the task {record.name!r} are not kept, so that it cannot change.")
            with collecting() as notes:
                examples = edit(support)
                if examples == support:
                    return _with(record, notes)
                meta = self._bank(record.head.model_digest).model
                made = adapted(meta, examples)
            insert = partial(self._advance, record=record, examples=examples, made=made, change=change, actor=actor)
            try:
                result = self.store.write(tenant, insert)
            except UserError as error:
                if error.code != "version-conflict" or expected is not None or tries == 1:
                    raise
                continue
            bank = self._bank_of(meta)
            bank.put((tenant, task, result.head.number), made)
            bank.remove((tenant, task, record.head.number))
            return _with(result, notes)
        raise AssertionError("the last try returns or raises")

    def _advance(
        self,
        rows: Rows,
        record: TaskRecord,
        examples: Sequence[Example],
        made: AdaptedTask,
        change: str,
        actor: str,
    ) -> TaskRecord:
        """Write a new version, with those of its examples that are new, and make it the head."""
        task, at, number = record.id, self._now(), rows.last_number(record.id) + 1
        rows.task(task)  # it may have been deleted
        known = rows.known_examples(task, [example.id for example in examples])
        rows.insert_examples(task, [example for example in examples if example.id not in known], at)
        facts = _facts(made, made.to_bytes()) | {"parent": record.head.number, "change": change}
        facts |= {"actor": actor, "created_at": at, "model": record.head.model}
        rows.insert_version(task, number, [example.id for example in examples], **facts)
        rows.set_head(task, number, expected=record.head.number)
        rows.drop_old_states(task, number)
        rows.log(at, actor, change, task, number)
        return rows.task(task)

    def _move(self, rows: Rows, task: str, head: int, to: int, state: bytes, actor: str) -> TaskRecord:
        """Make an earlier version the head, with its state, which may have been dropped."""
        rows.task(task)
        _check_there(rows.version(task, to))
        rows.set_state(task, to, state, _digest(state))
        rows.set_head(task, to, expected=head)
        rows.log(self._now(), actor, "rolled-back", task, to)
        return rows.task(task)

    # States and models

    def _load(self, key: Key) -> AdaptedTask:
        """The state of a version: as stored, or where that was dropped or altered adapted again."""
        tenant, task, number = key
        with self.store.reading(tenant) as rows:
            version, state = rows.version(task, number), rows.state(task, number)
            _check_there(version)
            if state is not None and _digest(state) == version.digest:
                return AdaptedTask.from_bytes(state, source=f"Version {number} of the task {task}")
            examples = rows.examples(task, number)
        if not examples:
            raise ArtifactError(
                f"Version {number} of the task {task} is damaged, and its examples were not kept. Restore a backup."
            )
        made = adapted(self._bank(version.model_digest).model, examples)
        if state is not None:
            content = made.to_bytes()

            def repair(rows: Rows) -> None:
                rows.set_state(task, number, content, _digest(content))
                rows.log(self._now(), "service", "repaired", task, number)

            self.store.write(tenant, repair)
        return made

    def _named(self, name: str | None) -> tuple[str, MetaModel]:
        if name is None and len(self.models) == 1:
            [name] = self.models
        if name not in self.models:
            raise UserError(
                f"{'Which model?' if name is None else f'There is no model {name!r}.'} Give one of: "
                f"{', '.join(self.models)}.",
                code="unknown-name",
            )
        return name, self.models[name]

    def _bank(self, digest: str) -> TaskBank[Key]:
        """The states of a model in use, which is loaded from the store where it is no more among those given."""
        if digest not in self._banks:
            with self.store.reading("") as rows:
                content = rows.model(digest)
            if content is None:
                raise ArtifactError(f"The store lacks the model {digest[:8]}.", code="missing-artifact")
            self._bank_of(MetaModel.from_bytes(content, trust=self._trust, source=f"The store's model {digest[:8]}"))
        return self._banks[digest]

    def _bank_of(self, model: MetaModel) -> TaskBank[Key]:
        with self._opening:
            if model.digest not in self._banks:
                self._banks[model.digest] = TaskBank(model, max_bytes=self._max_bytes, load=self._load)
            return self._banks[model.digest]

    def _now(self) -> int:
        return self._clock() // 10**6


def _loaded(model: MetaModel | str | Path, trust: Sequence[str]) -> MetaModel:
    return model if isinstance(model, MetaModel) else MetaModel.from_pretrained(model, trust=trust)


def _checked(model: MetaModel) -> MetaModel:
    if model.pipeline is not None and type(model.pipeline).of_task is not InputPipeline.of_task:
        raise UserError(
            "Each task of this model is a table with columns of its own, and a store keeps tasks of one set of columns "
            "only. Use `MetaModel.adapt`."
        )
    return model


def _facts(task: AdaptedTask, content: bytes) -> dict[str, Any]:
    """What the row of a version holds of its state."""
    return {
        "model_digest": task.model_digest,
        "labels": None if task.labels is None else json.dumps(task.labels),
        "targets": json.dumps(task.targets),
        "examples": task.examples,
        "digest": _digest(content),
        "state": content,
    }


def _digest(state: bytes) -> str:
    return "sha256:" + hashlib.sha256(state).hexdigest()


def _with(record: TaskRecord, notes: Sequence[Note] | Any) -> TaskRecord:
    return replace(record, notes=(*notes, *record.notes))


def _check(head: Version, expected: int | None) -> None:
    if expected is not None and head.number != expected:
        raise UserError(f"The task is at version {head.number}, not {expected}. Look again.", code="version-conflict")


def _check_there(version: Version) -> None:
    if version.erased_at is not None:
        raise UserError(f"Version {version.number} was erased. Choose another one.", code="not-found")


def _shown(example: Example, version: Version) -> LabeledInput:
    value = (
        kept.encoded_tensor(example.encoded)
        if example.media == "encoded"
        else kept.value(kept.Written(example.media, example.content))
    )
    label = example.label if version.labels is not None else tuple(json.loads(example.label))
    return LabeledInput(example.id, value, label)
