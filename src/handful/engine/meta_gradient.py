"""The meta-gradient: of the mean meta-loss over tasks, with respect to all meta-parameters."""

import itertools
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from handful.engine.compilation import Flat, compiled
from handful.engine.over_tasks import count_of, over_parts
from handful.engine.plan import Plan
from handful.engine.precision import Precision, in_bfloat16
from handful.errors import UserError
from handful.functional.inner_loop import remembering
from handful.functional.stateless import call, tensors
from handful.types import Task, TaskSpec

NO_SECOND_DERIVATIVE = "the derivative for", "trying to differentiate twice"
"""Messages of PyTorch about a missing second derivative, of operations and of the user's functions."""

Leaf: TypeAlias = tuple[Tensor, list[Tensor]]
"""Losses `(tasks,)` of one part of a meta-batch, and the gradients of their sum."""


class MetaGradient:
    """Losses and meta-gradients of a learner under one plan, for as long as its parameters stay the same objects.

    `learner(task, spec, noise)` is the meta-loss of one task.

    precision: of the network's forward pass, see `in_bfloat16`.
    """

    def __init__(self, learner: nn.Module, plan: Plan, precision: Precision = "fp32") -> None:
        self.learner, self.plan = learner, plan
        self._structure = in_bfloat16(learner) if precision == "bf16" else learner
        self.trained = [name for name, parameter in learner.named_parameters() if parameter.requires_grad]
        self._values = tensors(learner)
        self._graphs: dict[Any, Flat] = {}
        self._compiling = threading.Lock()

    def __call__(
        self, tasks: Task, spec: TaskSpec, noise: Any = None, add: Callable[[Iterator[Leaf]], Leaf] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses `(tasks,)` of stacked tasks and the gradient of their mean, by parameter name.

        The plan's parts are differentiated one by one, so that only the graphs of those that run are in memory. Every
        parameter that requires a gradient gets one: zeros where the loss does not depend on it. add: the sum of these
        parts, and of those of other workers; None: `tree_sum`.
        """
        if self._structure is not self.learner:
            self._structure.train(self.learner.training)
        with closing(self.leaves(tasks, spec, noise)) as parts, self._second_derivatives():
            losses, total = add(parts) if add else tree_sum(parts, self.plan.parts(count_of(tasks)))
        gradients = zip(self.trained, torch._foreach_div(total, len(losses)), strict=True)
        return losses, {name: _laid_out_as(self._values[name], gradient) for name, gradient in gradients}

    @contextmanager
    def _second_derivatives(self) -> Iterator[None]:
        """`UserError` if an operation of the user's network has none; under `vmap` others may be missing."""
        try:
            yield
        except (NotImplementedError, RuntimeError) as error:
            if self.plan.backend != "loop" or not any(words in str(error) for words in NO_SECOND_DERIVATIVE):
                raise
            raise UserError(
                f"An operation of the network has no second derivative: {str(error).splitlines()[0]}",
                hint="Avoid second derivatives with {first_order}, if the learner has it, or choose another {learner}.",
            ) from error

    def leaves(self, tasks: Task, spec: TaskSpec, noise: Any = None) -> Generator[Leaf, None, None]:
        """Losses and summed gradients of each of the plan's parts."""

        def leaf(part: tuple[Task, Any], single: bool) -> Leaf:
            inputs, structure = pytree.tree_flatten(part if part[1] is not None else part[:1])
            inputs = [*self._values.values(), *inputs]
            if self.plan.compiled:
                return self._graph(spec, single, structure, inputs)(*inputs)  # type: ignore[no-any-return]
            return self._leaf(spec, single, structure, *inputs)

        return over_parts(leaf, (tasks, noise), self.plan)

    def _leaf(self, spec: TaskSpec, single: bool, structure: Any, *inputs: Tensor) -> Leaf:
        """The leaf as a function of tensors: all those of the learner, then those of the part."""
        values = dict(zip(self._values, inputs, strict=False))
        task, *noise = pytree.tree_unflatten(list(inputs[len(values) :]), structure)
        starts = {name: values[name].detach().requires_grad_() for name in self.trained}
        values |= starts
        with remembering(self.plan.memory):
            if single:
                losses = call(self._structure, values, task, spec, *noise).unsqueeze(0)
            else:
                loss = partial(call, self._structure, values)
                losses = torch.func.vmap(lambda task, *noise: loss(task, spec, *noise))(task, *noise)
            slopes = torch.autograd.grad(losses.sum(), list(starts.values()), materialize_grads=True)
        return losses.detach(), list(slopes)

    def _graph(self, spec: TaskSpec, single: bool, structure: Any, inputs: list[Tensor]) -> Flat:
        shapes = tuple((tensor.shape, tensor.stride()) for tensor in inputs[len(self._values) :])
        some = inputs[0]
        key = (spec, single, shapes, some.dtype, some.device, self.learner.training)
        with self._compiling:  # task threads wait for the first of them
            if key not in self._graphs:
                self._graphs[key] = compiled(lambda *flat: self._leaf(spec, single, structure, *flat), inputs)
            return self._graphs[key]


def meta_gradient(
    learner: nn.Module, tasks: Task, spec: TaskSpec, *, plan: Plan, noise: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """As `MetaGradient`, once."""
    return MetaGradient(learner, plan)(tasks, spec, noise)


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the parameter's strides. Those of a convolution may come out as channels last; a fused
    optimizer walks both memories alike, and would silently give each weight another one's gradient."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


def tree_sum(parts: Iterator[Leaf], count: int, depth: int = -1) -> Leaf:
    """Losses joined, gradients added in a tree that halves `count` parts.

    Sums of floats depend on their order: this one is the same however the parts are shared among workers, as long as
    each of them adds whole branches.

    depth: the level at which `parts` are branches that are added already.
    """
    if count == 1 or depth == 0:
        return next(parts)
    first, second = (tree_sum(parts, half, depth - 1) for half in _halves(count))
    return torch.cat([first[0], second[0]]), list(torch._foreach_add(first[1], second[1]))


class GradientExchange(Protocol):
    """One of several workers, and its communication with the others."""

    @property
    def rank(self) -> int:
        """Which one it is, counted from 0."""

    @property
    def count(self) -> int:
        """The number of workers."""

    def gather(self, sums: list[Leaf], *, most: int, losses: int) -> list[Leaf]:
        """The sums of all workers in their order, the same bits on each.

        most: the largest number of sums of a worker.
        losses: the largest number of losses of a sum.
        """


def shared_tree_sum(parts: Iterator[Leaf], count: int, workers: GradientExchange, *, size: int) -> Leaf:
    """`tree_sum` of `count` parts, bit for bit, of which this worker has those that `branches` gives it.

    Each adds its own branches, receives the sums of the others, and adds the levels above.

    size: tasks of a part.
    """
    depth, runs = branches(count, workers.count)
    mine = [tree_sum(parts, branch) for branch in runs[workers.rank]]
    everyone = workers.gather(mine, most=max(map(len, runs)), losses=size * max(map(max, runs)))
    return tree_sum(iter(everyone), count, depth)


def branches(count: int, workers: int) -> tuple[int, list[list[int]]]:
    """The level of the tree over `count` parts with a branch for each worker, and each worker's run of branches, in
    numbers of parts. Workers are at most as many as parts."""
    assert workers <= count
    depth, sizes = 0, [count]
    while len(sizes) < workers:
        depth += 1
        sizes = [half for size in sizes for half in _halves(size)]
    bounds = [len(sizes) * worker // workers for worker in range(workers + 1)]
    return depth, [sizes[start:end] for start, end in itertools.pairwise(bounds)]


def _halves(count: int) -> tuple[int, ...]:
    return ((count + 1) // 2, count // 2) if count > 1 else (1,)
