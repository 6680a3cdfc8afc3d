"""Fast context adaptation: a few numbers that are a task's own."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.inner_loop import SGD, descend
from handful.functional.stateless import call, tensors
from handful.learners.learner import Learner, Race
from handful.learners.options import Count, Positive
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState


class CAVIA(Learner):
    """Adapt only a few context numbers by gradient steps, under a network that is the same for all tasks.

    *Fast Context Adaptation via Meta-Learning* (Zintgraf et al., 2019), https://arxiv.org/abs/1810.03642. The context
    starts at zero and scales and shifts the backbone's features (FiLM, *Visual Reasoning with a General Conditioning
    Layer*, Perez et al., 2018, https://arxiv.org/abs/1709.07871); a hidden layer and an output follow. Departures: the
    paper modulates each layer or extends the input, here any backbone stays as it is and is run once per task; each
    class has a context of its own and all share one output, so that it takes any way and no class number is special.
    Where classes mean the same in all tasks, the start of each one's context is learned.
    """

    key = "cavia"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 5}
    candidate_on: ClassVar[dict[Race, str]] = {"rows": "boosted"}

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: Positive = 1.0,
        inner_steps: Count = 2,
        context: Count = 16,
        hidden: Count = 64,
        first_order: bool = False,
    ) -> None:
        super().__init__()
        features = feature_count(backbone, spec.input_shape)
        self.backbone, self.outputs = backbone, spec.outputs
        self.classification = spec.classification
        self.context, self.first_order = context, first_order
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.any_way = spec.labels == "permuted"
        contexts = spec.outputs if self.classification and not self.any_way else 1
        self.first = nn.Parameter(torch.zeros(contexts, context), requires_grad=contexts > 1)
        self.decoder = _Decoder(
            context,
            features,
            hidden,
            1 if spec.classification else spec.outputs,
            bias=not spec.classification,  # added to all classes, it is nothing to a softmax
        )

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The context: `(way, context)`, or `(1, context)` for values."""
        self._check_outputs(spec)
        features = self.backbone(support.inputs)
        first = self.first.expand(spec.outputs, -1) if self.any_way else self.first
        state, _ = descend(
            self._inner_loss,
            {"context": first},
            {"decoder": tensors(self.decoder), "features": features, "targets": support.targets},
            rule=SGD(self.inner_lr),
            steps=self.inner_steps,
            first_order=self.first_order,
        )
        return state

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The network's outputs under the task's context."""
        return self._predict(tensors(self.decoder), self.backbone(inputs), state["context"])

    def _inner_loss(self, state: dict[str, Tensor], given: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        prediction = self._predict(given["decoder"], given["features"], state["context"])
        return prediction.loss(given["targets"]).mean(), {}

    def _predict(self, decoder: dict[str, Tensor], features: Tensor, context: Tensor) -> Prediction:
        outputs = call(self.decoder, decoder, features, context)  # (contexts, n, outputs)
        return Categorical(outputs.squeeze(-1).mT) if self.classification else Point(outputs.squeeze(0))


class _Decoder(nn.Module):
    """Outputs from features and contexts."""

    def __init__(self, context: int, features: int, hidden: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(context, 2 * features)
        self.hidden = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden, outputs, bias=bias)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Features `(n, features)` and contexts `(contexts, context)` to `(contexts, n, outputs)`."""
        scale, shift = self.modulation(context).unsqueeze(1).chunk(2, dim=-1)  # (contexts, 1, features)
        outputs: Tensor = self.output(F.relu(self.hidden(features * (1 + scale) + shift)))
        return outputs
