"""Prototypical networks."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from handful.backbones import feature_count
from handful.engine.heads import centroids, squared_distances
from handful.learners.learner import Learner
from handful.types import Categorical, Examples, Task, TaskSpec, TaskState

ABSENT = 1e4
"""What is taken off the logit of a class that the support does not contain: finite, and never the best."""


class PrototypicalNetwork(Learner):
    """Classify by the nearest class mean in a learned embedding.

    *Prototypical Networks for Few-shot Learning* (Snell, Swersky & Zemel, 2017), https://arxiv.org/abs/1703.05175.
    Departures: distances are means over features instead of sums, and their scale is learned (`temperature` is where
    it starts), which spares the choice of one for each embedding size. `loss="neighbors"` meta-trains without
    prototypes: every example of the task, support or query, should find those of its class among all others, which
    takes more from each task (*On Episodes, Prototypical Networks, and Few-Shot Learning*, Laenen & Bertinetto, 2021,
    https://arxiv.org/abs/2012.09831); adapting stays the same.

    >>> from handful.types import Examples, TaskSpec
    >>> learner = PrototypicalNetwork.build(TaskSpec("classification", (2,), 2))
    >>> state = learner.adapt(Examples(torch.eye(2), torch.tensor([0, 1])), learner.recipe["spec"])
    >>> learner.predict(state, torch.eye(2)).logits.argmax(-1)
    tensor([0, 1])
    """

    key = "protonet"
    kinds = frozenset({"classification"})

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        temperature: float = 10.0,
        loss: Literal["prototypes", "neighbors"] = "prototypes",
    ) -> None:
        super().__init__()
        self.loss = loss
        feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.log_scale = nn.Parameter(torch.tensor(float(temperature)).log())

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Prototypes `(way, d)`, and which classes have one."""
        return self._state(self.backbone(support.inputs), support.targets, spec)

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """Logits are negative scaled distances to the prototypes."""
        return self._classify(state, self.backbone(inputs))

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """Cross-entropy of the query, or of all examples' neighbors; all are embedded in one pass."""
        count = len(task.support.inputs)
        features = self.backbone(torch.cat([task.support.inputs, task.query.inputs]))
        if self.loss == "neighbors":
            return self._neighbors_loss(features, torch.cat([task.support.targets, task.query.targets]))
        state = self._state(features[:count], task.support.targets, spec)
        return self._classify(state, features[count:]).loss(task.query.targets).mean()

    def _neighbors_loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean of -log of the probability that an example's neighbor, drawn by distance, is of its class."""
        distances = squared_distances(features, features) / features.shape[-1]
        itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
        same = (targets.unsqueeze(1) == targets) & ~itself
        others = (-distances * self.log_scale.exp()).masked_fill(itself, -ABSENT)
        losses = others.logsumexp(-1) - others.masked_fill(~same, -ABSENT).logsumexp(-1)
        has_peer = same.any(-1)  # an example without one has nothing to find
        return (losses * has_peer).sum() / has_peer.sum().clamp_min(1)

    def _state(self, features: Tensor, targets: Tensor, spec: TaskSpec) -> TaskState:
        prototypes, present = centroids(features, targets, spec.outputs)
        return {"prototypes": prototypes, "present": present}

    def _classify(self, state: Any, features: Tensor) -> Categorical:
        distances = squared_distances(features, state["prototypes"]) / features.shape[-1]
        return Categorical(-distances * self.log_scale.exp() - ABSENT * ~state["present"])
