"""Siamese networks."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.closed_form_heads import without_absent
from handful.learners.learner import Learner
from handful.learners.options import Count, Positive
from handful.types import Categorical, Examples, Task, TaskSpec, TaskState

ROUNDING = 1e-3
"""Features that differ by less than this, of 1 at most, are on the round bottom of the absolute value."""


class SiameseNetwork(Learner):
    """Learn whether two examples are of the same class, and classify by the likeness to each class's examples.

    *Siamese Neural Networks for One-shot Image Recognition* (Koch, Zemel & Salakhutdinov, 2015),
    https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf. Both of a pair go through the same network, whose last layer
    has `width` sigmoids; a weighted L1 distance of these is the logit of "same". A class's logit is the mean of its
    support examples' (the paper has one). Departures: meta-training minimizes the cross-entropy of the query's class;
    `loss="verification"` is the paper's, which asks of each pair alone whether it is of one class: here of all pairs of
    a task, support and query, where those of the same class weigh as much as the others, so that the logit of a pair is
    a likelihood ratio. The absolute value is round at 0, so that its derivative is continuous; the weights start so
    that near means same (`steepness` is their sum).
    """

    key = "siamese"
    features_only = True
    state_holds_examples = True
    kinds = frozenset({"classification"})
    predicts_absent = False

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        width: Count = 128,
        steepness: Positive = 60.0,
        loss: Literal["cross-entropy", "verification"] = "cross-entropy",
    ) -> None:
        super().__init__()
        self.loss = loss
        self.embedding = nn.Linear(feature_count(backbone, spec.input_shape), width)
        self.backbone = backbone
        self.weight = nn.Parameter(torch.full((width,), -steepness / width))
        # A number added to all logits is nothing to a softmax.
        self.bias = nn.Parameter(torch.tensor(1.0), requires_grad=loss == "verification")

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Features of the support `(n, width)`, each class's share of it `(n, way)`, and which classes are present."""
        features = self._embed(support.inputs)
        member = F.one_hot(support.targets, spec.outputs).to(features)
        counts = member.sum(0)
        return {"features": features, "shares": member / counts.clamp_min(1), "present": counts > 0}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """Logits are the means, over a class's support, of the logits of being of the same class."""
        same = self._same(self._embed(inputs).unsqueeze(1), state["features"])  # (queries, n)
        return Categorical(without_absent(same @ state["shares"], state["present"]))

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """Cross-entropy of the query, or of same or different for all pairs, the mean of both kinds of pair."""
        if self.loss == "cross-entropy":
            return super().meta_loss(task, spec, noise)
        features = self._judged(self._features_of(task))
        targets = torch.cat([task.support.targets, task.query.targets])
        one, other = torch.triu_indices(len(targets), len(targets), offset=1, device=targets.device)
        logits = self._same(features[one], features[other])
        same = targets[one] == targets[other]
        return 0.5 * (_mean(F.softplus(-logits), same) + _mean(F.softplus(logits), ~same))

    def _embed(self, inputs: Tensor) -> Tensor:
        return self._judged(self.backbone(inputs))

    def _judged(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.embedding(features))

    def _same(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits `(...)` of features `(..., width)` being of the same class."""
        return ((first - second).square() + ROUNDING**2).sqrt() @ self.weight + self.bias


def _mean(losses: Tensor, which: Tensor) -> Tensor:
    """The mean of some losses; 0 without any."""
    return (losses * which).sum() / which.sum().clamp_min(1)
