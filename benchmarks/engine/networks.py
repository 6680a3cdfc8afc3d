"""The networks of the workloads in PyTorch, and what all implementations in PyTorch share of a meta-step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.engine.workloads import Batch, Workload


class TorchTask(NamedTuple):
    """One task, or with one more leading axis a meta-batch."""

    support_inputs: Tensor
    support_targets: Tensor
    query_inputs: Tensor
    query_targets: Tensor


class MLP(nn.Module):
    """Fully connected layers with ReLU."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip((inputs, *widths), widths, strict=False))

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows to features."""
        for layer in self.layers:
            inputs = F.relu(layer(inputs))
        return inputs


class Conv4(nn.Module):
    """Four blocks of convolution, batch norm with the batch's own statistics, max-pooling and ReLU.

    As lean as handful's: no bias that the normalization would subtract, and the pooling before the ReLU.
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in zip((channels, *widths), widths, strict=False)
        )
        self.normalizations = nn.ModuleList(nn.BatchNorm2d(width, track_running_stats=False) for width in widths)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images to features."""
        maps = inputs  # channels_last was tried too: it is no faster for these loops, and slower at 84x84
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            maps = F.relu(F.max_pool2d(normalization(convolution(maps)), 2))
        return maps.flatten(1)


class Block(nn.Module):
    """A transformer's block: attention and two layers, each after a normalization and beside a shortcut."""

    HEADS = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalization1, self.normalization2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `(n, t, d)`; same shape. Attention is spelled out, since the fused one has no second derivative."""
        n, t, d = tokens.shape
        split = self.attend(self.normalization1(tokens)).view(n, t, 3, self.HEADS, d // self.HEADS)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each (n, heads, t, d / heads)
        weights = torch.softmax(queries @ keys.mT * (d // self.HEADS) ** -0.5, dim=-1)
        tokens = tokens + self.mix((weights @ values).transpose(1, 2).reshape(n, t, d))
        return tokens + self.contract(F.gelu(self.expand(self.normalization2(tokens))))


class Transformer(nn.Module):
    """Blocks, then the mean over tokens."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for width in widths)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `(n, t, d)` to features `(n, d)`."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.mean(1)


class Network(nn.Module):
    """A backbone, and a linear head where the method has one."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.backbone = backbone(workload)
        self.head = nn.Linear(workload.features, workload.outputs) if workload.method == "maml" else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` to outputs or features."""
        return self.head(self.backbone(inputs))


def backbone(workload: Workload) -> nn.Module:
    """The network up to its features, with any weights."""
    if workload.network == "mlp":
        return MLP(workload.input_shape[0], workload.widths)
    if workload.network == "conv4":
        return Conv4(workload.input_shape[0], workload.widths)
    return Transformer(workload.widths) if workload.network == "transformer" else nn.Identity()


def started(workload: Workload, dtype: str) -> Network:
    """The network with the workload's starting weights."""
    network = Network(workload).to(getattr(torch, dtype))
    network.load_state_dict(tensors(workload.start(), dtype))
    return network


def tensors(arrays: Mapping[str, NDArray[np.float64]], dtype: str) -> dict[str, Tensor]:
    """Weights as tensors."""
    return {name: torch.tensor(array, dtype=getattr(torch, dtype)) for name, array in arrays.items()}


def task_of(batch: Batch, dtype: str) -> TorchTask:
    """A meta-batch as tensors."""
    whole = (torch.from_numpy(array) for array in batch)
    return TorchTask(*(x.to(getattr(torch, dtype)) if x.is_floating_point() else x for x in whole))


def loss_of(workload: Workload, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, or mean squared error."""
    return F.cross_entropy(outputs, targets) if workload.classification else F.mse_loss(outputs, targets)


class TorchStep(ABC):
    """A meta-step in PyTorch: the meta-gradient into `grad`, then Adam."""

    def __init__(self, workload: Workload, dtype: str, parameters: dict[str, nn.Parameter]) -> None:
        self.workload, self.dtype, self.parameters = workload, dtype, parameters
        self.optimizer = torch.optim.Adam(parameters.values(), lr=workload.outer_lr, fused=True)

    def convert(self, batch: Batch) -> Any:
        """What `step` takes; its time does not count."""
        return task_of(batch, self.dtype)

    def step(self, tasks: Any) -> float:
        """One meta-step; returns the mean meta-loss."""
        self.optimizer.zero_grad()
        loss = self.backward(tasks)
        self.optimizer.step()
        return float(loss)

    def meta_gradient(self, tasks: Any) -> dict[str, NDArray[np.float64]]:
        """The gradient of the mean meta-loss by name."""
        self.optimizer.zero_grad()
        self.backward(tasks)
        return {name: parameter.grad.numpy() for name, parameter in self.parameters.items()}

    @abstractmethod
    def backward(self, tasks: Any) -> Tensor:
        """Put the meta-gradient into the parameters' `grad`; returns the mean meta-loss."""


class LoopStep(TorchStep):
    """A meta-step one task after another, so that the graph of only one is in memory at a time."""

    def backward(self, tasks: TorchTask) -> Tensor:
        """Sum the tasks' gradients."""
        total = torch.zeros((), dtype=getattr(torch, self.dtype))
        for task in zip(*tasks, strict=True):
            loss = self.task_loss(TorchTask(*task)) / self.workload.tasks
            loss.backward()
            total += loss.detach()
        return total

    @abstractmethod
    def task_loss(self, task: TorchTask) -> Tensor:
        """The meta-loss of one task."""
