"""higher: *Generalized Inner Loop Meta-Learning* (Grefenstette et al., 2019), https://arxiv.org/abs/1910.01727."""

from importlib.metadata import version

import higher
import torch
from torch import Tensor

from benchmarks.engine.networks import LoopStep, TorchTask, loss_of, started
from benchmarks.engine.workloads import Workload

VERSIONS = {"torch": torch.__version__, "higher": version("higher")}


class InnerLoop(LoopStep):
    """Second-order MAML."""

    def __init__(self, workload: Workload, dtype: str) -> None:
        self.network = started(workload, dtype)
        super().__init__(workload, dtype, dict(self.network.named_parameters()))
        self.inner = torch.optim.SGD(self.network.parameters(), lr=workload.inner_lr)

    def task_loss(self, task: TorchTask) -> Tensor:
        """The query's loss after the inner loop."""
        with higher.innerloop_ctx(self.network, self.inner, copy_initial_weights=False) as (network, optimizer):
            for _ in range(self.workload.inner_steps):
                optimizer.step(loss_of(self.workload, network(task.support_inputs), task.support_targets))
            return loss_of(self.workload, network(task.query_inputs), task.query_targets)


def prepare(workload: Workload, dtype: str) -> InnerLoop:
    """The step of this implementation."""
    return InnerLoop(workload, dtype)
