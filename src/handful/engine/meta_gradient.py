"""The meta-gradient: of the mean meta-loss over tasks, with respect to all meta-parameters."""

from typing import Any

import torch
from torch import Tensor, nn

from handful.engine.across_tasks import Plan, chunks, count_of
from handful.engine.stateless import call, tensors
from handful.types import Task, TaskSpec


def meta_gradient(
    learner: nn.Module, tasks: Task, spec: TaskSpec, *, plan: Plan, noise: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses `(tasks,)` and the gradient of their mean, by parameter name.

    `learner(task, spec, noise)` is the meta-loss of one task. Chunks are differentiated one after another, so that the
    graph of only one chunk is in memory at a time. Every parameter that requires a gradient gets one: zeros where the
    loss does not depend on it.
    """
    meta_parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    values = tensors(learner)
    count = count_of(tasks)
    losses: list[Tensor] = []
    total: list[Tensor] | None = None
    for (task, drawn), single in chunks((tasks, noise), plan):
        if single:
            loss = call(learner, values, task, spec, drawn).unsqueeze(0)
        elif drawn is None:
            loss = torch.func.vmap(lambda one: call(learner, values, one, spec))(task)
        else:
            loss = torch.func.vmap(lambda one, own: call(learner, values, one, spec, own))(task, drawn)
        gradients = torch.autograd.grad(loss.sum() / count, list(meta_parameters.values()), materialize_grads=True)
        losses.append(loss.detach())
        total = list(gradients) if total is None else [a + b for a, b in zip(total, gradients, strict=True)]
    assert total is not None, "a meta-batch has at least one task"
    return torch.cat(losses), dict(zip(meta_parameters, total, strict=True))
