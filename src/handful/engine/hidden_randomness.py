"""Random numbers that a network draws by itself, as by `F.dropout` or `nn.LSTM(dropout=...)`."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from handful.engine.threads import unfused_attention


def drawing_operation(function: Callable[[], object]) -> tuple[str, bool] | None:
    """The first operation in `function` that draws random numbers, and whether from a generator that the network keeps.

    None where there is none. An error of the function ends the search: it comes again where the function is used.
    """
    search = _Search()
    with suppress(Exception), unfused_attention(), search:
        function()
    return search.found


class _Search(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks for an operation that changes the state of a generator: many that can draw do not, at a dropout of 0."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: tuple[str, bool] | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.found or torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        own: Generator | None = kwargs.get("generator")
        generators = [own] if own is not None else _global_generators()
        before = [generator.get_state() for generator in generators]
        result = func(*args, **kwargs)
        if not all(map(_same, generators, before)):
            self.found = func.overloadpacket.__name__, own is not None
        return result


def _same(generator: Generator, state: Tensor) -> bool:
    return torch.equal(generator.get_state(), state)


def _global_generators() -> list[Generator]:
    of_gpus = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return [torch.default_generator, *of_gpus]
