"""An ensemble: the weighted average of the predictions of several learners."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful import backbones
from handful.errors import UserError
from handful.learners.learner import Learner, MetaGradientKind
from handful.learners.options import by_kind
from handful.registry import LEARNERS
from handful.types import Categorical, Examples, Gaussian, Point, Prediction, TaskSpec, TaskState

OF_MEMBERS = ("learner", "backbone", "backbone_options", "normalization", "seed", "options")
"""What a member says of itself beside its weight: of its recipe, all but the tasks."""


class Ensemble(Learner):
    """Average the predictions of several learners, weighted: what `auto` makes of the best candidates of a race.

    *Ensemble Selection from Libraries of Models* (Caruana et al., 2004), https://doi.org/10.1145/1015330.1015432. Of
    classes the probabilities are averaged, of values the means. The variance of a value is that of the mixture: the
    average variance, of those members that predict one, plus how far the members' means are apart.

    Each member adapts by itself, so the time to adapt and the state are the sums of theirs. It is not trained as a
    whole: `of` makes one of learners that are.

    members: the recipe of each, with its weight above 0; weights are divided by their sum.

    >>> spec = TaskSpec("classification", (2,), 2)
    >>> learner = Ensemble.build(spec)
    >>> state = learner.adapt(Examples(torch.eye(2), torch.tensor([0, 1])), spec)
    >>> learner.predict(state, torch.eye(2)).logits.argmax(-1)
    tensor([0, 1])
    """

    key = "ensemble"
    meta_gradient: ClassVar[MetaGradientKind] = "none"

    weights: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        members: Sequence[dict[str, Any]] = by_kind(
            classification=[{"weight": 0.5, "learner": "centroid"}, {"weight": 0.5, "learner": "logistic-probe"}],
            regression=[{"weight": 0.5, "learner": "dummy"}, {"weight": 0.5, "learner": "ridge-probe"}],
        ),
    ) -> None:
        super().__init__()
        self.backbone = backbones.Raw(spec.input_shape)  # members have networks of their own
        self.outputs = spec.outputs
        self._hold([_built(spec, member) for member in members], [member["weight"] for member in members])

    @classmethod
    def of(cls, weights: dict[Learner, float]) -> "Ensemble":
        """The ensemble of trained learners, which become its members as they are.

        weights: of each learner, for tasks of one spec.
        """
        members = []
        for learner, weight in weights.items():
            own = {name: learner.recipe[name] for name in OF_MEMBERS}
            members.append({"weight": weight} | own | {"backbone": backbones.written(own["backbone"])})
        first = next(iter(weights))
        made = cls.build(first.recipe["spec"], backbone="raw", device=first.device, members=members)
        made._hold(list(weights), list(weights.values()))
        return made.eval()

    def _hold(self, members: list[Learner], weights: list[float]) -> None:
        self.members = nn.ModuleList(members).requires_grad_(False)
        self.register_buffer("weights", torch.tensor(weights) / sum(weights), persistent=False)
        self.any_way = all(member.any_way for member in members)
        self.state_holds_examples = any(member.state_holds_examples for member in members)
        self.predicts_deviation = any(member.predicts_deviation for member in members)

    @property
    def pointwise(self) -> bool:
        """Whether it holds of all members."""
        return all(member.pointwise for member in self._learners)

    @property
    def _learners(self) -> list[Learner]:
        return list(self.members)  # type: ignore[arg-type]

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The state of each member, by its number."""
        return {str(number): member.adapt(support, spec) for number, member in enumerate(self._learners)}

    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The average of the members' predictions."""
        found = [member.predict(state[str(number)], inputs) for number, member in enumerate(self._learners)]
        return averaged(found, self.weights)

    def predict_stacked(self, states: TaskState, inputs: Tensor) -> Prediction | None:
        """The same of stacked tasks, where all members have a way of their own for them."""
        found = [member.predict_stacked(states[str(number)], inputs) for number, member in enumerate(self._learners)]
        known = [one for one in found if one is not None]
        return averaged(known, self.weights) if len(known) == len(found) else None


def averaged(predictions: Sequence[Prediction], weights: Tensor) -> Prediction:
    """The weighted average of predictions of equal shapes, see `Ensemble`.

    weights: `(predictions,)` with the sum 1.
    """
    if isinstance(predictions[0], Categorical):
        logits = torch.stack([one.logits for one in predictions if isinstance(one, Categorical)])
        return Categorical((logits.log_softmax(-1) + _along(weights.log(), logits)).logsumexp(0))
    means = torch.stack([one.mean for one in predictions if not isinstance(one, Categorical)])
    mean = (_along(weights, means) * means).sum(0)
    deviating = [number for number, one in enumerate(predictions) if isinstance(one, Gaussian)]
    if not deviating:
        return Point(mean)
    variances = torch.stack([one.variance for one in predictions if isinstance(one, Gaussian)])
    own = weights[deviating] / weights[deviating].sum()
    within = (_along(own, variances) * variances).sum(0)
    return Gaussian(mean, within + (_along(weights, means) * (means - mean).square()).sum(0))


def _along(weights: Tensor, values: Tensor) -> Tensor:
    """Weights of the first axis of values, for broadcasting."""
    return weights.to(values).view(-1, *(1 for _ in values.shape[1:]))


def _built(spec: TaskSpec, member: Any) -> Learner:
    """A member, untrained."""
    fits = isinstance(member, dict) and {"weight", "learner"} <= member.keys() <= {"weight", *OF_MEMBERS}
    if not fits or not member["weight"] > 0:
        raise UserError(
            f"A member of an ensemble is a learner's recipe with its weight above 0, not {member!r}. Make an ensemble "
            "with Ensemble.of."
        )
    recipe = {name: value for name, value in member.items() if name not in ("weight", "learner", "options")}
    cls: type[Learner] = LEARNERS[member["learner"]]
    return cls.build(spec, device=torch.get_default_device(), **recipe, **member.get("options", {}))
