"""The inner loop: differentiable gradient descent on one task's support."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from handful.functional.differentiation import InnerLoss, Weights, detached, gradient, recomputed

MemoryMode: TypeAlias = Literal["whole", "recompute", "sqrt"]
"""What an inner loop of K steps keeps for the meta-gradient: the "whole" graph; each step's weights alone, from which
the backward pass takes the step again ("recompute"); or only those of every sqrt(K)-th step ("sqrt")."""

_memory: ContextVar[MemoryMode] = ContextVar("memory", default="whole")


@contextmanager
def remembering(memory: MemoryMode) -> Iterator[None]:
    """The memory mode of inner loops in this context. The plan sets it, independent of the learner."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def memory_mode() -> MemoryMode:
    """What is to be kept for the meta-gradient, here and now."""
    return _memory.get()


class UpdateRule(Protocol):
    """How gradients change weights: two pure functions."""

    def start(self, weights: Weights) -> Any:
        """The rule's state before the first step: a pytree of tensors."""

    def step(self, weights: Weights, gradients: Weights, state: Any) -> tuple[Weights, Any]:
        """New weights and state."""


Rule: TypeAlias = UpdateRule | Callable[[int], UpdateRule]
"""One rule for all steps, or a function of the step's number."""


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


class Annealed(NamedTuple):
    """A rule whose gradients count as constants in part: a `second_order` of 0 is first order, 1 the full derivative.

    It is a tensor, so that it may change between meta-steps; nothing of the work is saved where it is 0.
    """

    rule: UpdateRule
    second_order: Tensor

    def start(self, weights: Weights) -> Any:
        """As the rule."""
        return self.rule.start(weights)

    def step(self, weights: Weights, gradients: Weights, state: Any) -> tuple[Weights, Any]:
        """As the rule; only the derivative differs."""
        partly = {n: g.detach() + self.second_order * (g - g.detach()) for n, g in gradients.items()}
        return self.rule.step(weights, partly, state)


def descend(
    loss: InnerLoss,
    weights: Weights,
    context: Any,
    *,
    rule: Rule,
    steps: int,
    first_order: bool = False,
) -> tuple[Weights, Any]:
    """Take `steps` steps on `loss`, differentiably; returns the weights and the last step's auxiliary.

    The result depends on the starting weights, the context and the rule's rates through the graph, so that an outer
    gradient is the exact meta-gradient; under `torch.no_grad()` no graph is kept. With `first_order` each step's
    gradient counts as a constant (*On First-Order Meta-Learning Algorithms*, Nichol et al., 2018,
    https://arxiv.org/abs/1803.02999), and nothing of the inner backward pass is recorded; the auxiliary is no gradient
    and keeps its derivatives, for which its loss is computed once more.
    `context` and `rule` may be callables of the step's number where steps differ (augmentation banks, rates).
    """
    # Steps of a span share what is kept: the weights at its start. A span of one is the whole graph or one recomputed.
    span = math.isqrt(steps - 1) + 1 if _memory.get() == "sqrt" and _recording(first_order) and steps else 1
    reached: tuple[Weights, Any] = weights, {}
    for end in _spans(loss, weights, context, rule=rule, steps=steps, first_order=first_order, span=span):
        reached = end
    return reached


def trajectory(
    loss: InnerLoss,
    weights: Weights,
    context: Any,
    *,
    rule: Rule,
    steps: int,
    first_order: bool = False,
) -> Iterator[tuple[Weights, Any]]:
    """As `descend`, weights and auxiliary after each of the steps. All weights are kept, also under "sqrt"."""
    return _spans(loss, weights, context, rule=rule, steps=steps, first_order=first_order, span=1, every=True)


def _recording(first_order: bool) -> bool:
    return torch.is_grad_enabled() and not first_order


def _spans(
    loss: InnerLoss,
    weights: Weights,
    context: Any,
    *,
    rule: Rule,
    steps: int,
    first_order: bool,
    span: int,
    every: bool = False,
) -> Iterator[tuple[Weights, Any]]:
    """Weights and auxiliary after each span of steps; of first order, the last auxiliary or `every` has derivatives."""
    memory = _memory.get() if _recording(first_order) else "whole"

    def rule_of(turn: int) -> UpdateRule:
        return rule(turn) if callable(rule) else rule

    def step(carry: Any, constants: Any, turn: int) -> tuple[Any, Any]:
        (weights, state), (rules, contexts) = carry, constants
        if first_order:
            with torch.no_grad():
                slopes, auxiliary = gradient(loss, detached(weights), detached(contexts[turn]))
        else:
            slopes, auxiliary = gradient(loss, weights, contexts[turn])
        return rules[turn].step(weights, slopes, state), auxiliary

    carry = weights, rule_of(0).start(weights)
    for first in range(0, steps, span):
        turns = range(first, min(first + span, steps))
        contexts = [context(turn) if callable(context) else context for turn in turns]
        constants = [rule_of(turn) for turn in turns], contexts
        before = carry[0]
        if memory == "whole":
            carry, auxiliary = step(carry, constants, 0)
        else:
            carry, auxiliary = recomputed(step, carry, constants, len(turns))
        if first_order and auxiliary and torch.is_grad_enabled() and (every or turns.stop == steps):
            _, auxiliary = loss(before, contexts[0])
        yield carry[0], auxiliary
