"""Reduced precision: the network multiplies in bfloat16, and everything else stays in float32."""

import copy
import threading
from contextlib import ExitStack
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from handful.functional.stateless import skeleton

Precision: TypeAlias = Literal["fp32", "bf16"]
PRECISIONS = ("fp32", "bf16")


def in_bfloat16(learner: nn.Module) -> nn.Module:
    """The structure of a learner whose backbone computes in bfloat16, for `functional.stateless.call`.

    Only the forward pass of the backbone is within `torch.autocast`: gradients, also those of inner steps, are taken
    outside, as the threads of autograd do not take over the type of autocast; and heads solve equations, which take
    float32. Weights, gradients and the optimizer stay in float32.
    """
    structure = copy.deepcopy(skeleton(learner))
    _Autocast(structure.backbone)
    return structure


class _Autocast:
    """Hooks that open autocast before a network's forward pass and close it behind, also where that raises.

    The threads of a plan share them, and autocast is of one thread: each has a list of its own of what is open.
    """

    def __init__(self, network: Any) -> None:
        self.of_thread = threading.local()
        network.register_forward_pre_hook(self.open)
        network.register_forward_hook(self.close, always_call=True)

    @property
    def opened(self) -> list[ExitStack]:
        """In this thread."""
        found: list[ExitStack] = self.of_thread.__dict__.setdefault("opened", [])
        return found

    def open(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.opened.append(ExitStack())
        # Weights change from step to step, and are not to be kept in bfloat16.
        self.opened[-1].enter_context(torch.autocast(inputs[0].device.type, torch.bfloat16, cache_enabled=False))

    def close(self, network: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor | None) -> Tensor | None:
        self.opened.pop().close()
        return outputs.float() if outputs is not None and outputs.dtype == torch.bfloat16 else outputs
