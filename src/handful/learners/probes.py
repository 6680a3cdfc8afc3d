"""Baselines of the ladder that work on the raw inputs: what a task gives away without any learning of other tasks."""

from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import Backbone
from handful.functional.closed_form_heads import centroids, logistic, ridge, spread, squared_distances, without_absent
from handful.functional.normalization import Normalization
from handful.learners.learner import Learner, Race, Start
from handful.learners.options import Count, Positive
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Regularizations that the ladder tries; `spread` makes them mean the same for all inputs."""


class OnRawInputs(Learner):
    """A baseline whose backbone is `raw`, whatever backbone is asked for: nothing of it is trained on other tasks."""

    meta_gradient = "none"
    baseline = True
    start: ClassVar[Start] = "raw"
    uses_other_tasks = False

    @classmethod
    def build(
        cls,
        spec: TaskSpec,
        *,
        backbone: Backbone = "raw",
        backbone_options: dict[str, Any] | None = None,
        normalization: Normalization | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """As for every learner, but backbone and normalization are ignored."""
        return super().build(spec, backbone="raw", seed=seed, **options)

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classification = spec.classification


class Constant(OnRawInputs):
    """Predict the support's majority class or its mean target, whatever the input.

    The logits are the logarithms of class frequencies with half an example added to each class, so equally frequent
    classes have equal logits and an absent class has a finite one.
    """

    key = "dummy"
    uses_inputs = False
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 6}

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The prediction `(outputs,)`."""
        if not spec.classification:
            first = support.targets[0]  # so that the mean of equal targets is one of them to the last digit
            return {"prediction": first + (support.targets - first).mean(0)}
        counts = F.one_hot(support.targets, spec.outputs).sum(0).to(support.inputs)
        return {"prediction": torch.log((counts + 0.5) / (counts + 0.5).sum())}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The same prediction for each input."""
        predictions = state["prediction"].expand(len(inputs), -1)
        return Categorical(predictions) if self.classification else Point(predictions)


class NearestCentroid(OnRawInputs):
    """Classify by the nearest class mean of the raw inputs.

    The logits are negative squared distances in units of the support's `spread`; `temperature` scales them.
    `distance="cosine"` compares directions alone: of inputs and centroids of unit length. The ladder takes it for the
    vectors of an encoder.
    """

    key = "centroid"
    candidate_for: ClassVar[dict[Race, int]] = {"images": 1, "vectors": 1, "rows": 4}
    kinds = frozenset({"classification"})
    for_vectors: ClassVar[dict[str, Any]] = {"distance": "cosine"}

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        temperature: Positive = 2.0,
        distance: Literal["euclidean", "cosine"] = "euclidean",
    ) -> None:
        super().__init__(spec, backbone)
        self.temperature, self.distance = temperature, distance

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Class means `(way, d)`, which classes have one, and the support's spread."""
        inputs = self._placed(self.backbone(support.inputs))
        means, present = centroids(inputs, support.targets, spec.outputs)
        return {"centroids": self._placed(means), "present": present, "spread": spread(inputs)}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """Logits are negative scaled distances to the centroids."""
        return self._classify(state, self._placed(self.backbone(inputs)))

    def predict_stacked(self, states: TaskState, inputs: Tensor) -> Categorical:
        """The inputs of all tasks are embedded together."""
        points = self._placed(self.backbone(inputs.flatten(0, 1)))  # (tasks * n, d)
        return self._classify(states, points.reshape(*inputs.shape[:2], -1))

    def _classify(self, state: Any, points: Tensor) -> Categorical:
        distances = squared_distances(points, state["centroids"]) / state["spread"].square()[..., None, None]
        return Categorical(without_absent(-self.temperature * distances, state["present"]))

    def _placed(self, points: Tensor) -> Tensor:
        return F.normalize(points, dim=-1) if self.distance == "cosine" else points


class NearestNeighbors(OnRawInputs):
    """Let the nearest support examples vote, or take the mean of their targets.

    *Nearest Neighbor Pattern Classification* (Cover & Hart, 1967), https://doi.org/10.1109/TIT.1967.1053964.
    `neighbors` is at most the number of support examples. Departure: where classes have equally many votes, the one
    with the nearer neighbors wins, since with one example per class all votes are ties.
    """

    key = "neighbors"
    state_holds_examples = True
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 4, "rows": 5}
    search_space: ClassVar[dict[str, tuple[Any, ...]]] = {"neighbors": (1, 3, 5)}

    def __init__(self, spec: TaskSpec, backbone: nn.Module, *, neighbors: Count = 1) -> None:
        super().__init__(spec, backbone)
        self.neighbors = neighbors

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The support itself: inputs `(n, d)` and targets `(n, outputs)`, classes as one-hot vectors."""
        inputs = self.backbone(support.inputs).clone()
        if spec.classification:
            return {"inputs": inputs, "targets": F.one_hot(support.targets, spec.outputs).to(inputs)}
        return {"inputs": inputs, "targets": support.targets.clone()}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The neighbors' mean target, or the logarithms of their votes with half a vote for every class."""
        distances = squared_distances(self.backbone(inputs), state["inputs"])
        count = min(self.neighbors, distances.shape[-1])
        nearest = distances.topk(count, largest=False).indices  # (n, count), the nearest one first
        targets = state["targets"][nearest]  # (n, count, outputs)
        if not self.classification:
            return Point(targets.mean(1))
        # A vote weighs 1 + 2^-rank / 2: all the fractions together are less than 1, so they decide ties only.
        weights = 1 + 0.5 ** torch.arange(1, count + 1, dtype=targets.dtype, device=targets.device)
        return Categorical(torch.log(0.5 + (weights.unsqueeze(-1) * targets).sum(1)))


class RidgeProbe(OnRawInputs):
    """Ridge regression on the raw inputs, of the target or of one-hot classes.

    *Ridge Regression: Biased Estimation for Nonorthogonal Problems* (Hoerl & Kennard, 1970),
    https://doi.org/10.1080/00401706.1970.10488634. For classes the outputs times `temperature` are the logits.
    """

    key = "ridge-probe"
    candidate_for: ClassVar[dict[Race, int]] = {"images": 2, "vectors": 2, "rows": 2}
    search_space: ClassVar[dict[str, tuple[Any, ...]]] = {"regularization": STRENGTHS}

    def __init__(
        self, spec: TaskSpec, backbone: nn.Module, *, regularization: Positive = 1.0, temperature: Positive = 10.0
    ) -> None:
        super().__init__(spec, backbone)
        self.regularization, self.temperature = regularization, temperature

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The weights `(d, outputs)` and bias `(outputs,)`."""
        inputs = self.backbone(support.inputs)
        targets = F.one_hot(support.targets, spec.outputs).to(inputs) if spec.classification else support.targets
        scale = spread(inputs)
        weights, bias = ridge(inputs / scale, targets, self.regularization)
        return {"weights": (weights / scale).contiguous(), "bias": bias}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The linear outputs."""
        outputs = self.backbone(inputs) @ state["weights"] + state["bias"]
        return Categorical(self.temperature * outputs) if self.classification else Point(outputs)


class LogisticProbe(OnRawInputs):
    """Multinomial logistic regression on the raw inputs.

    *The Regression Analysis of Binary Sequences* (Cox, 1958), https://doi.org/10.1111/j.2517-6161.1958.tb00292.x.
    """

    key = "logistic-probe"
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 3, "rows": 3}
    kinds = frozenset({"classification"})
    search_space: ClassVar[dict[str, tuple[Any, ...]]] = {"regularization": STRENGTHS}

    def __init__(self, spec: TaskSpec, backbone: nn.Module, *, regularization: Positive = 0.1) -> None:
        super().__init__(spec, backbone)
        self.regularization = regularization

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The weights `(d, way)` and bias `(way,)`."""
        inputs = self.backbone(support.inputs)
        scale = spread(inputs)
        weights, bias = logistic(inputs / scale, support.targets, spec.outputs, self.regularization)
        return {"weights": (weights / scale).contiguous(), "bias": bias}

    def predict(self, state: TaskState, inputs: Tensor) -> Categorical:
        """The linear outputs as logits."""
        return Categorical(self.backbone(inputs) @ state["weights"] + state["bias"])
