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

from handful.normalization import fitting

_of_thread = threading.local()
_copying = threading.Lock()


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a module by name, tied ones under each of their names."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def part(values: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of the child `name`, as itself names them."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def call(module: nn.Module, values: dict[str, Tensor], *arguments: Any) -> Any:
    """`module(*arguments)` with `values` in place of its parameters and buffers. Names all of them; writes none."""
    return functional_call(skeleton(module), values, arguments, tie_weights=False)


def call_and_fit(module: nn.Module, values: dict[str, Tensor], *arguments: Any) -> tuple[Any, dict[str, Tensor]]:
    """As `call`, with `support` normalization by this batch; also returns its statistics by buffer name."""
    own = skeleton(module)
    with fitting(own) as collect:
        outputs = functional_call(own, values, arguments, tie_weights=False)
        return outputs, collect()


def _without_numbers(tensor: Tensor) -> Tensor:
    """What stands in a skeleton for a tensor, which may be one of a running transform and is not copied."""
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def skeleton(module: nn.Module) -> nn.Module:
    """This thread's copy of `module` without numbers, in the same training mode."""
    cache: weakref.WeakKeyDictionary[nn.Module, nn.Module] | None = getattr(_of_thread, "skeletons", None)
    if cache is None:
        cache = _of_thread.skeletons = weakref.WeakKeyDictionary()
    if module not in cache:
        with _copying:
            cache[module] = copy.deepcopy(module, {id(t): _without_numbers(t) for t in tensors(module).values()})
    own = cache[module]
    if own.training != module.training:
        own.train(module.training)
    return own
