"""learn2learn: *learn2learn: A Library for Meta-Learning Research* (Arnold et al., 2020).

https://arxiv.org/abs/2008.12284. Its own MAML, which is pure Python; the extensions beside it are for data sets.
"""

import torch
from torch import Tensor

from benchmarks.engine.networks import LoopStep, TorchTask, loss_of, started
from benchmarks.engine.partial import without_init
from benchmarks.engine.workloads import Workload

without_init("learn2learn", "learn2learn.algorithms")

from learn2learn._version import __version__  # noqa: E402
from learn2learn.algorithms.maml import MAML  # noqa: E402

VERSIONS = {"torch": torch.__version__, "learn2learn": __version__}


class InnerLoop(LoopStep):
    """Second-order MAML."""

    def __init__(self, workload: Workload, dtype: str) -> None:
        network = started(workload, dtype)
        super().__init__(workload, dtype, dict(network.named_parameters()))
        self.maml = MAML(network, lr=workload.inner_lr)

    def task_loss(self, task: TorchTask) -> Tensor:
        """The query's loss after the inner loop."""
        learner = self.maml.clone()
        for _ in range(self.workload.inner_steps):
            learner.adapt(loss_of(self.workload, learner(task.support_inputs), task.support_targets))
        return loss_of(self.workload, learner(task.query_inputs), task.query_targets)


def prepare(workload: Workload, dtype: str) -> InnerLoop:
    """The step of this implementation."""
    return InnerLoop(workload, dtype)
