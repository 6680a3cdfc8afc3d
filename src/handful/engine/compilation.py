"""Compiling a function of tensors that differentiates within itself."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from handful.notes import note

Flat: TypeAlias = Callable[..., Any]
"""A function of tensors alone, one after another; it returns a pytree of tensors."""


def compiled(function: Flat, example: Sequence[Tensor]) -> Flat:
    """`function` as one graph for inputs of these shapes and strides, without a gradient of its own.

    It is traced through its own autograd and `torch.func` first, since `torch.compile` around a module breaks double
    backward. If the compiler fails or is missing, a note is made and the function is returned unchanged.
    """
    from torch._inductor import compile as inductor  # without Dynamo, whose guards take as long as a small step
    from torch.fx.experimental.proxy_tensor import make_fx

    shape: Any = None

    def listed(*inputs: Tensor) -> list[Any]:
        nonlocal shape
        results, shape = pytree.tree_flatten(function(*inputs))
        return list(results)

    def run(*inputs: Tensor) -> Any:
        with torch.no_grad():  # the graph holds its backward passes as ordinary operations
            return pytree.tree_unflatten(graph(*inputs), shape)

    try:
        example = [tensor.detach() for tensor in example]
        with warnings.catch_warnings(action="ignore"):  # what the compiler says to its authors
            graph = inductor(make_fx(listed)(*example), [*example])
            run(*example)
    except Exception as error:  # whatever a compiler can raise
        reason = (str(error).splitlines() or [""])[0]
        note(
            "not-compiled",
            f"The meta-step could not be compiled and runs uncompiled ({type(error).__name__}: {reason}).",
        )
        return function
    return run
