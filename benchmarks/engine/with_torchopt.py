"""TorchOpt: *TorchOpt: An Efficient Library for Differentiable Optimization* (Ren et al., 2023).

https://arxiv.org/abs/2211.06934, used as its own MAML example does.
"""

from importlib.metadata import version

import torch
import torchopt
from torch import Tensor

from benchmarks.engine.networks import LoopStep, TorchTask, loss_of, started
from benchmarks.engine.workloads import Workload

VERSIONS = {"torch": torch.__version__, "torchopt": version("torchopt")}


class InnerLoop(LoopStep):
    """Second-order MAML."""

    def __init__(self, workload: Workload, dtype: str) -> None:
        self.network = started(workload, dtype)
        super().__init__(workload, dtype, dict(self.network.named_parameters()))
        self.inner = torchopt.MetaSGD(self.network, lr=workload.inner_lr)
        self.start = [torchopt.extract_state_dict(part, by="reference") for part in (self.network, self.inner)]

    def task_loss(self, task: TorchTask) -> Tensor:
        """The query's loss after the inner loop."""
        for _ in range(self.workload.inner_steps):
            self.inner.step(loss_of(self.workload, self.network(task.support_inputs), task.support_targets))
        loss = loss_of(self.workload, self.network(task.query_inputs), task.query_targets)
        for part, state in zip((self.network, self.inner), self.start, strict=True):
            torchopt.recover_state_dict(part, state)
        return loss


def prepare(workload: Workload, dtype: str) -> InnerLoop:
    """The step of this implementation."""
    return InnerLoop(workload, dtype)
