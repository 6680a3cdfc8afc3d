"""Reptile: meta-learning by training on one task after the other."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from handful.functional.differentiation import Weights, detached
from handful.functional.inner_loop import SGD, Adam, descend
from handful.learners.options import Count, Positive
from handful.learners.task_networks import AdaptedNetwork, Head
from handful.types import Examples, Task, TaskSpec, TaskState


class Reptile(AdaptedNetwork):
    """Move the starting weights toward what training on each task makes of them.

    *On First-Order Meta-Learning Algorithms* (Nichol, Achiam & Schulman, 2018), https://arxiv.org/abs/1803.02999. The
    meta-gradient is the start minus the weights after `inner_steps` steps of `inner_rule` on support and query
    together, so that meta-training sees more shots than adapting, as in the paper. Departures: steps are taken on all
    examples, not on minibatches; the outer optimizer is the training loop's; Adam is kept from amplifying gradients
    of rounding errors; the head's start is the same for all classes (see `maml`), so that it takes any way.
    """

    key = "reptile"
    meta_gradient = "approximate"

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: Positive = 0.01,
        inner_steps: Count = 10,
        inner_rule: Literal["adam", "sgd"] = "adam",
        head: Head = "auto",
    ) -> None:
        super().__init__(spec, backbone, head=head)
        self.inner_lr, self.inner_steps, self.inner_rule = inner_lr, inner_steps, inner_rule

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The weights after the steps, and the normalization's statistics of the last one."""
        return self._state(*self._trained(*self._start(spec), support))

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """The loss that training on the whole task ends at; its gradient is the start minus the end."""
        start, slow = self._start(spec)
        examples = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        with torch.no_grad():
            end, statistics = self._trained(start, slow, examples)
            value = self._query_loss(end, statistics, examples)
        way = sum(0.5 * (start[name] - end[name]).square().sum() for name in start)
        return value + way - way.detach()  # type: ignore[union-attr]

    def _trained(self, start: Weights, slow: Weights, examples: Examples) -> tuple[Weights, Weights]:
        rule = SGD(self.inner_lr) if self.inner_rule == "sgd" else Adam(self.inner_lr, beta1=0.0, epsilon=1e-4)
        context = {"slow": slow, "support": examples}
        with torch.no_grad():
            return descend(
                self._inner_loss,
                detached(start),
                detached(context),
                rule=rule,
                steps=self.inner_steps,
                first_order=True,
            )
