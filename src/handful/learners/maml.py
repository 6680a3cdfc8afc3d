"""Model-agnostic meta-learning: MAML and its kin that select other fast parameters or learn other rates."""

from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from handful.errors import UserError
from handful.functional.closed_form_heads import descended
from handful.functional.differentiation import Weights
from handful.functional.inner_loop import SGD, Annealed, Rule, UpdateRule, descend, trajectory
from handful.learners.learner import Race
from handful.learners.options import Count, Fraction, NotNegative, Positive, by_kind
from handful.learners.task_networks import AdaptedNetwork, Head
from handful.types import Examples, Task, TaskSpec, TaskState

INNER_LR = by_kind(classification=0.1, regression=0.01)
"""A head that starts at zero gives the body no gradient before it has grown."""

START_DEVIATION = 0.3
"""Of a weight under `meta_regularization`, before meta-training."""


class MAML(AdaptedNetwork):
    """Learn starting weights from which a few gradient steps on the support solve the task.

    *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks* (Finn, Abbeel & Levine, 2017),
    https://arxiv.org/abs/1703.03400. `first_order` drops the second derivatives (FOMAML); `fast` is a glob of the
    parameters that adapt.

    Of MAML++ (*How to train your MAML*, Antoniou, Edwards & Storkey, 2019, https://arxiv.org/abs/1810.09502):
    `learn_inner_lr` learns one rate per fast parameter, and with `inner_lr_per_step` one for each step too;
    `multi_step_until` is the fraction of meta-training over which the loss goes from the mean of the query's losses
    after each step to that after the last one; `first_order_until` is the fraction that has no second derivatives
    (which steadies the start, and saves no time here).

    `meta_regularization` (*Meta-Learning without Memorization*, Yin et al., 2020, https://arxiv.org/abs/1912.03820, on
    weights) keeps the weights that do not adapt from memorizing the training tasks: each is drawn for each training
    task from a normal distribution of which mean and deviation are learned, and its divergence from N(0, 1) times the
    option is added to the loss. What adapts and predicts uses the means.

    Departures: by default the head of a classifier starts at zero (*MAML is a Noisy Contrastive Learner in
    Classification*, Kao et al., 2022, https://arxiv.org/abs/2106.15367), so that it takes any way and no class number
    is special; `head="slots"` is the paper's. Batch norm uses the support's statistics, not the query's.
    """

    key = "maml"
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 4, "rows": 6}
    no_weight_decay = ("rates", "log_deviations")

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: Positive = INNER_LR,
        inner_steps: Count = 5,
        first_order: bool = False,
        learn_inner_lr: bool = False,
        inner_lr_per_step: bool = False,
        multi_step_until: Fraction = 0.0,
        first_order_until: Fraction = 0.0,
        meta_regularization: NotNegative = 0.0,
        fast: str = "*",
        head: Head = "auto",
    ) -> None:
        super().__init__(spec, backbone, fast=fast, head=head)
        if inner_lr_per_step and not learn_inner_lr:
            raise UserError("Rates of their own for each step are learned ones: set learn_inner_lr too.")
        self.inner_steps, self.first_order = inner_steps, first_order
        self.inner_lr_per_step = inner_lr_per_step
        self.multi_step_until, self.first_order_until = multi_step_until, first_order_until
        network = self._network()
        self.rates = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(
                    torch.full(self._rate_shape(network[name]), float(inner_lr)), requires_grad=learn_inner_lr
                )
                for name in self.fast
            }
        )
        slow = {name: value for name, value in network.items() if value.requires_grad and name not in self.fast}
        if meta_regularization and not slow:
            raise UserError(
                "The option 'meta_regularization' is for weights that do not adapt, and here all do. Let fewer adapt, "
                "with fast='head.*' or the learner 'anil'."
            )
        self.meta_regularization = meta_regularization
        self.log_deviations = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(torch.full_like(weight, START_DEVIATION).log())
                for name, weight in slow.items()
                if meta_regularization
            }
        )

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Fast weights after the inner loop, and the normalization's statistics of its last step."""
        return self._state(*self._adapted(*self._start(spec), support))

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """The query's loss after the last step, or after each of them, weighted; and the meta-regularization."""
        fast, slow = self._start(spec)
        drawn = self._drawn(slow, noise)
        if not self.multi_step_until:
            return self._scored(self._adapted(fast, slow | drawn, task.support), drawn, task) + self._penalty()
        context = {"slow": slow | drawn, "support": task.support}
        reached = trajectory(self._inner_loss, fast, context, **self._how())
        losses = torch.stack([self._scored(each, drawn, task) for each in reached])  # (steps,)
        before_last = (1 - self.progress / self.multi_step_until).clamp_min(0) / self.inner_steps
        loss = before_last * losses[:-1].sum() + (1 - (self.inner_steps - 1) * before_last) * losses[-1]
        return loss + self._penalty()

    def draw_noise(self, task: Task, spec: TaskSpec, generator: Generator) -> Weights | None:
        """Of meta-regularization: normal numbers, one for each weight that does not adapt."""
        drawn = {}
        for name, logarithm in self.log_deviations.items():
            normal = torch.randn(logarithm.shape, generator=generator, dtype=logarithm.dtype, device=generator.device)
            drawn[name.replace("/", ".")] = normal.to(logarithm.device)
        return drawn or None

    def divergence(self) -> Tensor:
        """Of the distributions of the weights that do not adapt from N(0, 1), in nats: a scalar."""
        network = self._network()
        divergences = []
        for name, logarithm in self.log_deviations.items():
            mean = network[name.replace("/", ".")]
            divergences.append(0.5 * (mean.square() + (2 * logarithm).exp() - 1 - 2 * logarithm).sum())
        return torch.stack(divergences).sum()

    def _penalty(self) -> Tensor | float:
        return self.meta_regularization * self.divergence() if self.meta_regularization else 0.0

    def _drawn(self, slow: Weights, noise: Weights | None) -> Weights:
        """Weights that do not adapt, with the drawn numbers; none where nothing was drawn."""
        deviations = {name.replace("/", "."): logarithm.exp() for name, logarithm in self.log_deviations.items()}
        return {name: slow[name] + deviations[name] * normal for name, normal in (noise or {}).items()}

    def _scored(self, reached: tuple[Weights, Weights], drawn: Weights, task: Task) -> Tensor:
        fast, statistics = reached
        return self._query_loss(fast | drawn, statistics, task.query)

    def _adapted(self, fast: Weights, slow: Weights, support: Examples) -> tuple[Weights, Weights]:
        plain = not self.first_order_until and all(rate.ndim == 0 for rate in self.rates.values())
        if not plain or any(name.startswith("backbone.") for name in fast):
            return descend(self._inner_loss, fast, {"slow": slow, "support": support}, **self._how())
        return self._descended_head(slow | fast, support)

    def _rate_shape(self, weight: Tensor) -> tuple[int, ...]:
        return (self.inner_steps,) if self.inner_lr_per_step else ()

    def _how(self) -> dict[str, Any]:
        return {"rule": self._rule(), "steps": self.inner_steps, "first_order": self.first_order}

    def _rule(self) -> Rule:
        rates = self._rates()
        second_order = (self.progress >= self.first_order_until).to(self.progress)

        def of_step(turn: int) -> UpdateRule:
            own = {name: rate[turn] for name, rate in rates.items()} if self.inner_lr_per_step else rates
            return Annealed(SGD(own), second_order) if self.first_order_until else SGD(own)

        return of_step if self.inner_lr_per_step else of_step(0)

    def _rates(self) -> dict[str, Tensor]:
        return {name.replace("/", "."): rate for name, rate in self.rates.items()}

    def _descended_head(self, network: Weights, support: Examples) -> tuple[Weights, Weights]:
        """The inner loop where the head alone is fast: the features stay the same, and are computed once."""
        features, statistics = self._features(network, support.inputs, fit=True)
        names, rates = ("head.weight", "head.bias"), self._rates()
        head = descended(
            features,
            support.targets,
            *(network[name] for name in names),
            rates=(rates.get(names[0], 0.0), rates.get(names[1], 0.0)),
            steps=self.inner_steps,
            first_order=self.first_order,
        )
        return {name: tensor for name, tensor in zip(names, head, strict=True) if name in rates}, statistics


class ANIL(MAML):
    """MAML whose inner loop adapts the head alone.

    *Rapid Learning or Feature Reuse?* (Raghu et al., 2020), https://arxiv.org/abs/1909.09157. Options: those of `maml`
    but `fast`.
    """

    key = "anil"
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 3, "rows": 3}
    fixed_options: ClassVar[dict[str, Any]] = {"fast": "head.*"}


class BOIL(MAML):
    """MAML whose inner loop adapts the body and leaves the head as it is.

    *BOIL: Towards Representation Change for Few-shot Learning* (Oh et al., 2021), https://arxiv.org/abs/2008.08882. The
    head stays, so each class has a vector of its own in it, and the number of classes is that of training. Options:
    those of `maml` but `fast` and `head`.
    """

    key = "boil"
    any_way = False
    fixed_options: ClassVar[dict[str, Any]] = {"fast": "backbone.*", "head": "slots"}
    own_defaults: ClassVar[dict[str, Any]] = {"inner_lr": 0.1}


class MetaSGD(MAML):
    """MAML that learns a rate for every single weight, and so the direction of its steps.

    *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning* (Li et al., 2017), https://arxiv.org/abs/1707.09835.
    Departures: all rates start at `inner_lr`, not at random; classes share the rates of their head as they share its
    start (see `maml`); more steps than the paper's one may be taken. Options: those of `maml` but `learn_inner_lr`.
    """

    key = "meta-sgd"
    fixed_options: ClassVar[dict[str, Any]] = {"learn_inner_lr": True}
    own_defaults: ClassVar[dict[str, Any]] = {"inner_steps": 1}

    def _rate_shape(self, weight: Tensor) -> tuple[int, ...]:
        return (*super()._rate_shape(weight), *weight.shape)
