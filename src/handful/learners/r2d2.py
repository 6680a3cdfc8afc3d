"""Ridge regression as the task's head."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.closed_form_heads import ridge
from handful.learners.learner import Learner, Race
from handful.learners.options import Positive, by_kind
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState

REGULARIZATION = by_kind(classification=1.0, regression=0.01)


class R2D2(Learner):
    """Solve a ridge regression on learned features, in closed form, and differentiate through the solution.

    *Meta-learning with differentiable closed-form solvers* (Bertinetto et al., 2019), https://arxiv.org/abs/1805.08136.
    The regularization, times the number of features, and for classification the scale of the logits are meta-learned
    (an offset of them would be nothing to a softmax). The regularization starts lower for values: no scale makes good
    what it shrinks there. Departure: the head has a free intercept (features and targets are centered).
    """

    key = "r2d2"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 2, "rows": 2}

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        regularization: Positive = REGULARIZATION,
    ) -> None:
        super().__init__()
        feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.log_regularization = nn.Parameter(torch.tensor(math.log(regularization)))
        if spec.classification:
            self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The head's weights `(outputs, d)` and bias `(outputs,)`."""
        features = self.backbone(support.inputs)
        targets = support.targets
        if spec.classification:
            targets = F.one_hot(targets, spec.outputs).to(features)
        # Times the number of features, the regularization means the same for every backbone.
        regularization = self.log_regularization.exp() * features.shape[-1]
        weights, bias = ridge(features, targets, regularization)
        return {"weights": weights.mT.contiguous(), "bias": bias}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """Scaled head outputs as logits, or the head's outputs as values."""
        outputs = F.linear(self.backbone(inputs), state["weights"], state["bias"])
        if hasattr(self, "log_scale"):
            return Categorical(outputs * self.log_scale.exp())
        return Point(outputs)
