"""Baseline++: a cosine classifier on pre-trained features."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from handful.functional.differentiation import Weights
from handful.learners.options import Count, Positive
from handful.learners.transfer import FineTuneHead
from handful.types import Categorical, Examples, TaskSpec


class BaselinePlusPlus(FineTuneHead):
    """Train a cosine classifier on the fixed pre-trained features of the support.

    *A Closer Look at Few-shot Classification* (Chen et al., 2019), https://arxiv.org/abs/1904.04232. The logits are
    the cosines of the features with one weight vector per class, times `temperature`. Departures: Adam; the weights
    start from the class means instead of anywhere; `inner_lr` is chosen on validation tasks. The paper pre-trains with
    a cosine classifier, too: so does `pretraining_head="cosine"`. As a baseline of the ladder it shares the
    pre-training of the other baselines, which have a linear head.
    """

    key = "baseline-plus-plus"
    kinds = frozenset({"classification"})
    labels = frozenset({"permuted"})  # where labels are shared, there is a head of pre-training to go on from

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: Positive = 0.01,
        inner_steps: Count = 50,
        temperature: Positive = 10.0,
        pretraining_head: Literal["linear", "cosine"] = "linear",
    ) -> None:
        super().__init__(spec, backbone, inner_lr=inner_lr, inner_steps=inner_steps)
        self.temperature = temperature
        self.cosine = pretraining_head == "cosine"

    def _start(self, support: Examples, spec: TaskSpec) -> Weights:
        return {"head.weight": super()._start(support, spec)["head.weight"]}

    def _prediction(self, weights: Weights, features: Tensor) -> Categorical:
        cosines = F.normalize(features, dim=-1) @ F.normalize(weights["head.weight"], dim=-1).mT
        return Categorical(self.temperature * cosines)
