"""Neural processes: a network that reads a set of examples and predicts, with nothing to optimize for a new task."""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.attention import Attention
from handful.functional.normalization import LayerNorm
from handful.learners.learner import Learner, Race
from handful.learners.options import BelowOne, Count
from handful.types import Examples, Gaussian, TaskSpec, TaskState


class ConditionalNeuralProcess(Learner):
    """Encode each example, take the mean code, and decode a prediction with its uncertainty from code and query.

    *Conditional Neural Processes* (Garnelo et al., 2018), https://arxiv.org/abs/1807.01613. Departures: inputs are a
    backbone's features; the loss is that of the query, not of the support too; a standard deviation stays above
    `smallest_deviation`, in the paper 0.1; regression only. Encoder and decoder have `depth` layers of `width`.
    """

    key = "cnp"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 7}
    predicts_deviation = True
    kinds = frozenset({"regression"})

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        width: Count = 128,
        depth: Count = 3,
        smallest_deviation: BelowOne = 0.01,
    ) -> None:
        super().__init__()
        size = feature_count(backbone, spec.input_shape)
        self.backbone, self.outputs = backbone, spec.outputs
        self.smallest_deviation = smallest_deviation
        self.encoder = Layers(size + spec.outputs, width, width, depth)
        self.decoder = Layers(size + width, width, 2 * spec.outputs, depth)

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The mean code `(width,)`."""
        self._check_outputs(spec)
        features = self.backbone(support.inputs)
        return {"code": self.encoder(torch.cat([features, support.targets], dim=-1)).mean(0)}

    def predict(self, state: TaskState, inputs: Tensor) -> Gaussian:
        """Means and variances."""
        features = self.backbone(inputs)
        code = state["code"].expand(len(features), -1)
        return normal(self.decoder(torch.cat([features, code], dim=-1)), self.smallest_deviation)


class AttentiveNeuralProcess(Learner):
    """As a conditional neural process, but each query attends to the examples that matter for it.

    *Attentive Neural Processes* (Kim et al., 2019), https://arxiv.org/abs/1901.05761: examples attend to each other,
    then queries to examples, by several `heads`. Departures: no latent path (a prediction here is one distribution, not
    a sample of functions), so this is the deterministic half of the paper; the codes of examples are normalized (layer
    norm); inputs are a backbone's features; the loss is that of the query; a standard deviation stays above
    `smallest_deviation`, in the paper 0.1.
    """

    key = "anp"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 8}
    state_holds_examples = True
    predicts_deviation = True
    kinds = frozenset({"regression"})

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        width: Count = 64,
        depth: Count = 2,
        heads: Count = 4,
        smallest_deviation: BelowOne = 0.01,
    ) -> None:
        super().__init__()
        size = feature_count(backbone, spec.input_shape)
        self.backbone, self.outputs = backbone, spec.outputs
        self.smallest_deviation = smallest_deviation
        self.encoder = Layers(size + spec.outputs, width, width, depth)
        self.among_examples = Attention(width, heads)
        self.norm = LayerNorm(width)
        self.to_keys = nn.Linear(size, width)
        self.to_examples = Attention(width, heads)
        self.decoder = Layers(size + width, width, 2 * spec.outputs, depth)

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Keys and values `(n, width)` of the examples."""
        self._check_outputs(spec)
        features = self.backbone(support.inputs)
        codes = self.encoder(torch.cat([features, support.targets], dim=-1))
        codes = self.norm(codes + self.among_examples(codes, codes, codes))
        keys, values = self.to_examples.remembered(self.to_keys(features), codes)
        return {"keys": keys, "values": values}

    def predict(self, state: TaskState, inputs: Tensor) -> Gaussian:
        """Means and variances."""
        features = self.backbone(inputs)
        code = self.to_examples.recall(self.to_keys(features), (state["keys"], state["values"]))
        return normal(self.decoder(torch.cat([features, code], dim=-1)), self.smallest_deviation)


class Layers(nn.Sequential):
    """`depth` linear layers `(n, inputs)` to `(n, outputs)`, of `width` between them, with ReLU.

    They start larger than PyTorch does it, so that the signal lives (*Efficient BackProp*, LeCun et al., 1998,
    https://doi.org/10.1007/3-540-49430-8_2): little of an example was left behind so many layers, and a
    conditional neural process predicted the mean of all functions for thousands of steps.
    """

    def __init__(self, inputs: int, width: int, outputs: int, depth: int) -> None:
        sizes = (inputs, *[width] * (depth - 1), outputs)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers[:-1])
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")


def normal(outputs: Tensor, smallest: float) -> Gaussian:
    """Means and variances `(n, d)` from a network's outputs `(n, 2 d)`."""
    mean, raw = outputs.chunk(2, dim=-1)
    return Gaussian(mean, (smallest + (1 - smallest) * F.softplus(raw)).square())
