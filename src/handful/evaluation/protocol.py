"""The protocol: a learner's scores on tasks of a distribution."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from handful.engine.across_tasks import over_tasks, stack
from handful.engine.plan import Plan
from handful.engine.planner import rule
from handful.errors import UserError
from handful.evaluation.intervals import Interval, interval
from handful.learners.learner import Learner
from handful.tasks.distribution import Size, TaskDistribution
from handful.types import Categorical, Point, Prediction, Task, TaskSpec

EXAMPLES_AT_ONCE = 2000
"""How many examples are embedded in one go: bounds the memory of evaluation."""

Progress = Callable[[int, int], None]
"""Called with the tasks done and the tasks in all."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one learner on tasks 0, 1, ... of one distribution.

    metric: "accuracy" (fraction) or "mse" (squared units of the target). scores: `(draws,)`. units: `(draws,)` which
    task each draw is of. way, shot, query_shot: as `SizeRanges`. confidences, correct: of every query answer, for
    reliability (empty for regression). adapt_seconds: median time to adapt to one task alone. state_bytes: of a state.
    """

    learner: str
    metric: str
    scores: Tensor
    units: Tensor
    way: Size | None
    shot: Size
    query_shot: Size | None
    transductive: bool
    confidences: Tensor
    correct: Tensor
    adapt_seconds: float
    state_bytes: int

    @property
    def score(self) -> Interval:
        """The mean score with its interval over tasks."""
        return interval(self.scores, self.units)

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is a better one."""
        return self.metric == "accuracy"

    def gain_over(self, other: "Evaluation") -> Interval:
        """By how much this learner is better (positive) than `other` on the tasks that both were scored on."""
        count = min(len(self.scores), len(other.scores))
        difference = self.scores[:count] - other.scores[:count]
        return interval(difference if self.higher_is_better else -difference, self.units[:count])


def evaluate(
    learner: Learner,
    distribution: TaskDistribution,
    *,
    tasks: int = 600,
    progress: Progress | None = None,
) -> Evaluation:
    """Adapt to each of the first `tasks` tasks of the distribution's present split and score the queries.

    The learner is used in evaluation mode and is not changed. Raises `UserError` where it cannot do these tasks.
    """
    if tasks < 1:
        raise UserError(f"An evaluation needs at least 1 task, got {tasks}.")
    check_fits(learner, distribution.spec)
    scores = torch.zeros(tasks, dtype=torch.float64)
    confidences: list[Tensor] = []
    correct: list[Tensor] = []
    done = 0
    with evaluating(learner), torch.no_grad():
        seconds, size = _cost(learner, distribution, tasks)
        for indices, batch, spec in batches(distribution, range(tasks)):
            predictions = predict_tasks(learner, batch, spec, rule(learner, len(indices)))
            scores[list(indices)] = _scores(predictions, batch.query.targets, distribution).double()
            if isinstance(predictions, Categorical):
                confidence, answer = predictions.logits.softmax(-1).max(-1)
                confidences.append(confidence.flatten())
                correct.append((answer == batch.query.targets).flatten())
            done += len(indices)
            if progress:
                progress(done, tasks)
    sizes = distribution.sizes
    return Evaluation(
        learner=learner.key,
        metric="accuracy" if distribution.spec.classification else "mse",
        scores=scores,
        units=torch.tensor([distribution.unit(index) for index in range(tasks)]),
        way=sizes.way,
        shot=sizes.shot,
        query_shot=sizes.query_shot,
        transductive=not learner.pointwise,
        confidences=torch.cat(confidences) if confidences else torch.zeros(0),
        correct=torch.cat(correct) if correct else torch.zeros(0, dtype=torch.bool),
        adapt_seconds=seconds,
        state_bytes=size,
    )


def predict_tasks(learner: Learner, batch: Task, spec: TaskSpec, plan: Plan) -> Any:
    """Predictions for the queries of stacked tasks, each adapted to its own support."""

    def one(task: Task) -> Prediction:
        return learner.predict(learner.adapt(task.support, spec), task.query.inputs)

    return over_tasks(one, (batch,), plan)


def check_fits(learner: Learner, spec: TaskSpec) -> None:
    """Raise a `UserError` if a trained learner cannot take tasks of this spec."""
    own: TaskSpec = learner.recipe["spec"]
    if spec.kind != own.kind:
        raise UserError(f"The learner was made for {own.kind}, but these tasks are {spec.kind}.")
    if spec.input_shape != own.input_shape:
        raise UserError(
            f"The learner takes inputs of shape {own.input_shape}, but these tasks have {spec.input_shape}."
        )
    if spec.outputs != own.outputs and not (learner.any_way and spec.classification):
        what = "classes" if spec.classification else "target values"
        raise UserError(
            f"The learner {learner.key!r} was made for {own.outputs} {what} and takes no other number, but these "
            f"tasks have {spec.outputs}."
        )


@contextmanager
def evaluating(learner: Learner) -> Iterator[None]:
    """The learner in evaluation mode, and back."""
    training = learner.training
    learner.eval()
    try:
        yield
    finally:
        learner.train(training)


def batches(distribution: TaskDistribution, indices: Sequence[int]) -> Iterator[tuple[list[int], Task, TaskSpec]]:
    """Stacked tasks of equal shapes and spec, small enough for memory, with their indices."""
    first = distribution.task(indices[0])
    examples = len(first.support.inputs) + len(first.query.inputs)
    size = max(1, EXAMPLES_AT_ONCE // examples)
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        groups: dict[Any, list[int]] = defaultdict(list)
        if not distribution.ragged:
            for index in part:
                groups[distribution.sizes_of(index)].append(index)
            for members in groups.values():
                yield members, distribution.batch(members), distribution.spec_of(members[0])
            continue
        drawn = {index: distribution.task(index) for index in part}
        for index, task in drawn.items():
            groups[tuple(leaf.shape for leaf in pytree.tree_leaves(task))].append(index)
        for members in groups.values():
            yield members, stack([drawn[index] for index in members]), distribution.spec_of(members[0])


def _scores(predictions: Any, targets: Tensor, distribution: TaskDistribution) -> Tensor:
    """One score per stacked task, from predictions and targets `(tasks, n, ...)`."""
    if isinstance(predictions, Categorical):
        return (predictions.logits.argmax(-1) == targets).double().mean(-1)
    error = Point(predictions.mean).loss(targets)
    return error.mean(-1) * distribution.target_scale**2


def _cost(learner: Learner, distribution: TaskDistribution, tasks: int) -> tuple[float, int]:
    """Median seconds to adapt to one task alone, and bytes of its state."""
    seconds = []
    state: Any = None
    for index in range(4):  # the first one warms up
        task, spec = distribution.task(index % tasks), distribution.spec_of(index % tasks)
        start = time.perf_counter()
        state = learner.adapt(task.support, spec)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > 2:  # enough for a costly learner
            break
    seconds = seconds[1:] or seconds
    leaves = [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]
    size = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    return sorted(seconds)[len(seconds) // 2], size
