"""A support vector machine as the task's head."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.svm import multiclass_svm
from handful.learners.learner import Learner
from handful.learners.options import Positive
from handful.types import Categorical, Examples, TaskSpec, TaskState


class MetaOptNet(Learner):
    """Train a linear support vector machine on learned features to its optimum, and differentiate through the optimum.

    *Meta-Learning with Differentiable Convex Optimization* (Lee et al., 2019), https://arxiv.org/abs/1904.03758. The
    machine is Crammer and Singer's for several classes; `penalty` is its C, what an error costs against the weights'
    norm. The scale of the logits is meta-learned. Departures: features are divided by the root of their number, so
    that `penalty` means the same for every backbone; the machine has a bias, which counts in the norm; the authors'
    program adds the identity to the matrix of the dual problem, here it is a millionth of the matrix's size.
    """

    key = "metaoptnet"
    features_only = True
    kinds = frozenset({"classification"})

    def __init__(self, spec: TaskSpec, backbone: nn.Module, *, penalty: Positive = 1.0) -> None:
        super().__init__()
        self.root = feature_count(backbone, spec.input_shape) ** 0.5
        self.backbone = backbone
        self.penalty = penalty
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The machine's weights `(way, d)` and bias `(way,)`."""
        features = self.backbone(support.inputs) / self.root
        weights, bias = multiclass_svm(features, support.targets, spec.outputs, self.penalty)
        return {"weights": (weights.mT / self.root).contiguous(), "bias": bias}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """The machine's scores, scaled, as logits."""
        scores = F.linear(self.backbone(inputs), state["weights"], state["bias"])
        return Categorical(scores * self.log_scale.exp())
