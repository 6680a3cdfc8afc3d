"""The inner loop: differentiable gradient descent on one task's support."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.func import grad

Weights: TypeAlias = dict[str, Tensor]
InnerLoss: TypeAlias = Callable[[Weights, Any], tuple[Tensor, Any]]
"""`loss(weights, context) -> (scalar, auxiliary)`; the auxiliary is a pytree of tensors, `{}` for nothing. Every
tensor that needs a meta-gradient is in one of its arguments, since a captured one would lose it where a step is
recomputed."""


class UpdateRule(Protocol):
    """How gradients change weights: two pure functions."""

    def start(self, weights: Weights) -> Any:
        """The rule's state before the first step: a pytree of tensors."""

    def step(self, weights: Weights, gradients: Weights, state: Any) -> tuple[Weights, Any]:
        """New weights and state."""


class SGD(NamedTuple):
    """Gradient descent with one rate, or one rate per weight by name (they may be meta-learned)."""

    rates: float | Tensor | Mapping[str, Tensor]

    def start(self, weights: Weights) -> None:
        """No state."""

    def step(self, weights: Weights, gradients: Weights, state: None) -> tuple[Weights, None]:
        """One step against the gradient."""
        rates = self.rates
        if not isinstance(rates, Mapping):
            return {name: weight - rates * gradients[name] for name, weight in weights.items()}, None
        return {name: weight - rates[name] * gradients[name] for name, weight in weights.items()}, None


class Adam(NamedTuple):
    """*Adam: A Method for Stochastic Optimization* (Kingma & Ba, 2015), https://arxiv.org/abs/1412.6980."""

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def start(self, weights: Weights) -> dict[str, Any]:
        """First and second moments, and the powers of the betas as a tensor (a counter would be refused by vmap)."""
        zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        some = next(iter(weights.values()))
        return {"first": zeros, "second": zeros, "powers": some.new_ones(2)}

    def step(self, weights: Weights, gradients: Weights, state: dict[str, Any]) -> tuple[Weights, dict[str, Any]]:
        """One step with bias correction."""
        powers = state["powers"]
        powers = powers * torch.tensor([self.beta1, self.beta2], dtype=powers.dtype, device=powers.device)
        first = {n: self.beta1 * m + (1 - self.beta1) * gradients[n] for n, m in state["first"].items()}
        second = {n: self.beta2 * v + (1 - self.beta2) * gradients[n].square() for n, v in state["second"].items()}
        correction = 1 - powers
        moved = {
            name: weight
            - self.rate * (first[name] / correction[0]) / (_root(second[name] / correction[1]) + self.epsilon)
            for name, weight in weights.items()
        }
        return moved, {"first": first, "second": second, "powers": powers}


def _root(squares: Tensor) -> Tensor:
    """The square root, with derivative 0 at 0 (a dead unit's second moment) where the true one is infinite."""
    positive = squares > 0
    return torch.where(positive, squares, 1.0).sqrt() * positive


def descend(
    loss: InnerLoss,
    weights: Weights,
    context: Any,
    *,
    rule: UpdateRule,
    steps: int,
    first_order: bool = False,
) -> tuple[Weights, Any]:
    """Take `steps` steps on `loss`, differentiably; returns the weights and the last step's auxiliary.

    The result depends on the starting weights, the context and the rule's rates through the graph, so that an outer
    gradient is the exact meta-gradient; under `torch.no_grad()` no graph is kept. With `first_order` each step's
    gradient counts as a constant (*On First-Order Meta-Learning Algorithms*, Nichol et al., 2018,
    https://arxiv.org/abs/1803.02999), and nothing of the inner backward pass is recorded.
    `context` may be a callable of the step's number where steps differ (augmentation banks).
    """
    gradient_of = grad(loss, has_aux=True)
    state = rule.start(weights)
    auxiliary: Any = None
    for step in range(steps):
        here = context(step) if callable(context) else context
        if first_order:
            gradients, auxiliary = gradient_of(detached(weights), detached(here))
        else:
            gradients, auxiliary = gradient_of(weights, here)
        weights, state = rule.step(weights, gradients, state)
    return weights, auxiliary


def detached(tree: Any) -> Any:
    """The same pytree, its tensors cut from the graph."""
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, tree)
