"""Many tasks at once: their states stacked by shape, so that one call adapts or answers for hundreds of them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils import _pytree as pytree

from handful.engine.cost import query_bytes
from handful.engine.memory import enough_memory
from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.engine.planner import rule
from handful.engine.threads import cores
from handful.errors import DataError, DivergedError, HandfulError, UserError
from handful.evaluation.scoring import evaluating, predict_tasks
from handful.learners.learner import Learner
from handful.metrics import find_metric, finite_tasks
from handful.types import Examples, Prediction, Task, TaskSpec, TaskState, stack, take

NUMBERS_AT_ONCE = 2**23
"""How many numbers of examples and weights are worked on in one go: bounds the memory."""
FEATURES = 256
"""Numbers that an example counts for at least: where an input is small, its features are not."""
NUMBER = 4
"""Bytes of a number."""
FEWER = "Give fewer at once."

NOT_FINITE = "Example {row} holds NaN or infinity. Remove it or fill in the missing value."
DIVERGED = (
    "No finite prediction{whose}: adapting to its examples diverged. Look for extreme values among examples and "
    "inputs, or train the model again with a lower inner_lr or outer_lr."
)


class Group(NamedTuple):
    """Tasks whose states have equal shapes. states: stacked `(tasks, ...)`. members: which task each of them is of."""

    states: TaskState
    members: list[int]


class _Piece(NamedTuple):
    """Queries `start` to `stop` of a request, answered in one go; `size` counts one at least, for networks need one."""

    size: int
    request: int
    start: int
    stop: int

    def of(self, inputs: Sequence[Tensor]) -> Tensor:
        """Its queries."""
        own = inputs[self.request]
        return own if self.stop - self.start == own.shape[0] else own[self.start : self.stop]


@dataclass(frozen=True, eq=False)
class StackedStates:
    """The states of tasks 0, 1, ..., stacked by shape; made once and never changed.

    groups: in each, members ascend. places: group and row of each task.
    """

    groups: list[Group]
    places: list[tuple[int, int]]

    @classmethod
    def of(cls, parts: Iterable[Group]) -> Self:
        """Put together parts that hold each of the tasks once; those of equal shapes become one group."""
        alike: dict[Any, list[Group]] = defaultdict(list)
        for part in parts:
            if part.members:
                alike[_shapes(part.states)].append(part)
        groups = [_merged(group) for group in alike.values()]
        places = {task: (g, row) for g, group in enumerate(groups) for row, task in enumerate(group.members)}
        return cls(groups, [places[task] for task in range(len(places))])

    @classmethod
    def of_single(cls, states: Iterable[TaskState]) -> Self:
        """Stack the states of tasks 0, 1, ..."""
        return cls.of(Group(_alone(state), [task]) for task, state in enumerate(states))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, task: int) -> TaskState:
        """The state of one task, on its own: it does not keep the others in memory."""
        group, row = self.places[task]
        return pytree.tree_map(lambda leaf: leaf[row].clone(), self.groups[group].states)

    def joined(self, others: "StackedStates") -> "StackedStates":
        """These tasks and, after them, the others."""
        shifted = [Group(states, [len(self) + task for task in members]) for states, members in others.groups]
        return StackedStates.of([*self.groups, *shifted])

    def replaced(self, task: int, state: TaskState) -> "StackedStates":
        """The same with another state of one task."""
        group, row = self.places[task]
        states, members = self.groups[group]
        kept = [index for index in range(len(members)) if index != row]
        rest = Group(_gathered(states, kept, len(members)), [members[index] for index in kept])
        others = [other for index, other in enumerate(self.groups) if index != group]
        return StackedStates.of([*others, rest, Group(_alone(state), [task])])

    def predict(
        self, learner: Learner, answer: Callable[[TaskState, Tensor], Prediction], tasks: Sequence[int], inputs: Tensor
    ) -> Prediction:
        """Answers `(requests, n, ...)` to inputs `(requests, n, *input_shape)`, each by the state of one of `tasks`.

        answer: of one task. Raises `UserError` where the answers of tasks differ in shape, and `DivergedError` where
        one is not finite: stacked answers have no place for it.
        """
        check_all_finite(inputs, tasks)
        count = inputs.shape[1]
        if not count:
            one = self.predict(learner, answer, tasks, inputs.new_zeros(inputs.shape[0], 1, *inputs.shape[2:]))
            return _with(one, (leaf[:, :0] for leaf in one))
        with evaluating(learner), torch.no_grad():
            each = count * self._numbers_of_query(learner, answer, tasks, inputs[0])
        if each > NUMBERS_AT_ONCE:
            apart = []
            for found in self.predict_ragged(learner, answer, tasks, list(inputs)):
                if isinstance(found, HandfulError):
                    raise found
                apart.append(found)
            _check_stackable(apart)
            return stack(apart)
        by_group = self._by_group(tasks)
        answers = []
        with evaluating(learner), torch.no_grad():
            for group, (requests, rows) in by_group.items():
                own = inputs if len(by_group) == 1 else inputs[torch.tensor(requests)]
                for part in parts(len(rows), self._numbers(group) + each):
                    some = slice(part.start, part.stop)
                    answers.append(self._answered(learner, answer, group, rows[some], own[some]))
                    _check_answers(answers[-1], [tasks[request] for request in requests[some]])
        if len(answers) == 1:
            return answers[0]
        _check_stackable(answers)
        together = _joined(answers)
        if len(by_group) == 1:
            return together
        order = torch.tensor([request for requests, _ in by_group.values() for request in requests]).argsort()
        return _with(together, (leaf[order] for leaf in together))

    def predict_ragged(
        self,
        learner: Learner,
        answer: Callable[[TaskState, Tensor], Prediction],
        tasks: Sequence[int],
        inputs: Sequence[Tensor],
    ) -> list[Prediction | HandfulError]:
        """Answers to requests of different sizes: inputs `(n, *input_shape)`, each by the state of one of `tasks`.

        Queries are padded to batch them, but those of a learner that is not pointwise, for which they are not alike. A
        request whose inputs or answers are not finite has the error in its place.
        """
        padded = learner.pointwise and rule(learner, 1).backend == "vmap"
        sizes: dict[Any, int] = {}

        def of_query(task: int, own: Tensor) -> int:
            kind = self.places[task][0], own.dtype, own.device
            if kind not in sizes:
                with evaluating(learner), torch.no_grad():
                    sizes[kind] = self._numbers_of_query(learner, answer, [task], own)
            return sizes[kind]

        alike: dict[Any, list[_Piece]] = defaultdict(list)
        for request, (task, own) in enumerate(zip(tasks, inputs, strict=True)):
            count = own.shape[0]
            most = NUMBERS_AT_ONCE // of_query(task, own) if learner.pointwise else count
            for start in range(0, max(1, count), max(1, most)):
                stop = min(start + max(1, most), count)
                piece = _Piece(max(1, stop - start), request, start, stop)
                alike[(self.places[task][0], own.dtype, own.device, padded or piece.size)].append(piece)
        found: list[dict[int, Prediction]] = [{} for _ in inputs]
        failed: dict[int, HandfulError] = {}
        with evaluating(learner), torch.no_grad():
            for (group, *_), pieces in alike.items():
                of_example = of_query(tasks[pieces[0].request], inputs[pieces[0].request])
                for batch in self._batches(group, sorted(pieces), of_example):
                    asked = _padded([piece.of(inputs) for piece in batch])
                    if not _all_finite(asked):
                        failed |= _not_finite({piece.request for piece in batch}, tasks, inputs)
                        batch = [piece for piece in batch if piece.request not in failed]
                        if not batch:
                            continue
                        asked = _padded([piece.of(inputs) for piece in batch])
                    rows = [self.places[tasks[piece.request]][1] for piece in batch]
                    answers = self._answered(learner, answer, group, rows, asked)
                    finite = all(map(_all_finite, answers))
                    for piece, prediction in zip(batch, _unpadded(answers, batch), strict=True):
                        found[piece.request][piece.start] = prediction
                        if not finite and not all(map(_all_finite, prediction)):
                            failed[piece.request] = diverged(tasks[piece.request])
        return [
            failed[request] if request in failed else _joined([pieces[start] for start in sorted(pieces)])
            for request, pieces in enumerate(found)
        ]

    def _answered(
        self,
        learner: Learner,
        answer: Callable[[TaskState, Tensor], Prediction],
        group: int,
        rows: Sequence[int],
        inputs: Tensor,
    ) -> Prediction:
        states, members = self.groups[group]
        stacked = _gathered(states, rows, len(members)), inputs
        with enough_memory(f"predicting {inputs.shape[0] * inputs.shape[1]} inputs", FEWER):
            return over_tasks(answer, stacked, rule(learner, len(rows)), learner)  # type: ignore[no-any-return]

    def _batches(self, group: int, pieces: Sequence[_Piece], of_example: int) -> Iterator[Sequence[_Piece]]:
        """Ascending pieces in batches that are small enough when padded to their last."""
        start, of_state = 0, self._numbers(group)
        for end, piece in enumerate(pieces):
            each = of_state + piece.size * of_example
            if end > start and (end + 1 - start) * each > NUMBERS_AT_ONCE:
                yield pieces[start:end]
                start = end
        yield pieces[start:]

    def _by_group(self, tasks: Sequence[int]) -> dict[int, tuple[Sequence[int], Sequence[int]]]:
        """The requests of each group, and the rows of their tasks."""
        if tasks == range(len(self)):  # without a look at each of them
            return {index: (group.members, range(len(group.members))) for index, group in enumerate(self.groups)}
        found: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for request, task in enumerate(tasks):
            group, row = self.places[task]
            for items, item in zip(found[group], (request, row), strict=True):
                items.append(item)
        return dict(found)

    def _numbers_of_query(
        self, learner: Learner, answer: Callable[[TaskState, Tensor], Prediction], tasks: Sequence[int], own: Tensor
    ) -> int:
        """Numbers that each of a task's queries `(n, *input_shape)` takes."""
        group, row = self.places[tasks[0]]
        state = take(self.groups[group].states, row)
        return numbers_of_query(learner, answer, state, own)

    def _numbers(self, group: int) -> int:
        """Numbers of one state."""
        states, members = self.groups[group]
        return sum(int(leaf.numel()) for leaf in pytree.tree_leaves(states)) // len(members)


def predict(
    learner: Learner, answer: Callable[[TaskState, Tensor], Prediction], state: TaskState, inputs: Tensor
) -> Prediction:
    """Answers `(n, ...)` to inputs `(n, *input_shape)` by one state, in parts that fit into memory.

    answer: of one part. A learner that is not pointwise has them in one. Raises `HandfulError` where memory runs out.
    """
    with evaluating(learner), torch.no_grad(), enough_memory(f"predicting {len(inputs)} inputs", FEWER):
        if not learner.pointwise:
            return answer(state, inputs)
        size = max(1, NUMBERS_AT_ONCE // numbers_of_query(learner, answer, state, inputs))
        return _joined([answer(state, part) for part in torch.split(inputs, size)])


def numbers_of_query(
    learner: Learner, answer: Callable[[TaskState, Tensor], Prediction], state: TaskState, inputs: Tensor
) -> int:
    """What each of these inputs `(n, *input_shape)` takes of `NUMBERS_AT_ONCE` while it is predicted."""
    shape = inputs.shape[1:]
    return max(_numbers_of_example(shape), query_bytes(learner, answer, state, shape, inputs) // NUMBER)


def adapt(learner: Learner, support: Examples, spec: TaskSpec) -> TaskState:
    """Stacked states `(tasks, ...)` of tasks with supports `(tasks, n, ...)`, as many as `parts` gives."""
    count = len(support.inputs)
    plan, threads = rule(learner, count), min(cores(), count)
    if plan.backend == "vmap" and threads > 1:
        plan = Plan("chunks", -(-count // threads), threads=threads)
    with evaluating(learner), torch.no_grad():
        states = over_tasks(lambda own: learner.adapt(own, spec), (support,), plan, learner)
    return pytree.tree_map(Tensor.contiguous, states)


def left_out(learner: Learner, support: Examples, spec: TaskSpec, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The score of each example `(tasks, n)` by its task adapted without the example's group, and whether it diverged.

    groups: `(tasks, n)` numbers; no group is a whole task.
    """
    metric, (tasks, count) = find_metric(None, spec.kind), groups.shape
    together = groups.unsqueeze(2) == groups.unsqueeze(1)  # (tasks, n, n)
    sizes, first = together.sum(2), together.int().argmax(2) == torch.arange(count)
    scores, diverged = torch.zeros(tasks, count, dtype=torch.float64), torch.zeros(tasks, count, dtype=torch.bool)
    with evaluating(learner), torch.no_grad():
        for size in sorted(set(sizes.flatten().tolist())):
            task, member = (first & (sizes == size)).nonzero().unbind(1)
            order = together[task, member].int().argsort(stable=True)  # the group's examples are the last
            for part in parts(len(task), adapting_numbers(learner, count - size, spec)):
                own, rows = task[part.start : part.stop].unsqueeze(1), order[part.start : part.stop]
                rest, out = (
                    Examples(*(leaf[own, some] for leaf in support)) for some in (rows[:, :-size], rows[:, -size:])
                )
                predictions = predict_tasks(learner, Task(rest, out), spec, rule(learner, len(part)))
                single = _with(predictions, (leaf.flatten(0, 1).unsqueeze(1) for leaf in predictions))
                targets = out.targets.flatten(0, 1).unsqueeze(1)
                every = torch.ones(targets.shape[:2], dtype=torch.bool)
                places = own, rows[:, -size:]
                scores[places] = metric.score(single, targets, every).mean(1).reshape(len(part), size)
                diverged[places] = ~finite_tasks(single).reshape(len(part), size)
    return scores, diverged


def kin(inputs: Tensor, groups: Sequence[str] | None) -> Tensor:
    """Numbers `(n,)` that examples share which are of one group, or have equal inputs, or are so by way of others."""
    from scipy.sparse.csgraph import connected_components

    equal: Tensor = torch.unique(inputs.flatten(1), dim=0, return_inverse=True)[1]
    if groups is None:
        return equal
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    named = torch.tensor([numbers[name] for name in groups])
    together = (equal.unsqueeze(1) == equal) | (named.unsqueeze(1) == named)
    return torch.from_numpy(connected_components(together.numpy(), directed=False)[1]).long()


def parts(count: int, numbers: int) -> Iterator[range]:
    """0, 1, ..., `count` - 1 in parts that fit into memory, where each of them takes so many numbers."""
    size = max(1, NUMBERS_AT_ONCE // max(1, numbers))
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def adapting_numbers(learner: Learner, examples: int, spec: TaskSpec) -> int:
    """What one task takes of `NUMBERS_AT_ONCE` while adapting: its examples, and at most a copy of all weights."""
    weights = sum(parameter.numel() for parameter in learner.parameters())
    return weights + examples * _numbers_of_example(spec.input_shape)


def diverged(task: int | None = None) -> DivergedError:
    """The error about an answer or state that is not finite, of one of many tasks by its number."""
    return DivergedError(DIVERGED.format(whose="" if task is None else f" of task {task}"), task)


def check_answer(answer: Prediction | TaskState) -> None:
    """Raise a `DivergedError` where an answer, or the state that answers come from, is not finite."""
    if not all(map(_all_finite, pytree.tree_leaves(answer))):
        raise diverged()


def _check_answers(answers: Prediction, tasks: Sequence[int]) -> None:
    """`check_answer` of the stacked answers `(tasks, n, ...)` of these tasks, in one pass."""
    if not all(map(_all_finite, answers)):
        raise diverged(tasks[int((~finite_tasks(answers)).nonzero()[0])])


def _not_finite(requests: Iterable[int], tasks: Sequence[int], inputs: Sequence[Tensor]) -> dict[int, HandfulError]:
    """Of these requests, the errors of those whose inputs are not finite."""
    failed: dict[int, HandfulError] = {}
    for request in requests:
        try:
            check_all_finite(inputs[request].unsqueeze(0), [tasks[request]])
        except DataError as error:
            failed[request] = error
    return failed


def named(error: UserError, task: int) -> UserError:
    """The error about the data of one of many tasks, saying which."""
    return error.about(f"Task {task}", "tasks", task)


def check_finite(examples: Tensor, message: str = NOT_FINITE) -> None:
    """Raise a `DataError` about the first of examples `(n, ...)` with NaN or infinity; `message` names the `row`."""
    if not _all_finite(examples):
        row = int((~torch.isfinite(examples)).flatten(1).any(1).nonzero()[0])
        raise DataError(message.format(row=row), code="non-finite")


def check_all_finite(examples: Tensor, tasks: Sequence[int], message: str = NOT_FINITE) -> None:
    """`check_finite` of the examples `(tasks, n, ...)` of these tasks, in one pass."""
    if not _all_finite(examples):
        _name_not_finite(examples, tasks, message)


def _name_not_finite(examples: Iterable[Tensor], tasks: Iterable[int], message: str = NOT_FINITE) -> None:
    for own, task in zip(examples, tasks, strict=True):
        try:
            check_finite(own, message)
        except DataError as error:
            raise named(error, task) from error


def _all_finite(inputs: Tensor) -> bool:
    """A sum takes one pass and no memory; it may overflow, and then the numbers are looked at one by one."""
    return bool(inputs.sum().isfinite()) or bool(inputs.isfinite().all())


def _shapes(states: TaskState) -> Any:
    """What stacked states have in common if they belong together."""
    leaves, structure = pytree.tree_flatten(states)
    return structure, *((leaf.shape[1:], leaf.dtype, leaf.device) for leaf in leaves)


def _merged(group: Sequence[Group]) -> Group:
    """Parts of equal shapes as one, its members in ascending order."""
    members = [task for part in group for task in part.members]
    states = [part.states for part in group]
    merged = states[0] if len(states) == 1 else pytree.tree_map(lambda *leaves: torch.cat(leaves), *states)
    order = sorted(range(len(members)), key=members.__getitem__)
    return Group(_gathered(merged, order, len(members)), [members[row] for row in order])


def _gathered(states: TaskState, rows: Sequence[int], count: int) -> TaskState:
    """Some rows of `count` stacked states; a view where they follow one another."""
    first = rows[0] if rows else 0
    if isinstance(rows, range) or list(rows) == list(range(first, first + len(rows))):
        return states if len(rows) == count else take(states, slice(first, first + len(rows)))
    index = torch.tensor(rows)
    return pytree.tree_map(lambda leaf: leaf.index_select(0, index.to(leaf.device)), states)


def _alone(state: TaskState) -> TaskState:
    return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), state)


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows `(n, ...)` of different numbers as `(len(rows), most, ...)`, with zeros after their end; one at least."""
    padded = pad_sequence(list(rows), batch_first=True)
    return padded if padded.shape[1] else padded.new_zeros(len(rows), 1, *padded.shape[2:])


def _unpadded(predictions: Prediction, pieces: Sequence[_Piece]) -> Iterator[Prediction]:
    """The answers `(stop - start, ...)` to each piece, out of `(pieces, most, ...)`."""
    sizes = [piece.stop - piece.start for piece in pieces]
    most = predictions[0].shape[1]
    asked = torch.arange(most) < torch.tensor(sizes).unsqueeze(1)  # (pieces, most)
    whole = min(sizes) == most
    leaves = [leaf.flatten(0, 1) if whole else leaf[asked.to(leaf.device)] for leaf in predictions]
    return (_with(predictions, own) for own in zip(*(torch.split(leaf, sizes) for leaf in leaves), strict=True))


def _with(prediction: Prediction, leaves: Iterable[Tensor]) -> Prediction:
    """A prediction of the same type."""
    return type(prediction)(*leaves)


def _joined(predictions: Sequence[Prediction]) -> Prediction:
    """One after another."""
    if len(predictions) == 1:
        return predictions[0]
    return _with(predictions[0], (torch.cat(leaves) for leaves in zip(*predictions, strict=True)))


def _check_stackable(answers: Sequence[Prediction]) -> None:
    ways = sorted({one[0].shape[-1] for one in answers})
    if len(ways) > 1:
        raise UserError(
            f"These tasks have different numbers of classes ({', '.join(map(str, ways))}), so their predictions do "
            "not stack. Give the inputs as a list, one tensor for each task.",
            code="ragged-input",
        )


def _numbers_of_example(shape: Sequence[int]) -> int:
    return max(FEATURES, prod(shape))
