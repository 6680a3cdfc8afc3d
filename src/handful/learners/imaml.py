"""MAML with implicit gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from handful.functional.differentiation import Weights, detached, gradient
from handful.functional.implicit_differentiation import conjugate_gradients, curvature
from handful.functional.inner_loop import SGD, descend
from handful.learners.options import Count, Positive, by_kind
from handful.learners.task_networks import AdaptedNetwork, Head
from handful.types import Examples, Task, TaskSpec, TaskState

INNER_LR = by_kind(classification=0.1, regression=0.01)
"""A squared error is as steep as its targets are large: at 0.1, steps on the amplitudes of `sine` diverge."""


class ImplicitMAML(AdaptedNetwork):
    """Adapt by many steps that are pulled back to the start, and meta-learn the start without storing the steps.

    *Meta-Learning with Implicit Gradients* (Rajeswaran et al., 2019), https://arxiv.org/abs/1909.04630. The task's
    weights minimize the support's loss + `pull` / 2 * ||weights - start||^2, by `inner_steps` steps of gradient
    descent. The meta-gradient is that of the minimum itself, (1 + Hessian / pull)^-1 times the query's gradient, by
    `solver_steps` of conjugate gradients: the better the minimum, the more exact. Memory does not grow with the inner
    steps. Departures: the head's start is the same for all classes (see `maml`), so that it takes any way; batch norm
    uses the support's statistics at the task's weights.
    """

    key = "imaml"
    meta_gradient = "approximate"

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: Positive = INNER_LR,
        inner_steps: Count = 10,
        pull: Positive = 1.0,
        solver_steps: Count = 5,
        head: Head = "auto",
    ) -> None:
        super().__init__(spec, backbone, head=head)
        self.inner_lr, self.inner_steps, self.pull, self.solver_steps = inner_lr, inner_steps, pull, solver_steps

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The weights after the steps, and the normalization's statistics at them."""
        start, slow = self._start(spec)
        with torch.no_grad():
            context = {"slow": detached(slow), "support": support}
            end = self._solved(detached(start), context)
            return self._state(end, self._inner_loss(end, context)[1])

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """The query's loss after adapting, with the implicit gradient."""
        start, slow = self._start(spec)
        with torch.no_grad():
            context = {"slow": detached(slow), "support": task.support, "query": task.query}
            end = self._solved(detached(start), context)
            slopes, auxiliary = gradient(self._outer_loss, end, context)
            bent = curvature(self._inner_loss, end, context)

            def product(vector: Weights) -> Weights:
                bends = bent(vector)
                return {name: value + bends[name] / self.pull for name, value in vector.items()}

            slopes = conjugate_gradients(product, slopes, steps=self.solver_steps)
        tangent = torch.stack([(slopes[name] * start[name]).sum() for name in start]).sum()
        loss: Tensor = auxiliary["loss"]
        return loss + tangent - tangent.detach()

    def _solved(self, start: Weights, context: dict[str, Any]) -> Weights:
        context = context | {"start": start}
        return descend(
            self._pulled_loss, start, context, rule=SGD(self.inner_lr), steps=self.inner_steps, first_order=True
        )[0]

    def _pulled_loss(self, weights: Weights, context: dict[str, Any]) -> tuple[Tensor, Weights]:
        loss, _ = self._inner_loss(weights, context)
        distances = [(weight - context["start"][name]).square().sum() for name, weight in weights.items()]
        return loss + self.pull / 2 * torch.stack(distances).sum(), {}

    def _outer_loss(self, weights: Weights, context: dict[str, Any]) -> tuple[Tensor, Weights]:
        """The query's loss as a function of the task's weights, through the support's statistics too."""
        _, statistics = self._inner_loss(weights, context)
        loss = self._query_loss(weights, statistics, context["query"])
        return loss, {"loss": loss}
