"""Matching networks."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.closed_form_heads import ABSENT
from handful.learners.learner import Learner
from handful.learners.options import Positive
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState


class MatchingNetwork(Learner):
    """Predict the support's labels, weighted by attention in a learned embedding.

    *Matching Networks for One Shot Learning* (Vinyals et al., 2016), https://arxiv.org/abs/1606.04080. Attention is the
    softmax of cosines. Departures: cosines have a learned scale (`temperature` is where it starts), since without one
    no attention is sharp; regression predicts the attended mean of the targets. Full context embeddings are left
    out: their LSTM reads the support in an order, and examples of a task have none.
    """

    key = "matching"
    features_only = True
    state_holds_examples = True
    predicts_absent = False

    def __init__(self, spec: TaskSpec, backbone: nn.Module, *, temperature: Positive = 10.0) -> None:
        super().__init__()
        feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.classification = spec.classification
        self.log_scale = nn.Parameter(torch.tensor(math.log(temperature)))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The support's features of unit length `(n, d)` and its targets `(n, outputs)`, classes as one-hot vectors."""
        features = self._embed(support.inputs)
        targets = F.one_hot(support.targets, spec.outputs) if spec.classification else support.targets
        return {"features": features, "targets": targets.to(features, copy=True)}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """Logits are logarithms of the attention that falls on each class; or the attended mean."""
        scores = self._embed(inputs) @ state["features"].mT * self.log_scale.exp()  # (queries, n)
        if not self.classification:
            return Point(scores.softmax(-1) @ state["targets"])
        attention = scores.log_softmax(-1).unsqueeze(-1)  # (queries, n, 1)
        # Within the logarithms, which do not underflow where nothing of the attention is left for a class.
        return Categorical((attention - ABSENT * (1 - state["targets"])).logsumexp(1))

    def _embed(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.backbone(inputs), dim=-1)
