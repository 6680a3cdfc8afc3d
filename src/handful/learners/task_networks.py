"""Networks of which each task has weights of its own."""

from abc import abstractmethod
from fnmatch import fnmatch
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.errors import UserError
from handful.functional.differentiation import Weights
from handful.functional.stateless import call, call_and_fit, part, tensors, under
from handful.learners.learner import Learner
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState


class TaskNetwork(Learner):
    """Backbone and linear head; a state is the task's own weights, and the normalization's statistics under them."""

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.features = feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.classification = spec.classification

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The network's outputs under the task's weights."""
        weights: Weights = self._network() | state["weights"]
        features, _ = self._features(weights | state["statistics"], inputs, fit=False)
        return self._predict(weights, features)

    def _inner_loss(self, fast: Weights, context: dict[str, Any]) -> tuple[Tensor, Weights]:
        """The mean loss of `context["support"]`, and the normalization's statistics of it."""
        weights, support = context["slow"] | fast, context["support"]
        features, statistics = self._features(weights, support.inputs, fit=True)
        return self._predict(weights, features).loss(support.targets).mean(), statistics

    def _query_loss(self, fast: Weights, statistics: Weights, query: Examples) -> Tensor:
        state = {"weights": fast, "statistics": statistics}
        return self.predict(state, query.inputs).loss(query.targets).mean()

    def _predict(self, weights: Weights, features: Tensor) -> Prediction:
        outputs = F.linear(features, weights["head.weight"], weights.get("head.bias"))
        return Categorical(outputs) if self.classification else Point(outputs)

    def _features(self, weights: Weights, inputs: Tensor, *, fit: bool) -> tuple[Tensor, Weights]:
        """Those of the inputs; and with `fit`, by the normalization's statistics of them, which come along."""
        own = part(weights, "backbone")
        if not fit:
            return call(self.backbone, own, inputs), {}
        features, statistics = call_and_fit(self.backbone, own, inputs)
        return features, under("backbone", statistics)

    def _network(self) -> Weights:
        """All that tasks share of parameters and buffers, by name."""
        return under("backbone", tensors(self.backbone))


Head: TypeAlias = Literal["auto", "shared", "slots"]


class AdaptedNetwork(TaskNetwork):
    """Backbone and linear head whose `fast` parameters, those that match a glob, become the task's own.

    With `head="shared"` all classes start from the same vector (UNICORN, *How to Train Your MAML to Excel in Few-Shot
    Classification*, Ye & Chao, 2022, https://arxiv.org/abs/2106.16245), so that the head takes any way and no class
    number is special. Under a softmax it makes no difference which one, in any step, so it is zero and not learned
    (*MAML is a Noisy Contrastive Learner in Classification*, Kao et al., 2022, https://arxiv.org/abs/2106.15367). With
    `head="slots"` each class has a learned start of its own. "auto" is the first where class numbers are drawn anew for
    each task, and the second where they mean the same in all. Batch norm uses the support's statistics.
    """

    normalizations = ("support", "transductive")

    def __init__(self, spec: TaskSpec, backbone: nn.Module, *, fast: str = "*", head: Head = "auto") -> None:
        super().__init__(spec, backbone)
        self.shared = spec.classification and (head == "shared" or (head == "auto" and spec.labels == "permuted"))
        self.any_way = self.shared
        self.outputs = spec.outputs
        if self.shared:
            start = {"weight": torch.zeros(1, self.features), "bias": torch.zeros(1)}
        else:
            start = dict(nn.Linear(self.features, spec.outputs).named_parameters())
        self.head = nn.ParameterDict(
            {name: nn.Parameter(value, requires_grad=not self.shared) for name, value in start.items()}
        )
        network = self._network()
        trainable = [name for name, value in network.items() if value.requires_grad or name.startswith("head.")]
        self.fast = sorted(name for name in trainable if fnmatch(name, fast))
        if not self.fast:
            raise UserError(f"No trainable parameter matches fast={fast!r}; the names are {', '.join(network)}.")
        if self.shared and "head.weight" not in self.fast:
            raise UserError(
                f"With head='shared' all classes start alike and only the head distinguishes them, but fast={fast!r} "
                "does not select head.weight. Choose head='slots', or a pattern such as 'head.*'."
            )

    @abstractmethod
    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The task's weights, and the normalization's statistics: see `_state`."""

    def _start(self, spec: TaskSpec) -> tuple[Weights, Weights]:
        """Where a task of this spec starts: its fast weights, and all others. Raises `UserError` for another way."""
        self._check_outputs(spec)
        network = self._network()
        if self.shared:
            network |= {
                "head.weight": network["head.weight"].expand(spec.outputs, -1),
                "head.bias": network["head.bias"].expand(spec.outputs),
            }
        return {name: network.pop(name) for name in self.fast}, network

    def _state(self, fast: Weights, statistics: Weights) -> TaskState:
        return {"weights": {name: weight.contiguous() for name, weight in fast.items()}, "statistics": statistics}

    def _network(self) -> Weights:
        """Parameters and buffers of backbone and head, by name."""
        return super()._network() | under("head", dict(self.head.items()))


class FreshNetwork(TaskNetwork):
    """Backbone and linear head that a task trains as a whole; `adapt` says how.

    The backbone's weights are a start, and no meta-parameters. Batch norm uses the statistics of what is shown.
    """

    normalizations = ("support",)

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
        super().__init__(spec, backbone.requires_grad_(False))
        self.trainable = frozenset(trained)

    def _trainable(self, network: Weights) -> Weights:
        """Those of a network's tensors that a task trains."""
        return {name: value for name, value in network.items() if name.removeprefix("backbone.") in self.trainable}
