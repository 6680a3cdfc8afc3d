"""Gradients that stay differentiable, and evaluation that keeps no graph.

Under a `torch.func` transform both go through `torch.func`. Elsewhere plain autograd does the same with half of the
overhead, with native kernels that have no batching rule, and without derivatives of what nobody differentiates.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from handful.normalization import transforms

Weights: TypeAlias = dict[str, Tensor]
InnerLoss: TypeAlias = Callable[[Weights, Any], tuple[Tensor, Any]]
"""`loss(weights, context) -> (scalar, auxiliary)`; the auxiliary is a pytree of tensors, `{}` for nothing. Every
tensor that needs a meta-gradient is in one of its arguments, since a captured one would lose it where a step is
recomputed."""


def gradient(loss: InnerLoss, weights: Weights, context: Any) -> tuple[Weights, Any]:
    """The gradient of `loss` with respect to the weights, and its auxiliary; both stay in the graph if there is one."""
    if transforms():
        return torch.func.grad(loss, has_aux=True)(weights, context)  # type: ignore[no-any-return]
    recording = torch.is_grad_enabled() and needs_gradient((weights, context))
    with torch.enable_grad():
        # New nodes of the graph: whatever else depends on the same weights is a constant in this gradient.
        own = {
            name: weight.view_as(weight) if recording and weight.requires_grad else weight.detach().requires_grad_()
            for name, weight in weights.items()
        }
        value, auxiliary = loss(own, context)
        slopes = torch.autograd.grad(value, list(own.values()), create_graph=recording, materialize_grads=True)
    return dict(zip(weights, slopes, strict=True)), auxiliary if recording else detached(auxiliary)


def recomputed(function: Callable[[Any], Any], argument: Any) -> Any:
    """`function(argument)` on pytrees of tensors; only the argument is kept, and the backward pass runs it again.

    As `torch.utils.checkpoint`, which does not compose with `torch.func`. `function` must be pure and capture no tensor
    that needs a gradient.
    """
    leaves, structure = pytree.tree_flatten(argument)
    tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}  # one that is used twice is one input
    places = {name: place for place, name in enumerate(tensors)}
    # The closure stays in the graph, so it knows the tensors by their places alone.
    slots = [(places[id(leaf)], None) if isinstance(leaf, Tensor) else (None, leaf) for leaf in leaves]
    shape: Any = None

    def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
        nonlocal shape
        filled = [leaf if place is None else inputs[place] for place, leaf in slots]
        results, shape = pytree.tree_flatten(function(pytree.tree_unflatten(filled, structure)))
        return tuple(results)

    results = _Recomputed.apply(flat, *tensors.values())  # type: ignore[no-untyped-call]
    return pytree.tree_unflatten(results, shape)


class _Recomputed(torch.autograd.Function):
    """A function of tensors that saves its inputs alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        return function(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        function, *tensors = inputs
        ctx.function = function
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        needed = [place for place, needs in enumerate(ctx.needs_input_grad[1:]) if needs]
        inputs = list(ctx.saved_tensors)

        def of_needed(*tensors: Tensor) -> tuple[Tensor, ...]:
            filled = list(inputs)
            for place, tensor in zip(needed, tensors, strict=True):
                filled[place] = tensor
            return ctx.function(*filled)  # type: ignore[no-any-return]

        slopes: list[Tensor | None] = [None] * len(inputs)
        for place, slope in zip(needed, _pulled(of_needed, [inputs[p] for p in needed], cotangents), strict=True):
            slopes[place] = slope
        return (None, *slopes)


def _pulled(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> Sequence[Tensor]:
    """The vector-Jacobian product of `function` at `inputs`."""
    if transforms():
        return torch.func.vjp(function, *inputs)[1](tuple(cotangents))  # type: ignore[no-any-return]
    with torch.enable_grad():
        own = [tensor.detach().requires_grad_() for tensor in inputs]
        pairs = [(out, slope) for out, slope in zip(function(*own), cotangents, strict=True) if out.requires_grad]
    outputs, slopes = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, own, slopes, materialize_grads=True)


def needs_gradient(tree: Any) -> bool:
    """Whether any tensor of a pytree takes part in a graph."""
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(tree))


def detached(tree: Any) -> Any:
    """The same pytree, its tensors cut from the graph."""
    return pytree.tree_map_only(Tensor, Tensor.detach, tree)
