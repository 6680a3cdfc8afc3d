"""A network that each task trains from a start that is not meta-learned."""

from torch import nn

from handful.functional.differentiation import Weights
from handful.learners.task_networks import TaskNetwork
from handful.types import TaskSpec


class FreshNetwork(TaskNetwork):
    """Backbone and linear head that a task trains as a whole; `adapt` says how.

    The backbone's weights are a start, and no meta-parameters. Batch norm uses the statistics of what is shown.
    """

    normalizations = ("support",)

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
        super().__init__(spec, backbone.requires_grad_(False))
        self.trainable = frozenset(trained)

    def _trainable(self, network: Weights) -> Weights:
        """Those of a network's tensors that a task trains."""
        return {name: value for name, value in network.items() if name.removeprefix("backbone.") in self.trainable}
