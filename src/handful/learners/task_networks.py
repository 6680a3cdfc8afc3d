"""Networks of which each task has weights of its own."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.differentiation import Weights
from handful.functional.stateless import call, call_and_fit, part, tensors, under
from handful.learners.learner import Learner
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState


class TaskNetwork(Learner):
    """Backbone and linear head; a state is the task's own weights, and the normalization's statistics under them."""

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.features = feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.classification = spec.classification

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The network's outputs under the task's weights."""
        weights: Weights = self._network() | state["weights"]
        features, _ = self._features(weights | state["statistics"], inputs, fit=False)
        return self._answer(weights, features)

    def _inner_loss(self, fast: Weights, context: dict[str, Any]) -> tuple[Tensor, Weights]:
        """The mean loss of `context["support"]`, and the normalization's statistics of it."""
        weights, support = context["slow"] | fast, context["support"]
        features, statistics = self._features(weights, support.inputs, fit=True)
        return self._answer(weights, features).loss(support.targets).mean(), statistics

    def _query_loss(self, fast: Weights, statistics: Weights, query: Examples) -> Tensor:
        state = {"weights": fast, "statistics": statistics}
        return self.predict(state, query.inputs).loss(query.targets).mean()

    def _answer(self, weights: Weights, features: Tensor) -> Prediction:
        outputs = F.linear(features, weights["head.weight"], weights.get("head.bias"))
        return Categorical(outputs) if self.classification else Point(outputs)

    def _features(self, weights: Weights, inputs: Tensor, *, fit: bool) -> tuple[Tensor, Weights]:
        """Those of the inputs; and with `fit`, by the normalization's statistics of them, which come along."""
        own = part(weights, "backbone")
        if not fit:
            return call(self.backbone, own, inputs), {}
        features, statistics = call_and_fit(self.backbone, own, inputs)
        return features, under("backbone", statistics)

    def _network(self) -> Weights:
        """All that tasks share of parameters and buffers, by name."""
        return under("backbone", tensors(self.backbone))
