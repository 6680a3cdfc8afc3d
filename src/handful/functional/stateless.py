"""Modules as pure functions of their tensors, safe to call from many threads.

`torch.func.functional_call` swaps the tensors of the module while it runs, so two threads on one module silently get
each other's weights (half of the results were wrong when measured). Here each thread calls a skeleton of its own: a
copy on the `meta` device that holds structure, and no numbers of parameters and buffers.
"""

import copy
import functools
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from handful.functional.normalization import fitting

AnyModule = TypeVar("AnyModule", bound=nn.Module)

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


def shared_copy(module: AnyModule) -> AnyModule:
    """A copy of the structure, about a millisecond: with the same tensors, and a training mode of its own."""
    return _copied(module, lambda tensor: tensor)


def own_copy(module: AnyModule) -> AnyModule:
    """A copy with tensors of its own, which keep no graph; also of a module that holds locks or computed tensors."""

    def own(tensor: Tensor) -> Tensor:
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return tensor  # what a hook kept of a transform that is over: it has no numbers any more
        numbers = tensor.detach().clone(memory_format=torch.preserve_format)
        return nn.Parameter(numbers, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else numbers

    return _copied(module, own)


def _copied(module: AnyModule, of_tensor: Callable[[Tensor], Tensor]) -> AnyModule:
    """A copy with `of_tensor` of each tensor. What holds neither modules nor tensors, such as an array, is shared."""
    found: dict[int, Any] = {id(module): module}
    holders: dict[int, list[int]] = {}
    waiting: deque[Any] = deque([module])
    with _copying:
        while waiting:
            value = waiting.popleft()
            for held in _held(value):
                holders.setdefault(id(held), []).append(id(value))
                if id(held) not in found:
                    found[id(held)] = held
                    waiting.append(held)
        apart = [key for key, value in found.items() if isinstance(value, (nn.Module, Tensor))]
        of_copy = set(apart)
        while apart:
            for holder in holders.get(apart.pop(), ()):
                if holder not in of_copy:
                    of_copy.add(holder)
                    apart.append(holder)
        memo = {key: of_tensor(value) for key, value in found.items() if isinstance(value, Tensor)}
        memo |= {key: value for key, value in found.items() if key not in of_copy and not isinstance(value, CONTAINERS)}
        return copy.deepcopy(module, memo)


CONTAINERS = (dict, list, tuple, set, frozenset)
"""Copied, since a module keeps its structure in them."""


def _held(value: Any) -> Iterable[Any]:
    """What a value refers to, as far as a copy of it would."""
    if isinstance(value, (Tensor, type, types.ModuleType, types.FunctionType, str, bytes, int, float)):
        return ()
    if isinstance(value, dict):
        return (*value, *value.values())
    if isinstance(value, CONTAINERS):
        return value
    if isinstance(value, types.MethodType):
        return (value.__self__,)
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    return (*getattr(value, "__dict__", {}).values(), *(getattr(value, name) for name in slots))


def skeleton(module: nn.Module) -> nn.Module:
    """This thread's copy of `module` without numbers, in the same training mode."""
    cache: weakref.WeakKeyDictionary[nn.Module, nn.Module] | None = getattr(_of_thread, "skeletons", None)
    if cache is None:
        cache = _of_thread.skeletons = weakref.WeakKeyDictionary()
        _of_thread.tied = weakref.WeakSet()
    if module not in cache:
        empty = {id(tensor): _without_numbers(tensor) for tensor in tensors(module).values()}
        own = _copied(module, lambda tensor: empty.get(id(tensor), tensor))
        cache[module] = own
        if len(_names(own, remove_duplicate=False)) > len(_names(own)):
            _of_thread.tied.add(own)  # looking for ties costs as much as a small network, so it is done once
    own = cache[module]
    if own.training != module.training:
        own.train(module.training)
    return own
