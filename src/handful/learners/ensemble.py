"""An ensemble: the weighted average of the predictions of several learners."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful import backbones
from handful.errors import UserError
from handful.functional.stateless import own_copy
from handful.learners.learner import Learner, MetaGradientKind, Start
from handful.learners.options import by_kind, check_names
from handful.registry import LEARNERS
from handful.types import Categorical, Examples, Gaussian, Point, Prediction, TaskSpec, TaskState

OF_MEMBERS = ("learner", "backbone", "backbone_options", "normalization", "seed", "options")
"""What a member says of itself beside its weight: of its recipe, all but the tasks."""
ANY_OF_THEM = (
    "state_holds_examples",
    "predicts_deviation",
    "predicts_absent",
    "uses_support",
    "uses_inputs",
    "uses_other_tasks",
)
"""What holds of an ensemble if it holds of one of its members."""


def _untrained(*keys: str) -> list[dict[str, Any]]:
    """Members without training, equally weighted."""
    plain: dict[str, Any] = {"backbone": "raw", "backbone_options": {}, "normalization": None, "seed": 0, "options": {}}
    return [{"weight": 1 / len(keys), "learner": key} | plain for key in keys]


UNTRAINED = by_kind(
    classification=_untrained("centroid", "logistic-probe"), regression=_untrained("dummy", "ridge-probe")
)


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
    start: ClassVar[Start] = "raw"
    uses_other_tasks = False

    weights: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        members: list[dict[str, Any]] = UNTRAINED,
    ) -> None:
        super().__init__()
        self.backbone = backbones.Raw(spec.input_shape)  # members have networks of their own
        self.outputs = spec.outputs
        check_members(members)
        self._hold([_built(spec, member) for member in members], [member["weight"] for member in members])

    @classmethod
    def of(cls, weights: Mapping[Learner, float]) -> "Ensemble":
        """The ensemble of trained learners, of which it has copies.

        weights: of each learner, above 0. All are for the same tasks, and none has an encoder that is tuned.

        Raises `UserError` for others.
        """
        members = []
        for learner, weight in weights.items():
            own = {name: learner.recipe[name] for name in OF_MEMBERS}
            members.append({"weight": weight} | own | {"backbone": backbones.written(own["backbone"])})
        check_members(members)
        specs = [learner.recipe["spec"] for learner in weights]
        if any(spec != specs[0] for spec in specs):
            raise UserError(f"The members of an ensemble are for the same tasks, and these are for {specs}.")
        if any(member["backbone"] == "encoder" for member in members):
            raise UserError("A learner with a tuned encoder is no member of an ensemble. Leave it out.")
        copies = [own_copy(learner) for learner in weights]
        made = cls.build(specs[0], backbone="raw", device=copies[0].device)
        made.recipe["options"] = {"members": members}
        made._hold(copies, [*weights.values()])
        return made.eval()

    def _hold(self, members: list[Learner], weights: Sequence[float]) -> None:
        self.members = nn.ModuleList(members).requires_grad_(False)
        total = sum(weights)
        shares = torch.tensor([weight / total for weight in weights], device=members[0].progress.device)
        self.register_buffer("weights", shares, persistent=False)
        self.any_way = all(member.any_way for member in members)
        for name in ANY_OF_THEM:
            setattr(self, name, any(getattr(member, name) for member in members))

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
        found = []
        for number, member in enumerate(self._learners):
            if (one := member.predict_stacked(states[str(number)], inputs)) is None:
                return None
            found.append(one)
        return averaged(found, self.weights)


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


def check_members(members: Any) -> None:
    """Raise `UserError` unless these are the recipes of one or more learners, each with its weight."""
    sound = isinstance(members, Sequence) and not isinstance(members, str) and len(members) > 0
    for member in members if sound else [members]:
        if not sound or not _is_recipe(member):
            raise UserError(
                f"The members of an ensemble are recipes of learners, each with its weight above 0, not {member!r}. "
                "Make an ensemble of trained learners with handful.learners.ensemble.Ensemble.of."
            )
        check_names(LEARNERS[member["learner"]], member["options"])


def _is_recipe(member: Any) -> bool:
    if not isinstance(member, dict) or member.keys() != {"weight", *OF_MEMBERS}:
        return False
    weight = member["weight"]
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0 < weight < math.inf
    return number and isinstance(member["learner"], str) and isinstance(member["options"], dict)


def _along(weights: Tensor, values: Tensor) -> Tensor:
    """Weights of the first axis of values, for broadcasting."""
    return weights.to(values).view(-1, *(1 for _ in values.shape[1:]))


def _built(spec: TaskSpec, member: dict[str, Any]) -> Learner:
    """A member, untrained."""
    recipe = {name: member[name] for name in ("backbone", "backbone_options", "normalization", "seed")}
    cls: type[Learner] = LEARNERS[member["learner"]]
    return cls.build(spec, device=torch.get_default_device(), **recipe, **member["options"])
