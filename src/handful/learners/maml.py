"""Model-agnostic meta-learning: MAML and its kin that select other fast parameters."""

from fnmatch import fnmatch
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.engine.differentiation import Weights
from handful.engine.heads import descended
from handful.engine.inner_loop import SGD, descend
from handful.engine.stateless import call, call_and_fit, part, tensors
from handful.errors import UserError
from handful.learners.learner import Learner
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState


class MAML(Learner):
    """Learn starting weights from which a few gradient steps on the support solve the task.

    *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks* (Finn, Abbeel & Levine, 2017),
    https://arxiv.org/abs/1703.03400. `first_order` drops the second derivatives (FOMAML); `learn_inner_lr` learns one
    rate per fast parameter (Antoniou et al., 2019, https://arxiv.org/abs/1810.09502, per step there); `fast` is a glob
    of the parameters that adapt. Departures: by default the head starts from one vector for all classes (UNICORN, *How
    to Train Your MAML to Excel in Few-Shot Classification*, Ye & Chao, 2022, https://arxiv.org/abs/2106.16245), so that
    it takes any way and no class number is special; `head="slots"` is the paper's. Batch norm uses the support's
    statistics, not the query's.
    """

    key = "maml"
    normalizations = ("support", "transductive")

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        first_order: bool = False,
        learn_inner_lr: bool = False,
        fast: str = "*",
        head: Literal["shared", "slots"] = "shared",
    ) -> None:
        super().__init__()
        features = feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.classification = spec.classification
        self.shared = head == "shared" and spec.classification
        self.any_way = self.shared
        self.outputs = spec.outputs
        self.inner_steps, self.first_order, self.fast = inner_steps, first_order, fast
        start = nn.Linear(features, 1 if self.shared else spec.outputs)
        if self.shared:
            # Equal logits for all classes whatever the weights: the first step makes the difference.
            nn.init.normal_(start.weight, std=features**-0.5)
        self.head = nn.ParameterDict({"weight": start.weight, "bias": start.bias})
        rates = {
            name: torch.tensor(float(inner_lr))
            for name, parameter in self._network().items()
            if parameter.requires_grad and fnmatch(name, fast)
        }
        if not rates:
            raise UserError(
                f"No trainable parameter matches fast={fast!r}; the names are {', '.join(self._network())}."
            )
        if self.shared and "head.weight" not in rates:
            raise UserError(
                f"With head='shared' all classes start alike and only the head tells them apart, but fast={fast!r} "
                "does not select head.weight. Choose head='slots', or a pattern such as 'head.*'."
            )
        self.rates = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(r, requires_grad=learn_inner_lr) for name, r in rates.items()}
        )

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Fast weights after the inner loop, and the normalization's statistics of its last step."""
        network = self._network()
        if not self.shared and spec.outputs != self.outputs:
            raise UserError(
                f"This learner was made for {self.outputs} outputs, each with a start of its own, and cannot adapt to "
                f"{spec.outputs}. For classes, head='shared' takes any number."
            )
        if self.shared:
            network |= {
                "head.weight": network["head.weight"].expand(spec.outputs, -1),
                "head.bias": network["head.bias"].expand(spec.outputs),
            }
        rates = {name.replace("/", "."): rate for name, rate in self.rates.items()}
        fast = {name: network.pop(name) for name in rates}
        if any(name.startswith("backbone.") for name in fast):
            fast, statistics = descend(
                self._inner_loss,
                fast,
                {"slow": network, "support": support},
                rule=SGD(rates),
                steps=self.inner_steps,
                first_order=self.first_order,
            )
        else:
            fast, statistics = self._descended_head(network | fast, support, rates)
        return {"weights": {name: weight.contiguous() for name, weight in fast.items()}, "statistics": statistics}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The network's outputs under the task's weights."""
        weights: Weights = self._network() | state["weights"]
        features, _ = self._features(weights | state["statistics"], inputs, fit=False)
        outputs = F.linear(features, weights["head.weight"], weights["head.bias"])
        return Categorical(outputs) if self.classification else Point(outputs)

    def _inner_loss(self, fast: Weights, context: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        weights, support = context["slow"] | fast, context["support"]
        features, statistics = self._features(weights, support.inputs, fit=True)
        outputs = F.linear(features, weights["head.weight"], weights["head.bias"])
        prediction = Categorical(outputs) if self.classification else Point(outputs)
        return prediction.loss(support.targets).mean(), statistics

    def _descended_head(
        self, network: Weights, support: Examples, rates: dict[str, Tensor]
    ) -> tuple[Weights, dict[str, Tensor]]:
        """The inner loop where the head alone is fast: the features stay the same, and are computed once."""
        features, statistics = self._features(network, support.inputs, fit=True)
        names = ("head.weight", "head.bias")
        head = descended(
            features,
            support.targets,
            *(network[name] for name in names),
            rates=(rates.get(names[0], 0.0), rates.get(names[1], 0.0)),
            steps=self.inner_steps,
            first_order=self.first_order,
        )
        return {name: tensor for name, tensor in zip(names, head, strict=True) if name in rates}, statistics

    def _features(self, weights: dict[str, Tensor], inputs: Tensor, *, fit: bool) -> tuple[Tensor, dict[str, Tensor]]:
        own = part(weights, "backbone")
        if not fit:
            return call(self.backbone, own, inputs), {}
        features, statistics = call_and_fit(self.backbone, own, inputs)
        return features, {f"backbone.{name}": value for name, value in statistics.items()}

    def _network(self) -> dict[str, Tensor]:
        """Parameters and buffers of backbone and head, by name."""
        backbone = {f"backbone.{name}": tensor for name, tensor in tensors(self.backbone).items()}
        return backbone | {f"head.{name}": tensor for name, tensor in self.head.items()}


class ANIL(MAML):
    """MAML whose inner loop adapts the head alone.

    *Rapid Learning or Feature Reuse?* (Raghu et al., 2020), https://arxiv.org/abs/1909.09157.
    """

    key = "anil"

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        first_order: bool = False,
        learn_inner_lr: bool = False,
        head: Literal["shared", "slots"] = "shared",
    ) -> None:
        super().__init__(
            spec,
            backbone,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            first_order=first_order,
            learn_inner_lr=learn_inner_lr,
            fast="head.*",
            head=head,
        )
