"""The states of versions: in memory, as stored, or adapted again; and the models that they are of."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from handful.errors import ArtifactError, HandfulError, UserError
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.models.task_bank import TaskBank
from handful.notes import collecting
from handful.serving.own_columns import own_columns
from handful.serving.records import Example, Version
from handful.serving.rows import Rows
from handful.serving.store import Store
from handful.serving.supports import adapted
from handful.types import Prediction

Key: TypeAlias = tuple[str, str, int]
"""Tenant, task and version."""

ERASED = 65_536
"""So many of the versions that were erased last are known: those that may be being loaded."""


class States:
    """The states of all versions of a store.

    models: by name, from which new tasks are adapted; those of earlier tasks are in the store.
    trust, max_bytes: see `Service`.
    now: the time in milliseconds.

    Attributes:
        adapt_seconds: that threads have spent on adapting.
    """

    def __init__(
        self,
        models: Mapping[str, MetaModel],
        store: Store,
        *,
        trust: Sequence[str],
        max_bytes: int,
        now: Callable[[], int],
    ) -> None:
        self._store, self._trust, self._max_bytes, self._now = store, trust, max_bytes, now
        self._banks: dict[str, TaskBank[Key]] = {}
        self._erased: dict[Key, None] = {}
        self._opening, self._counting = threading.Lock(), threading.Lock()
        self.adapt_seconds = 0.0
        self.models = models
        for model in self.models.values():
            self._bank_of(model)

    def named(self, name: str | None) -> tuple[str, MetaModel]:
        """The model of this name, or the only one; `UserError` if it does not exist or is ambiguous."""
        if name is None and len(self.models) == 1:
            [name] = self.models
        if name is None or name not in self.models:
            unknown = f"The model {name!r:.80} does not exist, only"
            what = "The service has several models" if name is None else unknown
            raise UserError(
                f"{what}: {', '.join(self.models)}.",
                code="unknown-name",
                field=("model",),
                hint="Choose one with {model}.",
            )
        return name, self.models[name]

    def model(self, digest: str) -> MetaModel:
        """A model in use."""
        return self._bank(digest).model

    def model_of(self, digest: str, key: Key) -> MetaModel:
        """The model that reads the inputs of a version: with its own pipeline, if tasks have columns of their own."""
        bank = self._bank(digest)
        if not own_columns(bank.model):
            return bank.model
        model = bank.model_of(key)
        if key in self._erased:
            bank.remove(key)
            raise _erased(key[2])
        return model

    @property
    def banks(self) -> Sequence[TaskBank[Key]]:
        """The states that are in memory, those of each model by themselves."""
        return list(self._banks.values())

    def holds(self, digest: str, key: Key) -> bool:
        """Whether the state of a version of a model's task is in memory now."""
        bank = self._banks.get(digest)
        return bank is not None and key in bank

    def adapt(self, model: MetaModel, examples: Sequence[Example]) -> AdaptedTask:
        """The task that a model makes of examples; see `adapted`."""
        started = time.monotonic()
        made = adapted(model, examples)
        with self._counting:
            self.adapt_seconds += time.monotonic() - started
        return made

    def predict(self, digest: str, requests: Sequence[tuple[Key, Tensor]]) -> list[Prediction | HandfulError]:
        """What versions of a model's tasks predict, or the error about one of them; see `TaskBank.predict`."""
        bank = self._bank(digest)
        found = bank.predict(requests)
        if self._erased:
            for number, (key, _) in enumerate(requests):
                if key in self._erased:  # it may have been loaded just before
                    bank.remove(key)
                    found[number] = _erased(key[2])
        return found

    def hold(self, key: Key, task: AdaptedTask, *, instead: int | None = None) -> None:
        """Have the state of a version in memory, instead of that of another version of the same task."""
        bank = self._bank(task.model_digest)
        bank.put(key, task)
        if key in self._erased:  # meanwhile
            bank.remove(key)
        if instead is not None:
            self._forget((key[0], key[1], instead))

    def erase(self, keys: Iterable[Key]) -> None:
        """Forget the states of versions that were erased for good, also where one is being loaded."""
        gone = dict.fromkeys(keys)
        with self._opening:
            self._erased |= gone
            while len(self._erased) > max(ERASED, len(gone)):
                del self._erased[next(iter(self._erased))]
        self.forget(gone)

    def forget(self, keys: Iterable[Key]) -> None:
        """Read the states of versions anew when they are asked for again."""
        for key in keys:
            self._forget(key)

    def load(self, key: Key) -> AdaptedTask:
        """The state of a version: as stored, or where that was dropped or altered adapted again."""
        tenant, task, number = key
        with self._store.reading(tenant) as rows:
            version, state = rows.version(task, number), rows.state(task, number)
            check_there(version)
            if state is not None and digest_of(state) == version.digest:
                return AdaptedTask.from_bytes(state, source=f"Version {number} of the task {task}")
            examples = rows.examples(task, number)
        if not examples:
            raise ArtifactError(
                f"Version {number} of the task {task} is damaged, and its examples are not stored. Restore a backup."
            )
        with collecting():  # the user has had these notes, and a log is not for them
            made = self.adapt(self.model(version.model_digest), examples)
        if state is not None:
            self._repair(key, made.to_bytes())
        return made

    def _forget(self, key: Key) -> None:
        for bank in self.banks:
            bank.remove(key)

    def _repair(self, key: Key, state: bytes) -> None:
        tenant, task, number = key

        def work(rows: Rows) -> None:
            rows.set_state(task, number, state, digest_of(state))
            rows.log(self._now(), "service", "repaired", task, number)

        self._store.write(tenant, work)

    def _bank(self, digest: str) -> TaskBank[Key]:
        """The states of a model, which is loaded from the store where it is not among those given."""
        if digest not in self._banks:
            with self._opening:
                if digest not in self._banks:
                    self._bank_of(self._stored(digest))
        return self._banks[digest]

    def _stored(self, digest: str) -> MetaModel:
        with self._store.reading("") as rows:
            content = rows.model(digest)
        if content is None:
            raise ArtifactError(f"The store lacks the model {digest[:8]}.", code="missing-artifact")
        return MetaModel.from_bytes(content, trust=self._trust, source=f"The store's model {digest[:8]}")

    def _bank_of(self, model: MetaModel) -> None:
        if model.digest not in self._banks:
            self._banks[model.digest] = TaskBank(model, max_bytes=self._max_bytes, load=self.load)


def opened_model(given: MetaModel | str | Path, trust: Sequence[str]) -> MetaModel:
    """A model to adapt tasks from, given it or its path.

    trust: see `Service`.
    """
    return given if isinstance(given, MetaModel) else MetaModel.from_pretrained(given, trust=trust)


def digest_of(state: bytes) -> str:
    """What a stored state is known by."""
    return "sha256:" + hashlib.sha256(state).hexdigest()


def check_there(version: Version) -> None:
    """Raise `UserError` if a version is a tombstone."""
    if version.erased_at is not None:
        raise _erased(version.number)


def _erased(number: int) -> UserError:
    return UserError(f"Version {number} was erased. Choose another one.", code="not-found")
