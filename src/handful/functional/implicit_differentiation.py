"""Implicit differentiation: the meta-gradient of an inner problem that is solved, without looking at how."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from handful.functional.differentiation import InnerLoss, Weights, gradient
from handful.functional.normalization import transforms


def curvature(loss: InnerLoss, weights: Weights, context: Any) -> Callable[[Weights], Weights]:
    """The product of the loss's Hessian at `weights` with a vector; its graph is made once, for any number of them.

    The products are constants: they have no derivatives of their own.
    """

    def slopes(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient(loss, dict(zip(weights, tensors, strict=True)), context)[0].values())

    def named(products: Any) -> Weights:
        return dict(zip(weights, products, strict=True))

    if transforms():
        _, pull, *_ = torch.func.vjp(slopes, *(weight.detach() for weight in weights.values()))
        return lambda vector: named(pull(tuple(vector[name] for name in weights)))
    with torch.enable_grad():
        own = [weight.detach().requires_grad_() for weight in weights.values()]
        reached = dict(zip(weights, slopes(*own), strict=True))
    bent = {name: slope for name, slope in reached.items() if slope.requires_grad}

    def product(vector: Weights) -> Weights:
        if not bent:  # a linear loss
            return {name: torch.zeros_like(weight) for name, weight in weights.items()}
        of_slopes = [vector[name] for name in bent]
        return named(
            torch.autograd.grad(list(bent.values()), own, of_slopes, retain_graph=True, materialize_grads=True)
        )

    return product


def conjugate_gradients(product: Callable[[Weights], Weights], target: Weights, *, steps: int) -> Weights:
    """Solve `product(x) = target` for a symmetric, positive definite `product`, by `steps` steps from zero.

    *Methods of Conjugate Gradients for Solving Linear Systems* (Hestenes & Stiefel, 1952). It stops where it has
    converged, and where a direction has no positive curvature.
    """
    solution = {name: torch.zeros_like(value) for name, value in target.items()}
    residual = direction = target
    squared = start = _dot(residual, residual)
    going = start > 0
    for _ in range(steps):
        along = product(direction)
        bend = _dot(direction, along)
        going = going & (bend > 0) & (squared > 1e-30 * start)
        size = torch.where(going, squared / torch.where(going, bend, 1.0), 0.0)
        solution = _moved(solution, size, direction)
        residual = _moved(residual, -size, along)
        before, squared = squared, _dot(residual, residual)
        direction = _moved(residual, squared / torch.where(going, before, 1.0), direction)
    return solution


def _dot(first: Weights, second: Weights) -> Tensor:
    return torch.stack([(first[name] * second[name]).sum() for name in first]).sum()


def _moved(start: Weights, size: Tensor, direction: Weights) -> Weights:
    return {name: start[name] + size * direction[name] for name in start}
