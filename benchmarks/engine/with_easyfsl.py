"""easyfsl's prototypical networks, https://github.com/sicara/easy-few-shot-learning."""

from importlib.metadata import version

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.engine.networks import LoopStep, TorchTask, started
from benchmarks.engine.partial import without_init
from benchmarks.engine.workloads import Workload

without_init("easyfsl", "easyfsl.methods")

from easyfsl.methods.prototypical_networks import PrototypicalNetworks  # noqa: E402

VERSIONS = {"torch": torch.__version__, "easyfsl": version("easyfsl")}


class Squared(PrototypicalNetworks):
    """With squared distances, as in the paper; easyfsl takes their roots."""

    def l2_distance_to_prototypes(self, samples: Tensor) -> Tensor:
        """Logits `(n, way)`."""
        return -super().l2_distance_to_prototypes(samples).square()


class Prototypes(LoopStep):
    """Prototypical networks."""

    def __init__(self, workload: Workload, dtype: str) -> None:
        self.network = started(workload, dtype)
        super().__init__(workload, dtype, dict(self.network.named_parameters()))
        self.classifier = Squared()

    def task_loss(self, task: TorchTask) -> Tensor:
        """Cross-entropy of the query; support and query are embedded apart, and the classifier takes features."""
        support, query = self.network(task.support_inputs), self.network(task.query_inputs)
        self.classifier.process_support_set(support, task.support_targets)
        return F.cross_entropy(self.classifier(query), task.query_targets)


def prepare(workload: Workload, dtype: str) -> Prototypes:
    """The step of this implementation."""
    return Prototypes(workload, dtype)
