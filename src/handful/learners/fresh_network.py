"""A network that each task trains from a start that is not meta-learned."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.engine.differentiation import Weights
from handful.engine.stateless import call, call_and_fit, part, tensors, under
from handful.learners.learner import Learner
from handful.types import Categorical, Point, Prediction, TaskSpec, TaskState


class FreshNetwork(Learner):
    """Backbone and linear head that a task trains as a whole; `adapt` says how.

    The backbone's weights are a start, and no meta-parameters. Batch norm uses the statistics of what is shown.
    """

    normalizations = ("support",)

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.trainable = frozenset(name for name, p in backbone.named_parameters() if p.requires_grad)
        self.features = feature_count(backbone, spec.input_shape)
        self.backbone = backbone.requires_grad_(False)
        self.classification = spec.classification

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The task's own network."""
        return self._answer(self._network() | state["weights"] | state["statistics"], inputs)

    def _inner_loss(self, weights: Weights, context: dict[str, Any]) -> tuple[Tensor, Weights]:
        """The mean loss of `context["support"]`, and the normalization's statistics of it."""
        weights, support = context["slow"] | weights, context["support"]
        features, statistics = call_and_fit(self.backbone, part(weights, "backbone"), support.inputs)
        return self._prediction(weights, features).loss(support.targets).mean(), under("backbone", statistics)

    def _answer(self, weights: Weights, inputs: Tensor) -> Prediction:
        return self._prediction(weights, call(self.backbone, part(weights, "backbone"), inputs))

    def _prediction(self, weights: Weights, features: Tensor) -> Prediction:
        outputs = F.linear(features, weights["head.weight"], weights.get("head.bias"))
        return Categorical(outputs) if self.classification else Point(outputs)

    def _network(self) -> Weights:
        return under("backbone", tensors(self.backbone))

    def _trainable(self, network: Weights) -> Weights:
        """Those of a network's tensors that a task trains."""
        return {name: value for name, value in network.items() if name.removeprefix("backbone.") in self.trainable}
