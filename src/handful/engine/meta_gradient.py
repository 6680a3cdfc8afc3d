"""The meta-gradient: of the mean meta-loss over tasks, with respect to all meta-parameters."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from handful.engine.across_tasks import count_of, over_parts
from handful.engine.inner_loop import remembering
from handful.engine.plan import Plan
from handful.engine.stateless import call, tensors
from handful.types import Task, TaskSpec

Leaf: TypeAlias = tuple[Tensor, list[Tensor]]
"""Losses `(tasks,)` of one part of a meta-batch, and the gradients of their sum."""


def meta_gradient(
    learner: nn.Module, tasks: Task, spec: TaskSpec, *, plan: Plan, noise: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses `(tasks,)` and the gradient of their mean, by parameter name.

    `learner(task, spec, noise)` is the meta-loss of one task. The plan's parts are differentiated one by one, so that
    only the graphs of those that run are in memory. Every parameter that requires a gradient gets one: zeros where the
    loss does not depend on it.
    """
    count = count_of(tasks)
    losses, total = tree_sum(leaves(learner, tasks, spec, plan=plan, noise=noise), -(-count // plan.size(count)))
    names = (name for name, parameter in learner.named_parameters() if parameter.requires_grad)
    return losses, {name: gradient / count for name, gradient in zip(names, total, strict=True)}


def leaves(learner: nn.Module, tasks: Task, spec: TaskSpec, *, plan: Plan, noise: Any = None) -> Iterator[Leaf]:
    """The losses and summed gradients of each part of the plan."""
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    values = tensors(learner)

    def leaf(part: tuple[Task, Any], single: bool) -> Leaf:
        task, drawn = part
        with remembering(plan.memory):
            if single:
                loss = call(learner, values, task, spec, drawn).unsqueeze(0)
            elif drawn is None:
                loss = torch.func.vmap(lambda one: call(learner, values, one, spec))(task)
            else:
                loss = torch.func.vmap(lambda one, own: call(learner, values, one, spec, own))(task, drawn)
            return loss.detach(), list(torch.autograd.grad(loss.sum(), parameters, materialize_grads=True))

    return over_parts(leaf, (tasks, noise), plan)


def tree_sum(parts: Iterator[Leaf], count: int) -> Leaf:
    """Losses joined, gradients added in a tree that halves `count` parts.

    Sums of floats depend on their order: this one is the same however the parts are shared among processes, as long as
    each of them adds whole branches.
    """
    if count == 1:
        return next(parts)
    first, second = tree_sum(parts, (count + 1) // 2), tree_sum(parts, count // 2)
    return torch.cat([first[0], second[0]]), [a + b for a, b in zip(first[1], second[1], strict=True)]
