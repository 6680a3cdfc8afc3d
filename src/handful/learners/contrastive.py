"""Rung of the ladder that tunes an encoder for each task: contrastive learning on pairs of the support."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.functional.closed_form_heads import logistic, spread
from handful.functional.differentiation import Weights
from handful.functional.inner_loop import Adam, descend
from handful.functional.stateless import call, tensors
from handful.learners.learner import Learner
from handful.learners.options import Count, Positive
from handful.types import Categorical, Examples, TaskSpec, TaskState

TURNS = 20
"""How often each example is the first one of a pair with one of its class, at the most, as in the paper's software."""
PAIRS, BATCH = 400, 16
"""Pairs of a task at the most, and in a step."""
SAMPLE = 4 * BATCH
"""Pairs by which the time is predicted. With fewer, most of it is that of the head and of copying the network."""
DRAWS = 99991
"""Size of the bank of random numbers: a prime, so that examples meet others of them in each turn."""


class ContrastiveFineTuning(Learner):
    """Tune all weights of an encoder on pairs of support examples, then train a logistic head on its vectors.

    *Efficient Few-Shot Learning Without Prompts* (Tunstall et al., 2022), https://arxiv.org/abs/2209.11055, known as
    SetFit: the cosine of two examples of a class shall be 1, that of others 0, in the squared error. Half of the pairs
    are of one class, where it has two examples. Departures: at most `pairs` of them are drawn, once, from a seeded bank
    of numbers, so that adapting is deterministic; Adam with a constant rate; layers compute as in evaluation, without
    dropout; the head's `regularization` is measured as that of the `logistic-probe`.
    """

    key = "contrastive"
    kinds = frozenset({"classification"})
    normalizations = ("frozen",)
    meta_gradient = "none"
    baseline = True
    start = "encoder"
    uses_other_tasks = False
    costly = True
    sample = {"pairs": SAMPLE}, SAMPLE / PAIRS

    draws: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: Positive = 2e-5,
        pairs: Count = PAIRS,
        batch: Count = BATCH,
        regularization: Positive = 0.1,
    ) -> None:
        super().__init__()
        self.trainable = frozenset(name for name, weight in backbone.named_parameters() if weight.requires_grad)
        self.backbone = backbone.requires_grad_(False)
        self.inner_lr, self.pairs, self.batch, self.regularization = inner_lr, pairs, batch, regularization
        self.register_buffer("draws", torch.rand(DRAWS), persistent=False)

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The task's weights of the encoder, and weights `(d, way)` and bias `(way,)` of the head."""
        inputs, targets = support
        network = tensors(self.backbone)
        firsts, seconds = self._drawn(targets)

        def context(step: int) -> dict[str, Any]:
            batch = slice(step * self.batch, (step + 1) * self.batch)
            first, second = firsts[batch], seconds[batch]
            shown = inputs[torch.cat([first, second])]
            return {"slow": network, "inputs": shown, "same": (targets[first] == targets[second]).to(inputs)}

        weights, _ = descend(
            self._inner_loss,
            {name: weight for name, weight in network.items() if name in self.trainable},
            context,
            rule=Adam(self.inner_lr),
            steps=-(-len(firsts) // self.batch),
            first_order=True,
        )
        weights = {name: weight.detach().contiguous() for name, weight in weights.items()}
        features = call(self.backbone, network | weights, inputs)
        scale = spread(features)
        head, bias = logistic(features / scale, targets, spec.outputs, self.regularization)
        return {"weights": weights, "head": (head / scale).detach().contiguous(), "bias": bias.detach()}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """The head's outputs on the vectors of the task's encoder."""
        features = call(self.backbone, tensors(self.backbone) | state["weights"], inputs)
        return Categorical(features @ state["head"] + state["bias"])

    def _drawn(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The examples of all pairs, their first and second ones `(pairs,)`: each with one of its class, and others."""
        count = len(targets)
        turns = max(1, min(TURNS, self.pairs // (2 * count)))
        numbers = torch.arange(turns * count * (count + 2), device=targets.device) % DRAWS
        drawn, order = torch.split(self.draws[numbers], [turns * count * count, turns * count * 2])
        drawn = drawn.view(turns, count, count)
        same = targets.unsqueeze(1) == targets
        itself = torch.eye(count, dtype=torch.bool, device=targets.device)
        # An example alone in its class has but itself, which teaches nothing.
        alike = (drawn + 1).masked_fill(itself, 0.5).masked_fill(~same, 0).argmax(-1)
        other = (drawn + 1).masked_fill(same, 0).argmax(-1)
        first = torch.arange(count, device=targets.device).repeat(2 * turns)
        second = torch.cat([alike.flatten(), other.flatten()])
        order = order.argsort()[: self.pairs]
        return first[order], second[order]

    def _inner_loss(self, fast: Weights, context: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        features = call(self.backbone, context["slow"] | fast, context["inputs"])
        first, second = F.normalize(features, dim=-1).chunk(2)
        return ((first * second).sum(-1) - context["same"]).square().mean(), {}
