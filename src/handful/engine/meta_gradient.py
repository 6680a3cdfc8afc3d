"""The meta-gradient: of the mean meta-loss over tasks, with respect to all meta-parameters."""

import threading
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from handful.engine.across_tasks import count_of, over_parts
from handful.engine.compilation import Flat, compiled
from handful.engine.inner_loop import remembering
from handful.engine.plan import Plan
from handful.engine.stateless import call, tensors
from handful.types import Task, TaskSpec

Leaf: TypeAlias = tuple[Tensor, list[Tensor]]
"""Losses `(tasks,)` of one part of a meta-batch, and the gradients of their sum."""


class MetaGradient:
    """Losses and meta-gradients of a learner under one plan, for as long as its parameters stay the same objects.

    `learner(task, spec, noise)` is the meta-loss of one task.
    """

    def __init__(self, learner: nn.Module, plan: Plan) -> None:
        self.learner, self.plan = learner, plan
        self.trained = [name for name, parameter in learner.named_parameters() if parameter.requires_grad]
        self._values = tensors(learner)
        first = {id(value): name for name, value in reversed(self._values.items())}
        own = {name: first[id(value)] for name, value in self._values.items()}
        self._names = {name: of for name, of in own.items() if of in self.trained}  # tied ones: several for one
        self._graphs: dict[Any, Flat] = {}
        self._compiling = threading.Lock()

    def __call__(self, tasks: Task, spec: TaskSpec, noise: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses `(tasks,)` of stacked tasks and the gradient of their mean, by parameter name.

        The plan's parts are differentiated one by one, so that only the graphs of those that run are in memory. Every
        parameter that requires a gradient gets one: zeros where the loss does not depend on it.
        """
        count = count_of(tasks)
        losses, total = tree_sum(self.leaves(tasks, spec, noise), self.plan.parts(count))
        return losses, dict(zip(self.trained, torch._foreach_div(total, count), strict=True))

    def leaves(self, tasks: Task, spec: TaskSpec, noise: Any = None) -> Iterator[Leaf]:
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
        values |= {name: starts[of] for name, of in self._names.items()}
        with remembering(self.plan.memory):
            if single:
                losses = call(self.learner, values, task, spec, *noise).unsqueeze(0)
            else:
                losses = torch.func.vmap(lambda *one: call(self.learner, values, one[0], spec, *one[1:]))(task, *noise)
            slopes = torch.autograd.grad(losses.sum(), list(starts.values()), materialize_grads=True)
        return losses.detach(), list(slopes)

    def _graph(self, spec: TaskSpec, single: bool, structure: Any, inputs: list[Tensor]) -> Flat:
        shapes = tuple(tensor.shape for tensor in inputs[len(self._values) :])
        key = (spec, single, shapes, self.learner.training)
        with self._compiling:  # task threads wait for the first of them
            if key not in self._graphs:
                self._graphs[key] = compiled(lambda *flat: self._leaf(spec, single, structure, *flat), inputs)
            return self._graphs[key]


def meta_gradient(
    learner: nn.Module, tasks: Task, spec: TaskSpec, *, plan: Plan, noise: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """As `MetaGradient`, once."""
    return MetaGradient(learner, plan)(tasks, spec, noise)


def tree_sum(parts: Iterator[Leaf], count: int) -> Leaf:
    """Losses joined, gradients added in a tree that halves `count` parts.

    Sums of floats depend on their order: this one is the same however the parts are shared among processes, as long as
    each of them adds whole branches.
    """
    if count == 1:
        return next(parts)
    first, second = tree_sum(parts, (count + 1) // 2), tree_sum(parts, count // 2)
    return torch.cat([first[0], second[0]]), list(torch._foreach_add(first[1], second[1]))
