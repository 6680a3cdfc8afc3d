"""Relation networks."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.closed_form_heads import centroids, without_absent
from handful.learners.learner import Learner
from handful.learners.options import Count
from handful.types import Categorical, Examples, Task, TaskSpec, TaskState


class RelationNetwork(Learner):
    """Learn how to compare a query with a class, rather than fix a distance.

    *Learning to Compare: Relation Network for Few-Shot Learning* (Sung et al., 2018), https://arxiv.org/abs/1711.06025.
    A class is the mean of its support features. Departures: backbones give flat features, not maps, so the relation
    module is a perceptron with one hidden layer of `width` smooth units (the paper's is convolutional, with ReLU), on
    the features of class and query and their absolute difference; meta-training minimizes the cross-entropy of the
    relation scores as logits. `loss="mse"` is the paper's: the squared error of their sigmoids, which shall be 1 for
    the true class and 0 for the others.
    """

    key = "relation"
    features_only = True
    kinds = frozenset({"classification"})
    predicts_absent = False

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        width: Count = 64,
        loss: Literal["cross-entropy", "mse"] = "cross-entropy",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.loss = loss
        features = feature_count(backbone, spec.input_shape)
        # A number added to all scores is nothing to a softmax.
        self.relation = nn.Sequential(
            nn.Linear(3 * features, width), nn.SiLU(), nn.Linear(width, 1, bias=loss == "mse")
        )

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Mean features of each class `(way, d)`, and which classes are present."""
        means, present = centroids(self.backbone(support.inputs), support.targets, spec.outputs)
        return {"means": means, "present": present}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """Logits are the relation scores before their sigmoid."""
        queries, means = self.backbone(inputs).unsqueeze(1), state["means"].unsqueeze(0)
        differences = (means - queries).abs()  # (queries, way, d)
        pairs = torch.cat([means.expand_as(differences), queries.expand_as(differences), differences], dim=-1)
        return Categorical(without_absent(self.relation(pairs).squeeze(-1), state["present"]))

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """Cross-entropy of the query, or the squared error of all its relation scores."""
        prediction = self.predict(self.adapt(task.support, spec), task.query.inputs)
        if self.loss == "cross-entropy":
            return self._mean(prediction.loss(task.query.targets), task, spec)
        wanted = F.one_hot(task.query.targets, spec.outputs)
        return (prediction.logits.sigmoid() - wanted).square().mean()
