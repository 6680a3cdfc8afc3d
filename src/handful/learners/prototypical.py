"""Prototypical networks."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.errors import UserError
from handful.functional.closed_form_heads import centroids, squared_distances, without_absent
from handful.functional.image_warps import random_maps, warped
from handful.learners.learner import Learner, Race
from handful.learners.options import Count, Positive
from handful.types import Categorical, Examples, Task, TaskSpec, TaskState

EXTENT = 0.5
"""How far views go: with 3 of them, 0.5 scored best of 0.25, 0.5 and 1 on validation letters of `glyphs`."""


class PrototypicalNetwork(Learner):
    """Classify by the nearest class mean in a learned embedding.

    *Prototypical Networks for Few-shot Learning* (Snell, Swersky & Zemel, 2017), https://arxiv.org/abs/1703.05175.
    Departures: distances are means over features instead of sums, and their scale is learned (`temperature` is where
    it starts), which spares the choice of one for each embedding size. `loss="neighbors"` meta-trains without
    prototypes: every example of the task, support or query, should find those of its class among all others, which
    takes more from each task (*On Episodes, Prototypical Networks, and Few-Shot Learning*, Laenen & Bertinetto, 2021,
    https://arxiv.org/abs/2012.09831); adapting stays the same. `distance="cosine"` compares directions alone, as the
    `transfer` baseline does, so that meta-training goes on from where pre-training (`pretrain`) ends (*Meta-Baseline:
    Exploring Simple Meta-Learning for Few-Shot Learning*, Chen et al., 2021, https://arxiv.org/abs/2003.04390;
    departure: prototypes have unit length, too). With `views` above 1, adapting and predicting (not meta-training)
    embed each image also in that many less one random affine views, the same for all images, and take the mean of the
    features, at the cost of as many passes.

    >>> from handful.types import Examples, TaskSpec
    >>> spec = TaskSpec("classification", (2,), 2)
    >>> learner = PrototypicalNetwork.build(spec)
    >>> state = learner.adapt(Examples(torch.eye(2), torch.tensor([0, 1])), spec)
    >>> learner.predict(state, torch.eye(2)).logits.argmax(-1)
    tensor([0, 1])
    """

    key = "protonet"
    kinds = frozenset({"classification"})
    predicts_absent = False
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 1}

    maps: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        temperature: Positive = 10.0,
        loss: Literal["prototypes", "neighbors"] = "prototypes",
        distance: Literal["euclidean", "cosine"] = "euclidean",
        views: Count = 1,
    ) -> None:
        super().__init__()
        if views > 1 and len(spec.input_shape) != 3:
            raise UserError(
                f"Views are made of images (channels, height, width), not of inputs of shape {spec.input_shape}. "
                "Leave views=1."
            )
        self.loss, self.distance = loss, distance
        feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.log_scale = nn.Parameter(torch.tensor(math.log(temperature)))
        self.views = views
        self.features_only = views == 1
        if views > 1:  # without them the weights on disk stay those of one view
            self.register_buffer("maps", random_maps(views - 1, EXTENT))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Prototypes `(way, d)`, and which classes have one."""
        return self._state(self._embed(support.inputs), support.targets, spec)

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """Logits are negative scaled distances to the prototypes."""
        return self._classify(state, self._embed(inputs))

    def predict_stacked(self, states: TaskState, inputs: Tensor) -> Categorical | None:
        """The inputs of all tasks are embedded together, where an embedding is the same alone and among others."""
        if not self.pointwise:
            return None
        features = self._embed(inputs.flatten(0, 1))  # (tasks * n, d)
        return self._classify(states, features.reshape(*inputs.shape[:2], -1))

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """Cross-entropy of the query, or of all examples' neighbors."""
        count, features = len(task.support.inputs), self._placed(self._features_of(task))
        if self.loss == "neighbors":
            return self._neighbors_loss(features, torch.cat([task.support.targets, task.query.targets]))
        state = self._state(features[:count], task.support.targets, spec)
        return self._mean(self._classify(state, features[count:]).loss(task.query.targets), task, spec)

    def _embed(self, inputs: Tensor) -> Tensor:
        """Features `(n, d)`, mean over the views."""
        if self.views == 1:
            return self._placed(self.backbone(inputs))
        seen = [inputs, *(warped(inputs, view.expand(len(inputs), -1, -1)) for view in self.maps)]
        features: Tensor = self.backbone(torch.cat(seen))
        return self._placed(features.view(self.views, len(inputs), -1).mean(0))

    def _placed(self, features: Tensor) -> Tensor:
        """Features `(n, d)` as distances are taken between them: on a sphere where directions alone count."""
        return features if self.distance == "euclidean" else F.normalize(features, dim=-1) * features.shape[-1] ** 0.5

    def _neighbors_loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean of -log of the probability that an example's neighbor, drawn by distance, is of its class."""
        distances = squared_distances(features, features) / features.shape[-1]
        itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
        same = (targets.unsqueeze(1) == targets) & ~itself
        none = torch.finfo(distances.dtype).min  # finite: a row of nothing but infinities has no gradient
        others = (-distances * self.log_scale.exp()).masked_fill(itself, none)
        losses = others.logsumexp(-1) - others.masked_fill(~same, none).logsumexp(-1)
        has_peer = same.any(-1)  # an example without one has nothing to find
        return torch.where(has_peer, losses, 0.0).sum() / has_peer.sum().clamp_min(1)

    def _state(self, features: Tensor, targets: Tensor, spec: TaskSpec) -> TaskState:
        prototypes, present = centroids(features, targets, spec.outputs)
        return {"prototypes": self._placed(prototypes), "present": present}

    def _classify(self, state: Any, features: Tensor) -> Categorical:
        distances = squared_distances(features, state["prototypes"]) / features.shape[-1]
        return Categorical(without_absent(-distances * self.log_scale.exp(), state["present"]))
