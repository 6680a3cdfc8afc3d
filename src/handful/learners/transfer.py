"""Baselines of the ladder that transfer: the same network, pre-trained the ordinary way on all training examples."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.engine.precision import Precision
from handful.errors import UserError
from handful.functional.closed_form_heads import centroids, without_absent
from handful.functional.differentiation import Weights
from handful.functional.inner_loop import Adam, descend
from handful.functional.stateless import call, part, tensors, under
from handful.learners.learner import Learner, Race
from handful.learners.options import Count, Positive
from handful.learners.pretraining import Keeper, PretrainingExamples, pretrain
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState

Rung = TypeVar("Rung", bound="PretrainedNetwork")


class PretrainedNetwork(Learner):
    """A baseline that starts from a network pre-trained on the training classes, or on all training tasks pooled.

    Where class numbers differ from task to task, the head of pre-training is thrown away and features are normalized to
    unit length; where outputs mean the same everywhere, the head is kept. `twin` makes another baseline on the same
    network, so that one pre-training serves them all.
    """

    meta_gradient = "none"
    baseline = True
    start = "pretrained"
    cosine = False  # whether the head that pre-training throws away predicts by cosines

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.features = feature_count(backbone, spec.input_shape)
        self.backbone = backbone
        self.classification = spec.classification
        # What fine-tuning may change: pre-training is over when it does, and nothing requires a gradient any more.
        self.trainable = frozenset(name for name, p in backbone.named_parameters() if p.requires_grad)
        pooled = not spec.classification or spec.labels == "shared"
        self.head = nn.Linear(self.features, spec.outputs) if pooled else None
        self.any_way = not pooled
        self.requires_grad_(False)

    def pretrain(
        self,
        pool: PretrainingExamples,
        *,
        examples: int,
        seed: int = 0,
        precision: Precision = "fp32",
        progress: Callable[[int, int], None] | None = None,
        keeper: Keeper | None = None,
    ) -> float:
        """Train backbone and head on about `examples` drawn from the pool; see `pretraining.pretrain`."""
        if self.head is not None and pool.outputs != self.head.out_features:
            raise UserError(
                f"The tasks have {self.head.out_features} outputs, but the pool to pre-train on has {pool.outputs}."
            )
        return pretrain(
            self.backbone,
            self.head,
            [p for name, p in self.backbone.named_parameters() if name in self.trainable],
            pool,
            classification=self.classification,
            examples=examples,
            seed=seed,
            cosine=self.cosine,
            precision=precision,
            progress=progress,
            keeper=keeper,
        )

    def _check_outputs(self, spec: TaskSpec) -> None:
        if self.head is not None and spec.outputs != self.head.out_features:
            raise UserError(
                f"The learner {self.key!r} keeps the head of pre-training, which has {self.head.out_features} outputs, "
                f"but this task has {spec.outputs}. Pre-train on tasks like this one."
            )

    def twin(self, other: type[Rung], **options: Any) -> Rung:
        """A baseline of another class, or with other options, on a copy of this one's pre-trained network and head."""
        recipe = self.recipe
        rung = other.build(
            recipe["spec"],
            backbone=self.backbone,
            normalization=recipe["normalization"],
            seed=recipe["seed"],
            **options,
        )
        rung.backbone.load_state_dict(self.backbone.state_dict())
        if self.head is not None and rung.head is not None:
            rung.head.load_state_dict(self.head.state_dict())
        rung.trainable = self.trainable
        rung.recipe |= {name: recipe[name] for name in ("backbone", "backbone_options")}
        return rung.train(self.training)

    @abstractmethod
    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Learn a task from its support, starting from the pre-trained network."""


class Transfer(PretrainedNetwork):
    """Classify by the nearest class mean of pre-trained features, by their angle.

    *SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning* (Wang et al., 2019),
    https://arxiv.org/abs/1911.04623, with features of unit length (L2N). `temperature` scales the cosines. Departures:
    the centroids have unit length too; features are not centered by the training mean.
    """

    key = "transfer"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 1}
    kinds = frozenset({"classification"})

    def __init__(self, spec: TaskSpec, backbone: nn.Module, *, temperature: Positive = 20.0) -> None:
        super().__init__(spec, backbone)
        self.any_way = True  # the head of pre-training is not used
        self.temperature = temperature

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Centroids `(way, d)` of unit length, and which classes have one."""
        means, present = centroids(F.normalize(self.backbone(support.inputs), dim=-1), support.targets, spec.outputs)
        return {"centroids": F.normalize(means, dim=-1), "present": present}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """Logits are scaled cosines to the centroids."""
        cosines = F.normalize(self.backbone(inputs), dim=-1) @ state["centroids"].mT
        return Categorical(without_absent(self.temperature * cosines, state["present"]))


class Pooled(PretrainedNetwork):
    """Predict with the pre-trained network and its head as they are: one model for all tasks, no adaptation."""

    key = "pooled"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 1}
    labels = frozenset({"shared"})
    uses_support = False

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Nothing."""
        self._check_outputs(spec)
        return {}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The pre-trained network's outputs."""
        assert self.head is not None, "tasks with permuted labels are refused when it is built"
        outputs = self.head(self.backbone(inputs))
        return Categorical(outputs) if self.classification else Point(outputs)


class FineTuned(PretrainedNetwork):
    """A baseline that trains on the support from the pre-trained weights.

    *A Closer Look at Few-shot Classification* (Chen et al., 2019), https://arxiv.org/abs/1904.04232. Departures: Adam;
    where labels are permuted, the head starts from the centroids that `Transfer` uses, on its features of unit length,
    and else from the head of pre-training; `inner_lr` is chosen on validation tasks.
    """

    temperature = 10.0
    inner_lr: float
    inner_steps: int

    def _start(self, support: Examples, spec: TaskSpec) -> Weights:
        """The head's weights `(outputs, d)` and bias `(outputs,)` before fine-tuning."""
        if self.head is not None:
            self._check_outputs(spec)
            return {"head.weight": self.head.weight, "head.bias": self.head.bias}
        means, _ = centroids(self._represent(self.backbone(support.inputs)), support.targets, spec.outputs)
        return {"head.weight": F.normalize(means, dim=-1), "head.bias": means.new_zeros(spec.outputs)}

    def _represent(self, features: Tensor) -> Tensor:
        """Backbone features `(n, d)` as the head takes them."""
        return features if self.head is not None else F.normalize(features, dim=-1)

    def _prediction(self, weights: Weights, features: Tensor) -> Prediction:
        scale = 1.0 if self.head is not None else self.temperature
        outputs = scale * F.linear(self._represent(features), weights["head.weight"], weights["head.bias"])
        return Categorical(outputs) if self.classification else Point(outputs)

    def _descend(self, loss: Callable[[Weights, Any], tuple[Tensor, Any]], start: Weights, context: Any) -> Weights:
        # For balanced classes the bias has a gradient of rounding errors: a large epsilon keeps them small in Adam.
        rule = Adam(self.inner_lr, epsilon=1e-4)
        weights, _ = descend(loss, start, context, rule=rule, steps=self.inner_steps, first_order=True)
        return {name: weight.detach().contiguous() for name, weight in weights.items()}


class FineTuneHead(FineTuned):
    """Train a linear head on the fixed pre-trained features of the support.

    *A Closer Look at Few-shot Classification* (Chen et al., 2019), https://arxiv.org/abs/1904.04232. Departures: Adam;
    where labels are permuted, the head starts from the centroids that `Transfer` uses, on its features of unit length,
    and else from the head of pre-training; `inner_lr` is chosen on validation tasks.
    """

    key = "fine-tune-head"
    features_only = True
    costly = True
    search_space: ClassVar[dict[str, tuple[Any, ...]]] = {"inner_lr": (0.001, 0.01, 0.1)}

    def __init__(
        self, spec: TaskSpec, backbone: nn.Module, *, inner_lr: Positive = 0.01, inner_steps: Count = 50
    ) -> None:
        super().__init__(spec, backbone)
        self.inner_lr, self.inner_steps = inner_lr, inner_steps

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The head's weights and bias; the features are computed once."""
        context = {"features": self.backbone(support.inputs), "targets": support.targets}
        return self._descend(self._inner_loss, self._start(support, spec), context)

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The task's head on the pre-trained features."""
        return self._prediction(state, self.backbone(inputs))

    def _inner_loss(self, weights: Weights, context: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self._prediction(weights, context["features"]).loss(context["targets"]).mean(), {}


class FineTuneAll(FineTuned):
    """Train all pre-trained weights and the head on the support.

    *A Closer Look at Few-shot Classification* (Chen et al., 2019), https://arxiv.org/abs/1904.04232, departures as for
    fine-tuning the head. The batch norms keep the statistics of pre-training: a handful of examples estimates no
    better ones.

    Attributes:
        sharpness: `()`, multiplies the logits of predictions of classes; 1 unless it was fitted on validation tasks.
    """

    sharpness: Tensor

    key = "fine-tune-all"
    costly = True
    search_space: ClassVar[dict[str, tuple[Any, ...]]] = {"inner_lr": (0.0001, 0.0003, 0.001, 0.003, 0.01)}

    def __init__(
        self, spec: TaskSpec, backbone: nn.Module, *, inner_lr: Positive = 0.0003, inner_steps: Count = 50
    ) -> None:
        super().__init__(spec, backbone)
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.register_buffer("sharpness", torch.ones(()))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """All fine-tuned weights, by name."""
        network = under("backbone", tensors(self.backbone))
        start = {name: value for name, value in network.items() if name.removeprefix("backbone.") in self.trainable}
        context = {"slow": network, "inputs": support.inputs, "targets": support.targets}
        return self._descend(self._inner_loss, start | self._start(support, spec), context)

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The task's own network."""
        network = under("backbone", tensors(self.backbone))
        found = self._predict(network | state, inputs)
        return Categorical(self.sharpness * found.logits) if isinstance(found, Categorical) else found

    def _inner_loss(self, weights: Weights, context: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        return self._predict(context["slow"] | weights, context["inputs"]).loss(context["targets"]).mean(), {}

    def _predict(self, weights: Weights, inputs: Tensor) -> Prediction:
        return self._prediction(weights, call(self.backbone, part(weights, "backbone"), inputs))
