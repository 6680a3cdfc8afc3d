"""What a practitioner does first: one model of all tasks together, and for each a small correction of its own."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful import streams
from handful.functional.boosting import BoostedTrees
from handful.functional.corrections import corrected_logits, corrected_values
from handful.learners.learner import Race
from handful.learners.options import NotNegative, Positive
from handful.learners.probes import OnRawInputs
from handful.learners.transfer import PretrainedNetwork
from handful.types import Categorical, Examples, Point, Prediction, TaskSpec, TaskState

NOISES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 1000.0)
SLOPES = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Variances, in units of that of the offsets, which are tried on the training tasks for `corrected-trees`."""
SHOTS = (5, 10, 20)
"""Examples of a training task that a correction is tried with: one after another of these numbers."""
MOST_TASKS = 150
"""That it is tried on."""


class CorrectedNetwork(PretrainedNetwork):
    """Predict with the pre-trained network and its head, plus an offset and slopes of the task's own.

    *Random-Effects Models for Longitudinal Data* (Laird & Ware, 1982), https://doi.org/10.2307/2529876, with a network
    in place of the fixed effects, and its features as those of which a task has slopes. The correction is the mean of
    the random effects given the support's residuals; for classes the most probable one, in log-odds. `noise` is the
    variance of what the effects do not explain and `slopes` that of all slopes, in units of the offset's: both are
    chosen on validation tasks.
    """

    key = "corrected-network"
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 2}
    features_only = True
    labels = frozenset({"shared"})
    search_space: ClassVar[dict[str, tuple[Any, ...]]] = {"noise": (1.0, 3.0, 10.0), "slopes": (0.0, 0.3)}

    def __init__(
        self, spec: TaskSpec, backbone: nn.Module, *, noise: Positive = 1.0, slopes: NotNegative = 1.0
    ) -> None:
        super().__init__(spec, backbone)
        self.noise, self.slopes = noise, slopes

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The slopes `(d, outputs)` and the offset `(outputs,)`."""
        self._check_outputs(spec)
        features = self.backbone(support.inputs)
        return _correction(features, self._pooled(features), support.targets, self.noise, self.slopes)

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The network's outputs, corrected."""
        features = self.backbone(inputs)
        outputs = self._pooled(features) + features @ state["slopes"] + state["offset"]
        return Categorical(outputs) if self.classification else Point(outputs)

    def _pooled(self, features: Tensor) -> Tensor:
        assert self.head is not None, "tasks with permuted labels are refused when it is built"
        return self.head(features)  # type: ignore[no-any-return]


class CorrectedTrees(OnRawInputs):
    """Predict with boosted trees of all training tasks, plus an offset and slopes of the task's own.

    *LightGBM: A Highly Efficient Gradient Boosting Decision Tree* (Ke et al., 2017),
    https://papers.nips.cc/paper/6907-lightgbm-a-highly-efficient-gradient-boosting-decision-tree, as scikit-learn fits
    them by default, in place of the fixed effects of *Random-Effects Models for Longitudinal Data* (Laird & Ware,
    1982), https://doi.org/10.2307/2529876. The correction is the mean of the random effects given the support's
    residuals; for classes the most probable one, in log-odds. Their variances are those that predict training tasks
    best from a part of their rows, with trees of other tasks.
    """

    key = "corrected-trees"
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 1}
    start = "fitted"
    uses_other_tasks = True
    labels = frozenset({"shared"})
    any_way = False
    fits = True
    noise: Tensor
    slopes: Tensor

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        super().__init__(spec, backbone)
        self.outputs = spec.outputs
        self.trees = BoostedTrees(spec.outputs)
        self.register_buffer("noise", torch.ones(()))
        self.register_buffer("slopes", torch.ones(()))

    def fit(self, tasks: Sequence[Examples]) -> None:
        """Fit the trees on the rows of all training tasks, and choose the variances."""
        noise, slopes = _best_variances(tasks, self.trees.fit(tasks))
        self.noise.fill_(noise)
        self.slopes.fill_(slopes)

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The slopes `(d, outputs)` and the offset `(outputs,)`."""
        self._check_outputs(spec)
        inputs = self.backbone(support.inputs)
        return _correction(inputs, self.trees(inputs), support.targets, self.noise, self.slopes)

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The trees' scores, corrected."""
        rows = self.backbone(inputs)
        outputs = self.trees(rows) + rows @ state["slopes"] + state["offset"]
        return Categorical(outputs) if self.classification else Point(outputs)


def _correction(
    features: Tensor, pooled: Tensor, targets: Tensor, noise: Tensor | float, slopes: Tensor | float
) -> TaskState:
    """The state for pooled values or logits `(n, outputs)` of a support."""
    if targets.ndim == 1:
        own, offset = corrected_logits(features, targets, pooled, noise, slopes)
    else:
        own, offset = corrected_values(features, targets - pooled, noise, slopes)
    return {"slopes": own.contiguous(), "offset": offset.contiguous()}


def _best_variances(tasks: Sequence[Examples], pooled: Sequence[Tensor]) -> tuple[float, float]:
    """Those under which a part of a task's rows corrects the pooled scores of its others best, over all tasks."""
    choices = torch.tensor(list(product(NOISES, SLOPES)))  # (choices, 2)
    total = torch.zeros(len(choices), dtype=torch.float64)
    for number, (task, scores) in enumerate(zip(tasks[:MOST_TASKS], pooled, strict=False)):
        rows = torch.randperm(len(scores), generator=streams.rows_to_correct_by(number))
        shot = min(SHOTS[number % len(SHOTS)], len(rows) // 2)
        if shot:
            losses = partial(_loss, task, scores, rows[:shot], rows[shot:])
            total += torch.func.vmap(losses)(choices).double()
    if not total.any():
        return 1.0, 0.0  # no task has two rows
    noise, slopes = choices[int(total.argmin())].tolist()
    return noise, slopes


def _loss(task: Examples, pooled: Tensor, support: Tensor, query: Tensor, variances: Tensor) -> Tensor:
    """The mean loss of the query's rows, corrected by those of the support."""
    noise, slopes = variances
    state = _correction(task.inputs[support], pooled[support], task.targets[support], noise, slopes)
    outputs = pooled[query] + task.inputs[query] @ state["slopes"] + state["offset"]
    prediction: Prediction = Categorical(outputs) if task.targets.ndim == 1 else Point(outputs)
    return prediction.loss(task.targets[query]).mean()
