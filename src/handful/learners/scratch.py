"""Training from scratch: the baseline of the ladder that trains a network on each task alone."""

from typing import Any

import torch
from torch import Tensor, nn

from handful.functional.image_warps import random_maps, warped
from handful.functional.inner_loop import Adam, descend
from handful.learners.options import Count, Positive
from handful.learners.task_networks import FreshNetwork
from handful.types import Examples, TaskSpec, TaskState

MAPS = 997
"""Size of the bank of random maps: a prime, so that examples meet others of them in each step."""


SHOWN = 80
"""Images of a step: more of them train longer, not better."""


class FromScratch(FreshNetwork):
    """Train the network from a random start on the support alone, with augmented copies where inputs are images.

    The start and the bank of affine maps are seeded, so that adapting is deterministic. Every step shows `copies`
    copies of each image (fewer, but two at least, where that makes more than 80), warped by maps of its own (rotation
    within 15 degrees, scales 0.8 to 1.2 per axis, shear within 0.2, shift within 10 %), to Adam; without them this
    baseline would flatter every learner that it is compared with. Rows of numbers are shown as they are. Batch norm
    uses the statistics of what is shown, and of the last step's copies in predicting.
    """

    key = "scratch"
    meta_gradient = "none"
    baseline = True
    uses_other_tasks = False
    costly = True

    maps: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: Positive = 0.002,
        inner_steps: Count = 50,
        copies: Count = 6,
    ) -> None:
        super().__init__(spec, backbone)
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
        repeats = self._repeats(len(inputs))
        shown = targets.repeat(repeats, *(1,) * (targets.ndim - 1))

        def context(step: int) -> dict[str, Any]:
            return {"slow": network, "support": Examples(self._show(inputs, step), shown)}

        weights, statistics = descend(
            self._inner_loss,
            self._trainable(network) | head,
            context,
            rule=Adam(self.inner_lr, epsilon=1e-4),  # gradients of rounding errors stay small
            steps=self.inner_steps,
            first_order=True,
        )
        return {
            "weights": {name: weight.detach().contiguous() for name, weight in weights.items()},
            "statistics": {name: value.detach().contiguous() for name, value in statistics.items()},
        }

    def _repeats(self, count: int) -> int:
        return min(self.copies, max(2, SHOWN // count)) if self.images else 1

    def _show(self, inputs: Tensor, step: int) -> Tensor:
        """What a step trains on: images `(n, c, h, w)` as warped copies `(copies * n, c, h, w)`; else as is."""
        if not self.images:
            return inputs
        copies = inputs.repeat(self._repeats(len(inputs)), 1, 1, 1)
        chosen = (torch.arange(len(copies), device=inputs.device) + step * len(copies)) % MAPS
        return warped(copies, self.maps[chosen])
