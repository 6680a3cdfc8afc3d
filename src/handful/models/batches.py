"""Many tasks at once: their states stacked by shape, so that one call adapts or predicts for hundreds of them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils import _pytree as pytree

from handful.engine.cost import query_bytes
from handful.engine.memory import enough_memory
from handful.engine.over_tasks import over_tasks
from handful.engine.parts import NUMBERS_AT_ONCE, numbers_of_example
from handful.engine.plan import Plan
from handful.engine.planner import rule
from handful.engine.threads import cores
from handful.errors import DataError, DivergedError, HandfulError, UserError
from handful.learners.learner import Learner
from handful.types import Examples, Prediction, TaskSpec, TaskState, to_device

ALONE = Plan("loop", 1)
"""The size of a request above which `vmap` takes longer than the prediction."""
NUMBER = 4
"""Bytes of a number."""
FEWER = "Predict fewer at once."

NOT_FINITE = "Example {row} holds NaN or infinity. Remove it or fill in the missing value."
DIVERGED = (
    "No finite prediction{whose}: adapting to its examples diverged. Look for extreme values among examples and "
    "inputs, or train the model again with a lower inner_lr or outer_lr."
)


@dataclass(frozen=True)
class StateKind:
    """The key of states that can be stacked: their structure, and shape, type and place of each leaf."""

    structure: pytree.TreeSpec
    leaves: tuple[tuple[torch.Size, torch.dtype, torch.device], ...]

    def __hash__(self) -> int:
        """Computed once: hundreds of states a second are grouped by their kind."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.structure, self.leaves))


class State(NamedTuple):
    """The state of a task, taken apart so that hundreds are stacked at once.

    leaves: its tensors.
    """

    kind: StateKind
    leaves: tuple[Tensor, ...]

    @classmethod
    def of(cls, state: TaskState) -> Self:
        """A state in its parts, which it shares."""
        leaves, structure = pytree.tree_flatten(state)
        kind = StateKind(structure, tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves))
        return cls(kind, tuple(leaves))

    @property
    def whole(self) -> TaskState:
        """The state itself."""
        return pytree.tree_unflatten(self.leaves, self.kind.structure)

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return sum(int(leaf.numel()) for leaf in self.leaves)


class _Piece(NamedTuple):
    """Queries `start` to `stop` of a request, predicted in one go; `size` counts one at least: networks need one."""

    size: int
    request: int
    start: int
    stop: int

    def of(self, inputs: Sequence[Tensor]) -> Tensor:
        """Its queries."""
        own = inputs[self.request]
        return own if self.stop - self.start == own.shape[0] else own[self.start : self.stop]


def predict(
    learner: Learner, states: Sequence[State], inputs: Sequence[Tensor], keys: Sequence[object]
) -> list[Prediction | HandfulError]:
    """The predictions of requests: inputs `(n, *input_shape)` each, by one state each; n may differ and be 0.

    Requests with states of equal shapes go together. Queries are padded to batch them, except for a learner that is not
    pointwise. A prediction that is not finite is replaced by a `DivergedError` with its key. Raises `HandfulError` if
    memory runs out. Here, as in `adapt`, tensors are moved to the learner's device, and results back to the CPU.
    """
    together = rule(learner, 1).backend == "vmap"
    sizes: dict[Any, int] = {}
    alike: dict[Any, list[_Piece]] = defaultdict(list)
    for request, (state, own) in enumerate(zip(states, inputs, strict=True)):
        kind = state.kind, own.dtype, own.device
        if kind not in sizes:
            sizes[kind] = _numbers_of_query(learner, state, own)
        count = own.shape[0]
        most = max(1, NUMBERS_AT_ONCE // sizes[kind] if learner.pointwise else count)
        for start in range(0, max(1, count), most):
            stop = min(start + most, count)
            piece = _Piece(max(1, stop - start), request, start, stop)
            alike[(kind, (together and learner.pointwise) or piece.size)].append(piece)
    found: list[dict[int, Prediction]] = [{} for _ in inputs]
    failed: set[int] = set()
    for (kind, _), pieces in alike.items():
        for batch in _small_enough(sorted(pieces), states[pieces[0].request].numbers, sizes[kind]):
            own_states, rows = [states[piece.request] for piece in batch], [piece.of(inputs) for piece in batch]
            with enough_memory(f"predicting {len(batch) * batch[-1].size} inputs", FEWER):
                stacked = _stacked(own_states, learner.device), _padded(rows).to(learner.device)
                made = _at_once(learner, *stacked, together=together)
                predictions = _with(made, (leaf.to("cpu") for leaf in made))
            finite = all(map(_all_finite, predictions))
            for piece, prediction in zip(batch, _unpadded(predictions, batch), strict=True):
                found[piece.request][piece.start] = prediction
                if not finite and not all(map(_all_finite, prediction)):
                    failed.add(piece.request)
    return [
        diverged(keys[request]) if request in failed else _joined([pieces[start] for start in sorted(pieces)])
        for request, pieces in enumerate(found)
    ]


def _at_once(learner: Learner, states: TaskState, inputs: Tensor, *, together: bool) -> Prediction:
    """The predictions `(tasks, n, ...)` by stacked states for inputs `(tasks, n, *input_shape)`.

    together: whether several tasks go together by the rule for the learner.
    """
    made = learner.predict_stacked(states, inputs) if together else None
    if made is None:
        plan = rule(learner, inputs.shape[0]) if inputs.shape[0] > 1 else ALONE
        made = over_tasks(learner.predict, (states, inputs), plan, learner)
    return made


def predict_one(learner: Learner, state: TaskState, inputs: Tensor) -> Prediction:
    """The prediction by one state for inputs `(n, *input_shape)`; `DivergedError` if it is not finite."""
    with torch.no_grad():
        [prediction] = predict(learner, [State.of(state)], [inputs], [None])
    if isinstance(prediction, HandfulError):
        raise prediction
    return prediction


def _small_enough(pieces: Sequence[_Piece], of_state: int, of_query: int) -> Iterator[Sequence[_Piece]]:
    """Ascending pieces in batches that fit into memory when padded to their last."""
    start = 0
    for end, piece in enumerate(pieces):
        each = of_state + piece.size * of_query
        if end > start and (end + 1 - start) * each > NUMBERS_AT_ONCE:
            yield pieces[start:end]
            start = end
    yield pieces[start:]


def _numbers_of_query(learner: Learner, state: State, inputs: Tensor) -> int:
    """The share of `NUMBERS_AT_ONCE` that each of these inputs `(n, *input_shape)` needs during prediction."""

    def predict(queries: Tensor) -> Prediction:
        return learner.predict(to_device(state.whole, learner.device), queries)

    taken = query_bytes(learner, state.kind, predict, inputs[:0].to(learner.device)) // NUMBER
    return max(numbers_of_example(inputs.shape[1:]), taken)


def adapt(learner: Learner, support: Examples, spec: TaskSpec) -> TaskState:
    """Stacked states `(tasks, ...)` of tasks with supports `(tasks, n, ...)`, as many as `parts` gives."""
    count = len(support.inputs)
    plan, threads = rule(learner, count), min(cores(), count)
    if plan.backend == "vmap" and threads > 1:
        plan = Plan("chunks", -(-count // threads), threads=threads)
    there = to_device(support, learner.device)
    states = over_tasks(lambda own: learner.adapt(own, spec), (there,), plan, learner)
    return pytree.tree_map(Tensor.contiguous, to_device(states, "cpu"))


def diverged(key: object = None) -> DivergedError:
    """The error about a prediction or state that is not finite, of one of many tasks by its key."""
    return DivergedError(DIVERGED.format(whose="" if key is None else f" of task {key}"), key)


def refuse_diverged(values: Prediction | TaskState) -> None:
    """Raise `DivergedError` if a prediction, or the state that predictions come from, is not finite."""
    if not finite(values):
        raise diverged()


def finite(values: Prediction | TaskState) -> bool:
    """Whether all numbers of a prediction or state are finite."""
    return all(map(_all_finite, pytree.tree_leaves(values)))


def named(error: UserError, task: int) -> UserError:
    """The error about the data of one of many tasks, which it names."""
    return error.about(f"Task {task}", "tasks", task)


def check_finite(examples: Tensor, message: str = NOT_FINITE) -> None:
    """Raise a `DataError` about the first of examples `(n, ...)` with NaN or infinity; `message` names the `row`."""
    if not _all_finite(examples):
        row = int((~torch.isfinite(examples)).flatten(1).any(1).nonzero()[0])
        raise DataError(message.format(row=row), code="non-finite")


def _all_finite(inputs: Tensor) -> bool:
    """A sum takes one pass and no memory; it may overflow, and then the numbers are looked at one by one."""
    return math.isfinite(inputs.sum().item()) or bool(inputs.isfinite().all())


def _stacked(states: Sequence[State], device: torch.device) -> TaskState:
    """States of one kind `(len(states), ...)`, there."""
    leaves = [torch.stack(own).to(device) for own in zip(*(state.leaves for state in states), strict=True)]
    return pytree.tree_unflatten(leaves, states[0].kind.structure)


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows `(n, ...)` of different numbers as `(len(rows), most, ...)`, with zeros after their end; one at least."""
    if len({own.shape[0] for own in rows}) == 1:
        padded = torch.stack(list(rows))
    else:
        padded = pad_sequence(list(rows), batch_first=True)
    return padded if padded.shape[1] else padded.new_zeros(len(rows), 1, *padded.shape[2:])


def _unpadded(predictions: Prediction, pieces: Sequence[_Piece]) -> Iterator[Prediction]:
    """The predictions `(stop - start, ...)` to each piece, out of `(pieces, most, ...)`."""
    sizes = [piece.stop - piece.start for piece in pieces]
    most, device = predictions[0].shape[1], predictions[0].device
    if min(sizes) == most:
        leaves = [leaf.flatten(0, 1) for leaf in predictions]
    else:
        asked = torch.arange(most, device=device) < torch.tensor(sizes, device=device).unsqueeze(1)  # (pieces, most)
        leaves = [leaf[asked] for leaf in predictions]
    return (_with(predictions, own) for own in zip(*(torch.split(leaf, sizes) for leaf in leaves), strict=True))


def _with(prediction: Prediction, leaves: Iterable[Tensor]) -> Prediction:
    """A prediction of the same type."""
    return type(prediction)(*leaves)


def _joined(predictions: Sequence[Prediction]) -> Prediction:
    """One after another."""
    if len(predictions) == 1:
        return predictions[0]
    return _with(predictions[0], (torch.cat(leaves) for leaves in zip(*predictions, strict=True)))
