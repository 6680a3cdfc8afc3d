"""What learners have in common that read the support as a sequence of tokens, each an example with its label."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.errors import UserError
from handful.functional.closed_form_heads import spread
from handful.functional.normalization import LayerNorm
from handful.learners.learner import Learner
from handful.types import Categorical, Examples, Gaussian, Prediction, Task, TaskSpec, TaskState

LEAST_VARIANCE = 1e-4


class SequenceLearner(Learner):
    """Reads tokens `(n, width)` of the support, and predicts for tokens of queries, whose label is unknown.

    Half of a token is the example's features, half its label: a projection of the target, or the code of its class.
    Codes are fixed random directions, at right angles or opposite, and a query's class is the one whose code is most
    like the reply, so that any way up to `width` is possible (*Context-Aware Meta-Learning*, Fifty et al., 2024,
    https://arxiv.org/abs/2310.10971). Where class numbers mean nothing, each training task draws which class has which
    code, so that all codes are trained; where the order of the support could be read, it is drawn anew too. For classes
    features are measured from the support's mean in units of its spread, since a common part of all examples
    distinguishes none (*SimpleShot*, Wang et al., 2019, https://arxiv.org/abs/1911.04623). Values are predicted by a
    normal distribution.
    """

    features_only = True
    reads_order: ClassVar[bool] = True
    predicts_deviation = True

    codes: Tensor

    def __init__(self, spec: TaskSpec, backbone: nn.Module, *, width: int) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise UserError(f"The option width is an even number of 4 or more, not {width}.")
        self.backbone = backbone
        self.classification, self.outputs, self.width = spec.classification, spec.outputs, width
        half = width // 2
        self.of_features = nn.Sequential(
            nn.Linear(feature_count(backbone, spec.input_shape), half, bias=not spec.classification), LayerNorm(half)
        )
        if spec.classification:
            axes = torch.linalg.qr(torch.randn(half, half)).Q * math.sqrt(half)  # numbers of size 1, as the features
            self.register_buffer("codes", torch.cat([axes, -axes]))
            self._codes(spec)
        else:
            self.of_targets = nn.Linear(spec.outputs, half)

    @property
    def reply_size(self) -> int:
        """How many numbers `reply` gives for a query."""
        return self.width // 2 if self.classification else 2 * self.outputs

    @abstractmethod
    def read(self, tokens: Tensor) -> dict[str, Any]:
        """What is kept of the support's tokens `(n, width)`."""

    @abstractmethod
    def reply(self, state: dict[str, Any], tokens: Tensor) -> Tensor:
        """Replies `(m, reply_size)` to the tokens `(m, width)` of queries, each on its own."""

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """What the network has read of the support; for classes also their codes `(way, width / 2)`."""
        return self._read(self.backbone(support.inputs), support.targets, self._codes(spec))

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """Logits are products of the reply with the codes; values have the reply's mean and variance."""
        return self._predict(state, self.backbone(inputs))

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """The query's loss, with the drawn codes and order."""
        noise = noise or {}
        count, features = len(task.support.inputs), self._features_of(task)
        support = Examples(features[:count], task.support.targets)
        if "order" in noise:
            order = noise["order"][:count].argsort()
            support = Examples(*(part[order] for part in support))
        state = self._read(*support, self._codes(spec, noise.get("codes")))
        return self._predict(state, features[count:]).loss(task.query.targets).mean()

    def draw_noise(self, task: Task, spec: TaskSpec, generator: Generator) -> Any:
        """Which class has which code, and numbers whose order is that of the support; None if neither is drawn."""
        noise = {}
        if self.classification and spec.labels == "permuted":
            noise["codes"] = torch.randperm(self.width, generator=generator, device=generator.device)
        if self.reads_order:
            noise["order"] = torch.rand(len(task.support.inputs), generator=generator, device=generator.device)
        return noise or None

    def _read(self, features: Tensor, targets: Tensor, codes: Tensor | None) -> TaskState:
        if codes is None:
            return self.read(self._tokens(features, self.of_targets(targets)))
        measures = {"codes": codes.clone(), "center": features.mean(0), "spread": spread(features)}
        return self.read(self._tokens(_measured(features, measures), codes[targets])) | measures

    def _predict(self, state: TaskState, features: Tensor) -> Prediction:
        if self.classification:
            features = _measured(features, state)
        unknown = features.new_zeros(len(features), self.width // 2)
        replies = self.reply(state, self._tokens(features, unknown))
        if self.classification:
            return Categorical(replies @ state["codes"].mT / math.sqrt(self.width // 2))
        mean, variance = replies.chunk(2, -1)
        return Gaussian(mean, LEAST_VARIANCE + F.softplus(variance))

    def _tokens(self, features: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([self.of_features(features), labels], -1)

    def _codes(self, spec: TaskSpec, order: Tensor | None = None) -> Tensor | None:
        """The codes of this task's classes, or None if values are predicted."""
        if not self.classification:
            self._check_outputs(spec)
            return None
        if spec.outputs > len(self.codes):
            raise UserError(
                f"A width of {self.width} gives codes to {len(self.codes)} classes, not to {spec.outputs}: build the "
                f"learner with an even width of {spec.outputs + spec.outputs % 2} or more, which its attention heads, "
                "if it has any, divide."
            )
        return (self.codes if order is None else self.codes[order])[: spec.outputs]


def _measured(features: Tensor, measures: dict[str, Tensor]) -> Tensor:
    return (features - measures["center"]) / measures["spread"]
