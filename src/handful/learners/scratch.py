"""Training from scratch: the rung of the ladder that knows nothing of other tasks but takes its time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.engine.differentiation import Weights
from handful.engine.inner_loop import Adam, descend
from handful.engine.stateless import call, call_and_fit, part, tensors
from handful.learners.learner import Learner
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState
from handful.views import random_maps, warped

MAPS = 997
"""Size of the bank of random maps: a prime, so that examples meet others of them in each step."""


SHOWN = 80
"""Images of a step: more of them train longer, not better."""


class FromScratch(Learner):
    """Train the network from a random start on the support alone, with augmented copies where inputs are images.

    The start and the bank of affine maps are seeded, so that adapting is deterministic. Every step shows `copies`
    copies of each image (fewer, but two at least, where that makes more than 80), warped by maps of its own (rotation
    within 15 degrees, scales 0.8 to 1.2 per axis, shear within 0.2, shift within 10 %), to Adam; without them this rung
    would flatter every learner that it is compared with. Rows of numbers are shown as they are. Batch norm uses the
    statistics of what is shown, and of the last step's copies in predicting.
    """

    key = "scratch"
    meta_gradient = "none"
    baseline = True
    costly = True
    normalizations = ("support",)

    maps: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: float = 0.002,
        inner_steps: int = 50,
        copies: int = 6,
    ) -> None:
        super().__init__()
        self.trainable = frozenset(name for name, p in backbone.named_parameters() if p.requires_grad)
        self.features = feature_count(backbone, spec.input_shape)
        self.backbone = backbone.requires_grad_(False)
        self.classification = spec.classification
        self.images = len(spec.input_shape) == 3
        self.inner_lr, self.inner_steps, self.copies = inner_lr, inner_steps, copies
        self.register_buffer("maps", random_maps(MAPS))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The trained weights, and the normalization's statistics of the last step."""
        network = self._network()
        inputs, targets = support
        # Equal logits, or the mean target, for whatever input.
        bias = inputs.new_zeros(spec.outputs) if spec.classification else targets.mean(0)
        head = {"head.weight": inputs.new_zeros(spec.outputs, self.features), "head.bias": bias}
        fast = {name: value for name, value in network.items() if name.removeprefix("backbone.") in self.trainable}
        repeats = self._repeats(len(inputs))
        shown = targets.repeat(repeats, *(1,) * (targets.ndim - 1))

        def context(step: int) -> dict[str, Any]:
            return {"slow": network, "inputs": self._show(inputs, step), "targets": shown}

        weights, statistics = descend(
            self._inner_loss,
            fast | head,
            context,
            rule=Adam(self.inner_lr, epsilon=1e-4),  # gradients of rounding errors stay small
            steps=self.inner_steps,
            first_order=True,
        )
        return {
            "weights": {name: weight.detach().contiguous() for name, weight in weights.items()},
            "statistics": {name: value.detach().contiguous() for name, value in statistics.items()},
        }

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The task's own network."""
        weights = self._network() | state["weights"] | state["statistics"]
        return self._prediction(weights, call(self.backbone, part(weights, "backbone"), inputs))

    def _inner_loss(self, weights: Weights, context: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        weights = context["slow"] | weights
        features, statistics = call_and_fit(self.backbone, part(weights, "backbone"), context["inputs"])
        loss = self._prediction(weights, features).loss(context["targets"]).mean()
        return loss, {f"backbone.{name}": value for name, value in statistics.items()}

    def _prediction(self, weights: Weights, features: Tensor) -> Prediction:
        outputs = F.linear(features, weights["head.weight"], weights["head.bias"])
        return Categorical(outputs) if self.classification else Point(outputs)

    def _network(self) -> Weights:
        return {f"backbone.{name}": value for name, value in tensors(self.backbone).items()}

    def _repeats(self, count: int) -> int:
        return min(self.copies, max(2, SHOWN // count)) if self.images else 1

    def _show(self, inputs: Tensor, step: int) -> Tensor:
        """What a step trains on: images `(n, c, h, w)` as warped copies `(copies * n, c, h, w)`; else as is."""
        if not self.images:
            return inputs
        copies = inputs.repeat(self._repeats(len(inputs)), 1, 1, 1)
        chosen = (torch.arange(len(copies), device=inputs.device) + step * len(copies)) % MAPS
        return warped(copies, self.maps[chosen])
