"""Modules as pure functions of their tensors, safe to call from many threads.

`torch.func.functional_call` swaps the tensors of the module while it runs, so two threads on one module silently get
each other's weights (half of the results were wrong when measured). Here each thread calls a skeleton of its own: a
copy on the `meta` device that holds structure and no numbers.
"""

import copy
import threading
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from handful.functional.normalization import fitting

_of_thread = threading.local()
_copying = threading.Lock()


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a module by name, tied ones once."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def part(values: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of the child `name`, as itself names them."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def under(name: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the child `name`, as its parent names them: what `part` undoes."""
    return {f"{name}.{key}": value for key, value in values.items()}


def as_row(weights: dict[str, Tensor]) -> Tensor:
    """All weights as one long row."""
    return torch.cat([weight.reshape(-1) for weight in weights.values()])


def in_shape(row: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `as_row`, for weights of these names and shapes."""
    rows = torch.split(row, [weight.numel() for weight in like.values()])
    return {name: own.view(weight.shape) for (name, weight), own in zip(like.items(), rows, strict=True)}


def call(module: nn.Module, values: dict[str, Tensor], *arguments: Any) -> Any:
    """`module(*arguments)` with `values` in place of its parameters and buffers. Names all of them; writes none."""
    own = skeleton(module)
    return functional_call(own, values, arguments, tie_weights=own in _of_thread.tied)


def call_and_fit(module: nn.Module, values: dict[str, Tensor], *arguments: Any) -> tuple[Any, dict[str, Tensor]]:
    """As `call`, with `support` normalization by this batch; also returns its statistics by buffer name."""
    own = skeleton(module)
    with fitting(own) as collect:
        outputs = functional_call(own, values, arguments, tie_weights=own in _of_thread.tied)
        return outputs, collect()


def _without_numbers(tensor: Tensor) -> Tensor:
    """What stands in a skeleton for a tensor, which may be one of a running transform and is not copied."""
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _names(module: nn.Module, *, remove_duplicate: bool = True) -> list[str]:
    named = (module.named_parameters, module.named_buffers)
    return [name for each in named for name, _ in each(remove_duplicate=remove_duplicate)]


def skeleton(module: nn.Module) -> nn.Module:
    """This thread's copy of `module` without numbers, in the same training mode."""
    cache: weakref.WeakKeyDictionary[nn.Module, nn.Module] | None = getattr(_of_thread, "skeletons", None)
    if cache is None:
        cache = _of_thread.skeletons = weakref.WeakKeyDictionary()
        _of_thread.tied = weakref.WeakSet()
    if module not in cache:
        with _copying:
            own = copy.deepcopy(module, {id(t): _without_numbers(t) for t in tensors(module).values()})
        cache[module] = own
        if len(_names(own, remove_duplicate=False)) > len(_names(own)):
            _of_thread.tied.add(own)  # looking for ties costs as much as a small network, so it is done once
    own = cache[module]
    if own.training != module.training:
        own.train(module.training)
    return own
