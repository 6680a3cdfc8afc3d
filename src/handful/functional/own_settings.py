"""PyTorch's settings as this package needs them, whatever the program around it has set for itself."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Values = TypeVar("Values")

_float32 = ExitStack()
_users = 0
_switching = threading.Lock()


@contextmanager
def own_settings() -> Iterator[None]:
    """Within it gradients can be taken, new tensors are on the CPU and of 32 bits, and nothing is cast by itself.

    So it leaves `torch.inference_mode`, `torch.no_grad`, autocast and default devices of the calling thread. Public
    functions that make or run networks are decorated with it. The default type of numbers is the whole process's:
    where it is another one, the first thread in sets it, and the last one out sets it back.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if _users or torch.get_default_dtype() != torch.float32:
            stack.enter_context(_numbers_of_32_bits())
        yield


@contextmanager
def _numbers_of_32_bits() -> Iterator[None]:
    global _users
    with _switching:
        if not _users:
            _float32.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        _users += 1
    try:
        yield
    finally:
        with _switching:
            _users -= 1
            if not _users:
                _float32.close()


def without_inference(values: Values) -> Values:
    """The same values, with a copy of each tensor that was made in `torch.inference_mode`: no gradient passes those.

    To be called within `own_settings`.
    """
    if isinstance(values, Tensor) and not values.is_inference():  # the most usual case, hundreds of times a second
        return values
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.clone() if tensor.is_inference() else tensor, values)  # type: ignore[no-any-return]
