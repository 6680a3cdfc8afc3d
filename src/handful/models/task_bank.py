"""Thousands of adapted tasks of one meta-model in memory, replaced and predicted by any number of threads."""

import json
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from handful.errors import HandfulError, UserError
from handful.functional.own_settings import own_settings
from handful.models import batches
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.types import Prediction

Key = TypeVar("Key", bound=Hashable)

SMALLEST_SLAB, LARGEST_SLAB = 8, 256
"""The number of states in a slab: the current number of that shape, within these bounds."""


@dataclass
class BankCounts:
    """What a bank did since the start.

    hits: predictions whose state the bank held.
    misses: predictions for which it loaded the state.
    evictions: states that it dropped to make room.
    evicted_seconds: how long it had held the dropped states, summed.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    evicted_seconds: float = 0.0


class TaskBank(Generic[Key]):
    """Predict with thousands of adapted tasks of one meta-model, many at once.

    A bank maps keys of the caller's choice to states; it keeps no supports. All methods are safe to call from several
    threads. A prediction uses one version of a task even if `put` replaces the task meanwhile: `put` writes the new
    state to a slot of its own and then moves the key, and the old slot is reused once no prediction reads it. States
    lie in slabs of fixed size, so `put` never copies other states; empty slabs are freed.

    model: the meta-model of all tasks.
    max_bytes: memory for states; above it the least recently used ones are dropped. None: no limit.
    load: called with a key that the bank does not hold; returns its task or raises a `HandfulError`. Threads that ask
        for the same key at once cause one call. None: such a key is an error.

    Attributes:
        nbytes: bytes of the states held.
        counts: hits, misses and evictions since the start.

    Raises `UserError` for `max_bytes` without `load`: a dropped task could not be loaded again.

    Example:
        >>> from handful.learners.prototypical import PrototypicalNetwork
        >>> from handful.types import TaskSpec
        >>> model = MetaModel(PrototypicalNetwork.build(TaskSpec("classification", (2,), 2), backbone="linear"))
        >>> bank = TaskBank(model)
        >>> bank.put("shelf 12", model.adapt(torch.tensor([[0.0, 0.1], [1.0, 0.9]]), ["apple", "pear"]))
        >>> bank.put("shelf 13", model.adapt(torch.tensor([[0.5, 0.0], [0.0, 0.5]]), ["plum", "fig"]))
        >>> one, two = bank.predict([("shelf 12", torch.tensor([[1.0, 1.0]])), ("shelf 13", torch.zeros(3, 2))])
        >>> one.logits.argmax(-1).tolist(), tuple(two.logits.shape)  # of classes in the order of `labels`
        ([1], (3, 2))
    """

    def __init__(
        self,
        model: MetaModel,
        *,
        max_bytes: int | None = None,
        load: Callable[[Key], AdaptedTask] | None = None,
    ) -> None:
        if max_bytes is not None and load is None:
            raise UserError("A bank with max_bytes drops tasks and needs load to restore them. Set both.")
        self.model, self.max_bytes = model, max_bytes
        self.nbytes, self.counts = 0, BankCounts()
        self._load = load
        self._lock = threading.Lock()
        self._slots: OrderedDict[Key, _Slot] = OrderedDict()  # the least recently asked for first
        self._slabs: dict[batches.StateKind, list[_Slab]] = defaultdict(list)
        self._loading: dict[Key, _Turn] = {}

    def __len__(self) -> int:
        """The number of tasks that it holds."""
        return len(self._slots)

    def __contains__(self, key: object) -> bool:
        """Whether it holds the task of this key in memory; one that it would have to load does not count."""
        return key in self._slots

    @own_settings()
    def put(self, key: Key, task: AdaptedTask) -> None:
        """Hold a task under this key, in place of the one that it had.

        Raises `UserError` for a task of another meta-model, and `ArtifactError` for an invalid state.
        """
        slot = self._written(task)
        with self._lock:
            self._move(key, slot)

    def remove(self, key: Key) -> bool:
        """Drop the task of this key; returns whether the bank had it."""
        with self._lock:
            slot = self._slots.pop(key, None)
            if slot is not None:
                self._retire(slot)
        return slot is not None

    def model_of(self, key: Key) -> MetaModel:
        """The model with the pipeline for the inputs of a task, see `MetaModel.for_task`; errors as in `predict`."""
        slot = self._pinned(key)
        with self._lock:
            slot.readers -= 1
            self._free(slot)
        return slot.model

    @own_settings()
    def predict(self, requests: Sequence[tuple[Key, Tensor]]) -> list[Prediction | HandfulError]:
        """Predict the inputs of each request by the task of its key, together where their states have equal shapes.

        requests: key and inputs `(n, *input_shape)`; n may differ and be 0, and a key may come several times.

        Returns what `MetaModel.predict` does, to rounding; or in its place the error about this request alone: an
        unknown key, inputs that do not fit, a prediction that is not finite, or what `load` raised.
        """
        found: dict[int, Prediction | HandfulError] = {}
        pinned: dict[int, _Slot] = {}
        ready: dict[int, Tensor] = {}
        try:
            together = self._checked([inputs for _, inputs in requests])
            for number, (key, inputs) in enumerate(requests):
                try:
                    ready[number] = self.model.checked_inputs(inputs) if together is None else together[number]
                    pinned[number] = self._pinned(key)
                except HandfulError as error:
                    found[number] = error
            with torch.no_grad():
                predictions = batches.predict(
                    self.model.learner,
                    [slot.state for slot in pinned.values()],
                    [ready[number] for number in pinned],
                    [requests[number][0] for number in pinned],
                )
            for (number, slot), prediction in zip(pinned.items(), predictions, strict=True):
                if slot.slab.written[slot.row] is not slot:  # it would be another task's answer
                    found[number] = HandfulError(f"The state of {requests[number][0]!r} was lost. Predict again.")
                elif isinstance(prediction, HandfulError):
                    found[number] = prediction
                else:
                    found[number] = slot.model.in_units(prediction)
        finally:
            with self._lock:
                for slot in pinned.values():
                    slot.readers -= 1
                    self._free(slot)
        return [found[number] for number in range(len(requests))]

    def _checked(self, inputs: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """The inputs of all requests, checked at once in the common case; None if some may be invalid."""
        kinds = {(type(one), one.dtype, one.device, one.shape[1:]) for one in inputs if isinstance(one, Tensor)}
        if len(kinds) != 1 or not all(
            isinstance(one, Tensor) and one.ndim and not one.is_inference() for one in inputs
        ):
            return None
        try:
            checked = self.model.checked_inputs(torch.cat(list(inputs)))
        except HandfulError:
            return None
        return torch.split(checked, [one.shape[0] for one in inputs])

    # Slots. Everything below but `_written` and `_pinned` is called with the lock held.

    def _pinned(self, key: Key) -> "_Slot":
        """The slot of a key, which is not reused while it is read; loaded first if needed."""
        with self._lock:
            if (slot := self._pin(key)) is not None:
                return slot
            if self._load is None:
                raise UserError(f"The bank holds no task {key!r}. Put it first.", code="not-found")
            turn = self._loading.setdefault(key, _Turn())
            turn.waiting += 1
        try:
            with turn.lock:
                with self._lock:
                    if (slot := self._pin(key)) is not None:
                        return slot
                slot = self._written(self._load(key))
                slot.readers += 1  # before the key moves: it may be dropped at once for others
                with self._lock:
                    self.counts.misses += 1
                    self._move(key, slot)
                return slot
        finally:
            with self._lock:
                turn.waiting -= 1
                if not turn.waiting:
                    self._loading.pop(key, None)

    def _written(self, task: AdaptedTask) -> "_Slot":
        """A new slot with the state of a task, without a key yet."""
        self.model.check(task)
        model, state = self.model.for_task(task), self.model.on_device(task.state)
        parts = batches.State.of(state)
        with self._lock:
            slabs = self._slabs[parts.kind]
            kind = slabs[0].kind if slabs else parts.kind  # one object: states with it are found alike at once
            slab = next((slab for slab in slabs if slab.free), None)
            if slab is None:
                slab = _Slab(kind, parts, min(LARGEST_SLAB, max(SMALLEST_SLAB, sum(slab.size for slab in slabs))))
                slabs.append(slab)
            row = slab.free.pop()
        own = batches.State(kind, tuple(leaf[row] for leaf in slab.leaves))
        nbytes = sum(leaf.nbytes for leaf in parts.leaves)
        if task.pipeline is not None:
            nbytes += len(json.dumps(task.pipeline))  # about what its columns take
        slot = _Slot(slab, row, own, model, nbytes)
        slab.written[row] = slot
        for into, leaf in zip(own.leaves, parts.leaves, strict=True):
            into.copy_(leaf)
        return slot

    def _pin(self, key: Key) -> "_Slot | None":
        slot = self._slots.get(key)
        if slot is not None:
            self._slots.move_to_end(key)
            self.counts.hits += 1
            slot.readers += 1
        return slot

    def _move(self, key: Key, slot: "_Slot") -> None:
        """Give a key its new slot, and drop what has become too much."""
        old = self._slots.pop(key, None)
        self._slots[key] = slot
        self.nbytes += slot.nbytes
        if old is not None:
            self._retire(old)
        while self.max_bytes is not None and self.nbytes > self.max_bytes and len(self._slots) > 1:
            dropped = self._slots.popitem(last=False)[1]
            self.counts.evictions += 1
            self.counts.evicted_seconds += time.monotonic() - dropped.since
            self._retire(dropped)

    def _retire(self, slot: "_Slot") -> None:
        """Detach a slot from its key; current readers continue."""
        slot.retired = True
        self.nbytes -= slot.nbytes
        self._free(slot)

    def _free(self, slot: "_Slot") -> None:
        """Free a slot without a key and readers."""
        if slot.retired and not slot.readers:
            slot.retired = False
            slab = slot.slab
            slab.free.append(slot.row)
            if len(slab.free) == slab.size:  # else the bank would keep the memory of shapes that are not used any more
                self._slabs[slab.kind].remove(slab)


class _Slab:
    """States of one shape `(size, ...)`, which rows are free, and whose state was written last to each."""

    def __init__(self, kind: batches.StateKind, like: batches.State, size: int) -> None:
        self.size, self.kind = size, kind
        self.leaves = [leaf.new_empty(size, *leaf.shape) for leaf in like.leaves]
        self.free = list(range(size))
        self.written: list[_Slot | None] = [None] * size


@dataclass(eq=False)
class _Slot:
    """A row of a slab.

    state: a view of the row, not a copy.
    model: in whose units it predicts.
    readers: predictions that read it now.
    since: when it was written.
    """

    slab: _Slab
    row: int
    state: batches.State
    model: MetaModel
    nbytes: int
    readers: int = 0
    retired: bool = False
    since: float = field(default_factory=time.monotonic)


class _Turn:
    """The lock of loading a key, and the number of threads that wait for it or hold it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting = 0
