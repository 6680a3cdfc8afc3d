"""Without a library: `torch.autograd.grad` in a loop, written by hand."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.engine.networks import LoopStep, TorchTask, loss_of, started
from benchmarks.engine.workloads import Workload

VERSIONS = {"torch": torch.__version__}

Forward = Callable[[dict[str, Tensor], Tensor], Tensor]


class InnerLoop(LoopStep):
    """Second-order MAML."""

    def __init__(self, workload: Workload, dtype: str, network: nn.Module) -> None:
        super().__init__(workload, dtype, dict(network.named_parameters()))
        by_hand = {"mlp": mlp, "conv4": conv4, "linear": head}
        self.forward: Forward = by_hand.get(workload.network, lambda weights, x: functional_call(network, weights, x))

    def task_loss(self, task: TorchTask) -> Tensor:
        """The query's loss after the inner loop."""
        fast: dict[str, Tensor] = dict(self.parameters)
        for _ in range(self.workload.inner_steps):
            loss = loss_of(self.workload, self.forward(fast, task.support_inputs), task.support_targets)
            gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            steps = zip(fast.items(), gradients, strict=True)
            fast = {name: weight - self.workload.inner_lr * gradient for (name, weight), gradient in steps}
        return loss_of(self.workload, self.forward(fast, task.query_inputs), task.query_targets)


class Prototypes(LoopStep):
    """Prototypical networks."""

    def __init__(self, workload: Workload, dtype: str, network: nn.Module) -> None:
        super().__init__(workload, dtype, dict(network.named_parameters()))
        self.network = network

    def task_loss(self, task: TorchTask) -> Tensor:
        """Cross-entropy of the query with negative squared distances as logits.

        Support and query are embedded apart, each normalized by its own statistics, as in adapting to a task.
        """
        support, query = self.network(task.support_inputs), self.network(task.query_inputs)
        prototypes = support.view(self.workload.way, self.workload.shot, -1).mean(1)  # examples come class by class
        distances = (query.unsqueeze(1) - prototypes).square().sum(-1)
        return F.cross_entropy(-distances, task.query_targets)


def prepare(workload: Workload, dtype: str) -> LoopStep:
    """The step of this implementation."""
    network = started(workload, dtype)
    return (InnerLoop if workload.method == "maml" else Prototypes)(workload, dtype, network)


def mlp(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """`networks.MLP` and head as a function of their weights."""
    *hidden, last = list(zip(*[iter(weights.values())] * 2, strict=True))  # weight and bias of each layer
    for weight, bias in hidden:
        inputs = F.relu(F.linear(inputs, weight, bias))
    return F.linear(inputs, *last)


def conv4(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """`networks.Conv4` and head as a function of their weights."""
    maps = inputs
    for block in range(4):
        scale, shift = (weights[f"backbone.normalizations.{block}.{name}"] for name in ("weight", "bias"))
        maps = F.conv2d(maps, weights[f"backbone.convolutions.{block}.weight"], padding=1)
        maps = F.relu(F.max_pool2d(F.batch_norm(maps, None, None, scale, shift, training=True), 2))
    return head(weights, maps.flatten(1))


def head(weights: dict[str, Tensor], features: Tensor) -> Tensor:
    """The linear head."""
    return F.linear(features, weights["head.weight"], weights["head.bias"])
