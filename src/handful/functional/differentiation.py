"""Gradients that stay differentiable, and evaluation that keeps no graph.

Under a `torch.func` transform both go through `torch.func`. Elsewhere plain autograd does the same with less
overhead, with native kernels that have no batching rule, and without derivatives of what nobody differentiates.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from handful.functional.normalization import transforms

Weights: TypeAlias = dict[str, Tensor]
InnerLoss: TypeAlias = Callable[[Weights, Any], tuple[Tensor, Any]]
"""`loss(weights, context) -> (scalar, auxiliary)`; the auxiliary is a pytree of tensors, `{}` for nothing. Every
tensor that needs a meta-gradient is in one of its arguments, since a captured one would lose it where a step is
recomputed."""


def gradient(loss: InnerLoss, weights: Weights, context: Any) -> tuple[Weights, Any]:
    """The gradient of `loss` with respect to the weights, and its auxiliary; both stay in the graph, if any."""
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


Step: TypeAlias = Callable[[Any, Any, int], tuple[Any, Any]]
"""`step(carry, constants, turn) -> (carry, auxiliary)` on pytrees of tensors; the carry keeps its structure."""


def recomputed(step: Step, carry: Any, constants: Any, turns: int) -> tuple[Any, Any]:
    """The carry after `turns` steps, and the last auxiliary; only what goes in is kept, for the backward pass.

    That pass takes the steps again: first for their carries, then one by one in reverse, so that the graph of one step
    is in memory at a time. `torch.utils.checkpoint` does not compose with `torch.func`. `step` must be pure and capture
    no tensor that needs a gradient.
    """
    carried, carry_structure = pytree.tree_flatten(carry)
    leaves, constants_structure = pytree.tree_flatten(constants)
    tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}  # one that is used twice is one input
    places = {name: place for place, name in enumerate(tensors)}
    # This closure stays in the graph, so it knows the tensors by their places alone.
    slots = [(places[id(leaf)], None) if isinstance(leaf, Tensor) else (None, leaf) for leaf in leaves]
    count = len(carried)
    auxiliary_structure: Any = None

    def flat(inputs: Sequence[Tensor], turn: int) -> tuple[list[Tensor], list[Tensor]]:
        nonlocal auxiliary_structure
        filled = [leaf if place is None else inputs[count + place] for place, leaf in slots]
        after, auxiliary = step(
            pytree.tree_unflatten(list(inputs[:count]), carry_structure),
            pytree.tree_unflatten(filled, constants_structure),
            turn,
        )
        seen, auxiliary_structure = pytree.tree_flatten(auxiliary)
        return pytree.tree_leaves(after), seen

    results = _Recomputed.apply(flat, count, turns, *carried, *tensors.values())  # type: ignore[no-untyped-call]
    return (
        pytree.tree_unflatten(list(results[:count]), carry_structure),
        pytree.tree_unflatten(list(results[count:]), auxiliary_structure),
    )


class _Recomputed(torch.autograd.Function):
    """Steps that save nothing but their inputs: those of the first carry, then the constants."""

    generate_vmap_rule = True

    @staticmethod
    def forward(flat: Callable[..., Any], count: int, turns: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        carry, constants = list(inputs[:count]), inputs[count:]
        auxiliary: list[Tensor] = []
        for turn in range(turns):
            carry, auxiliary = flat((*carry, *constants), turn)
        return (*carry, *auxiliary)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.flat, ctx.count, ctx.turns, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        flat, count, turns = ctx.flat, ctx.count, ctx.turns
        carries, constants = [list(ctx.saved_tensors[:count])], ctx.saved_tensors[count:]
        for turn in range(turns - 1):
            carries.append(flat((*carries[-1], *constants), turn)[0])
        needs = [True] * count + list(ctx.needs_input_grad[3 + count :])
        needed = [place for place, needs_it in enumerate(needs) if needs_it]
        sums: list[Tensor | None] = [None] * len(constants)
        for turn in reversed(range(turns)):
            inputs = [*carries.pop(), *constants]

            def outputs(*tensors: Tensor, inputs: list[Tensor] = inputs, turn: int = turn) -> tuple[Tensor, ...]:
                filled = list(inputs)
                for place, tensor in zip(needed, tensors, strict=True):
                    filled[place] = tensor
                after, auxiliary = flat(filled, turn)
                return (*after, *auxiliary) if turn == turns - 1 else tuple(after)  # only the last auxiliary is used

            of_inputs = _pulled(outputs, [inputs[place] for place in needed], slopes)
            slopes = tuple(of_inputs[:count])
            for place, slope in zip(needed[count:], of_inputs[count:], strict=True):
                before = sums[place - count]
                sums[place - count] = slope if before is None else before + slope
        return (None, None, None, *slopes, *sums)


def _pulled(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], slopes: Sequence[Tensor]
) -> Sequence[Tensor]:
    """The vector-Jacobian product of `function` at `inputs`."""
    if transforms():
        return torch.func.vjp(function, *inputs)[1](tuple(slopes))  # type: ignore[no-any-return]
    with torch.enable_grad():
        own = [tensor.detach().requires_grad_() for tensor in inputs]
        pairs = [(out, slope) for out, slope in zip(function(*own), slopes, strict=True) if out.requires_grad]
    outputs, slopes = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, own, slopes, materialize_grads=True)


def needs_gradient(tree: Any) -> bool:
    """Whether any tensor of a pytree takes part in a graph."""
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(tree))


def detached(tree: Any) -> Any:
    """The same pytree, its tensors cut from the graph."""
    return pytree.tree_map_only(Tensor, Tensor.detach, tree)
