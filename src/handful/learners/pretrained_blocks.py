"""A pre-trained network with a head on two of its blocks: what `auto` trains where classes of images are drawn anew."""

from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import last_blocks
from handful.errors import UserError
from handful.functional.closed_form_heads import centroids, ridge, without_absent
from handful.functional.image_warps import random_maps, warped
from handful.learners.learner import Race
from handful.learners.options import Positive
from handful.learners.transfer import PretrainedNetwork
from handful.types import Categorical, Examples, TaskSpec, TaskState

Views: TypeAlias = Literal["one", "mirrored", "affine"]

EARLIER = 0.5
"""The weight of the block before the last one, beside 1 for the last."""
GRID = 2
"""Rows and columns of the means that are taken of its maps."""
REGULARIZATION = 0.3
"""Of the ridge regression, on features of unit length."""
AFFINE_VIEWS, EXTENT = 3, 0.5
"""How many random views beside the image itself, and how far they go."""
PASSES: dict[Views, int] = {"one": 1, "mirrored": 2, "affine": 1 + AFFINE_VIEWS}
"""How often an image goes through the network."""


class PretrainedBlocks(PretrainedNetwork):
    """Classify by features of the last two blocks of a pre-trained network, by their angle to the class means.

    The `transfer` baseline (*SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning*, Wang et
    al., 2019, https://arxiv.org/abs/1911.04623) on richer features: the last ones, and those of the block before,
    averaged over the quarters of its maps, each scaled to unit length and the latter weighted by a half. New classes
    often differ in features that the last block has learned to ignore. A network without `blocks` has its last features
    alone, and is `transfer` then.

    Logits: the cosines times `temperature`. With `ridge` the outputs of a ridge regression on the same features, times
    `ridge_temperature`, are added. (The mean of both probabilities was as good on validation photos and worse on 20-way
    tasks of emoji; fitted to few tasks, its temperatures may end in a poor optimum, the sum has only one.) `views`:
    "mirrored" takes the mean of the features of an image and its mirror image, "affine" of an image and of three
    slightly turned, scaled and shifted ones, the same for all images; both cost as many passes.
    `training.heads.decided` fits the temperatures to validation tasks.

    >>> spec = TaskSpec("classification", (2,), 2)
    >>> learner = PretrainedBlocks.build(spec, backbone="raw")
    >>> state = learner.adapt(Examples(torch.eye(2), torch.tensor([0, 1])), spec)
    >>> learner.predict(state, torch.eye(2)).logits.argmax(-1)
    tensor([0, 1])
    """

    key = "pretrained"
    kinds = frozenset({"classification"})
    baseline = False
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"images": 1}

    temperatures: Tensor
    maps: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        ridge: bool = False,
        views: Views = "one",
        temperature: Positive = 20.0,
        ridge_temperature: Positive = 5.0,
    ) -> None:
        super().__init__(spec, backbone)
        if views != "one" and len(spec.input_shape) != 3:
            raise UserError(
                f"Views are made of images (channels, height, width), not of inputs of shape {spec.input_shape}. "
                "Leave views='one'."
            )
        self.any_way = True  # the head of pre-training is not used
        self.ridge, self.views = ridge, views
        self.inputs_ndim = 1 + len(spec.input_shape)
        self.register_buffer("temperatures", torch.tensor([temperature, ridge_temperature]))
        if views == "affine":
            self.register_buffer("maps", random_maps(AFFINE_VIEWS, EXTENT))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Centroids `(way, d)` of unit length, which classes have one, and with `ridge` its weights and bias."""
        features = self.embed(support.inputs)
        means, present = centroids(features, support.targets, spec.outputs)
        state = {"centroids": F.normalize(means, dim=-1), "present": present}
        if not self.ridge:
            return state
        targets = F.one_hot(support.targets, spec.outputs).to(features)
        weights, bias = ridge(features, targets, REGULARIZATION)
        return state | {"weights": weights.mT.contiguous(), "bias": bias}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """Logits are scaled cosines, with scaled outputs of ridge regression added where `ridge` was set."""
        return self.combined(self.scores(state, inputs), self.temperatures, state["present"])

    @property
    def feature_network(self) -> nn.Module:
        """All of it but the head."""
        return Embedding(self)

    def embed(self, inputs: Tensor) -> Tensor:
        """Features `(n, d)` of unit length; of features that it has made itself, these."""
        if inputs.ndim < self.inputs_ndim:
            return inputs
        if self.views == "one":
            return self._of_view(inputs)
        if self.views == "mirrored":
            seen = [inputs, inputs.flip(-1)]
        else:
            seen = [inputs, *(warped(inputs, view.expand(len(inputs), -1, -1)) for view in self.maps)]
        features = self._of_view(torch.cat(seen)).view(len(seen), len(inputs), -1)
        return F.normalize(features.mean(0), dim=-1)

    def _of_view(self, inputs: Tensor) -> Tensor:
        *earlier, last = last_blocks(self.backbone, inputs)
        parts = [F.normalize(last, dim=-1)]
        parts += [EARLIER * F.normalize(F.adaptive_avg_pool2d(maps, GRID).flatten(1), dim=-1) for maps in earlier]
        return F.normalize(torch.cat(parts, dim=-1), dim=-1)

    def scores(self, state: TaskState, inputs: Tensor) -> Tensor:
        """Cosines, and outputs of the ridge regression, if used: `(1 or 2, n, way)`."""
        features = self.embed(inputs)
        cosines: Tensor = features @ state["centroids"].mT
        if not self.ridge:
            return cosines.unsqueeze(0)
        return torch.stack([cosines, F.linear(features, state["weights"], state["bias"])])

    @staticmethod
    def combined(scores: Tensor, temperatures: Tensor, present: Tensor) -> Categorical:
        """The prediction by `scores` `(1 or 2, n, way)`.

        temperatures: `(2,)` of the cosines and of the outputs of ridge regression; of cosines alone the first.
        present: `(way,)`, which classes have examples, or `(n, way)` of queries of several tasks.
        """
        logits = (temperatures[: len(scores), None, None] * scores).sum(0)
        return Categorical(without_absent(logits.unsqueeze(-2), present).squeeze(-2))  # each query by itself


class Embedding(nn.Module):
    """What a learner makes of inputs before any task is known."""

    def __init__(self, learner: PretrainedBlocks) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` to features `(n, d)` of unit length."""
        return self.learner.embed(inputs)
