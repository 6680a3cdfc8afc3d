"""The inner loop: differentiable gradient descent on one task's support."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from handful.engine.differentiation import InnerLoss, Weights, detached, gradient, recomputed

Memory: TypeAlias = Literal["whole", "recompute", "sqrt"]
"""What an inner loop of K steps keeps for the meta-gradient: the "whole" graph; each step's weights alone, from which
the backward pass takes the step again ("recompute"); or only those of every sqrt(K)-th step ("sqrt")."""

_memory: ContextVar[Memory] = ContextVar("memory", default="whole")


@contextmanager
def remembering(memory: Memory) -> Iterator[None]:
    """What inner loops keep in here. It is the plan's matter, of which a learner knows nothing."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


class UpdateRule(Protocol):
    """How gradients change weights: two pure functions."""

    def start(self, weights: Weights) -> Any:
        """The rule's state before the first step: a pytree of tensors."""

    def step(self, weights: Weights, gradients: Weights, state: Any) -> tuple[Weights, Any]:
        """New weights and state."""


class SGD(NamedTuple):
    """Gradient descent with one rate, or one rate per weight by name (they may be meta-learned)."""

    rates: float | Tensor | Mapping[str, Tensor]

    def start(self, weights: Weights) -> dict[str, Any]:
        """No state."""
        return {}

    def step(self, weights: Weights, gradients: Weights, state: dict[str, Any]) -> tuple[Weights, dict[str, Any]]:
        """One step against the gradient."""
        rates = self.rates
        if not isinstance(rates, Mapping):
            return {name: weight - rates * gradients[name] for name, weight in weights.items()}, state
        return {name: weight - rates[name] * gradients[name] for name, weight in weights.items()}, state


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
    contexts = (context(step) if callable(context) else context for step in range(steps))
    if first_order or not torch.is_grad_enabled():  # there is no graph, and one step's context in memory at a time
        weights, _, auxiliary = _walk(loss, _Point(weights, rule.start(weights), rule, contexts), "whole", first_order)
    else:
        weights, _, auxiliary = _walk(loss, _Point(weights, rule.start(weights), rule, list(contexts)), _memory.get())
    return weights, auxiliary


class _Point(NamedTuple):
    """Where a descent is, and all that its next steps depend on: one context for each."""

    weights: Weights
    state: Any
    rule: UpdateRule
    contexts: Iterable[Any]


def _walk(loss: InnerLoss, point: _Point, memory: Memory, first_order: bool = False) -> tuple[Weights, Any, Any]:
    """The weights, the rule's state and the last auxiliary after a step for each context."""
    weights, state, rule, contexts = point
    auxiliary: Any = {}
    if memory == "whole":
        for context in contexts:
            if first_order:
                with torch.no_grad():
                    slopes, auxiliary = gradient(loss, detached(weights), detached(context))
            else:
                slopes, auxiliary = gradient(loss, weights, context)
            weights, state = rule.step(weights, slopes, state)
        return weights, state, auxiliary
    contexts = list(contexts)
    # A span's graph lives only while its own backward pass runs; one of several steps keeps their weights meanwhile.
    within: Memory = "whole" if memory == "recompute" else "recompute"
    span = 1 if memory == "recompute" else math.isqrt(max(len(contexts) - 1, 0)) + 1
    for first in range(0, len(contexts), span):
        piece = _Point(weights, state, rule, contexts[first : first + span])
        weights, state, auxiliary = recomputed(lambda piece: _walk(loss, piece, within), piece)
    return weights, state, auxiliary
