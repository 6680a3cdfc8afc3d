"""Learned optimizers: the rule by which a fresh network is trained is meta-trained, not the network."""

from typing import Any, Literal, Self

import torch
from torch import Generator, Tensor, nn

from handful.backbones import Backbone
from handful.errors import UserError
from handful.functional.differentiation import Weights
from handful.functional.inner_loop import UpdateRule, descend
from handful.functional.normalization import Normalization
from handful.functional.stateless import tensors
from handful.learners.options import Count, CountOrZero, Positive
from handful.learners.task_networks import FreshNetwork
from handful.learners.update_rule import DIRECTIONS, FEATURES, LearnedRule, Observed
from handful.types import Examples, Task, TaskSpec, TaskState

FLOOR = 1e-8
"""Added to a loss before its logarithm."""


class LearnedOptimizer(FreshNetwork):
    """Learn the rule by which a fresh network is trained on the support, weight by weight.

    *Learning to learn by gradient descent by gradient descent* (Andrychowicz et al., 2016),
    https://arxiv.org/abs/1606.04474, with features after *Practical tradeoffs between memory, compute, and performance
    in learned optimizers* (Metz et al., 2022), https://arxiv.org/abs/2203.11860. Only the rule is meta-trained; the
    network starts from weights of its own, drawn anew for each task of meta-training, under a head of zeros. `rule` is
    a small network of two layers for each weight, or an LSTM cell; `objective` the losses along the way that
    meta-training lowers, of the support (to train fast) or of the query (to generalize), as they are or their
    logarithms; `first_order` the paper's, which takes gradients for constants; `truncation` how many steps a
    meta-gradient passes through (0: all). Departures: the rule starts as Adam with the rate `inner_lr` and changes the
    length and the direction of its steps, one of its directions being that of limited-memory BFGS from the last `pairs`
    steps (0: none), since the support is the same at every step; features do not depend on the loss's scale; the LSTM
    has one layer.
    """

    key = "learned-optimizer"

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        rule: Literal["mlp", "lstm"] = "mlp",
        hidden: Count = 16,
        inner_lr: Positive = 0.02,
        inner_steps: Count = 20,
        pairs: CountOrZero = 8,
        objective: Literal["support", "query"] = "query",
        loss: Literal["log", "plain"] = "log",
        intercept: bool = True,
        first_order: bool = False,
        truncation: CountOrZero = 0,
    ) -> None:
        super().__init__(spec, backbone)
        self.recurrent, self.pairs, self.intercept, self.log = rule == "lstm", pairs, intercept, loss == "log"
        self.inner_lr, self.inner_steps, self.objective = inner_lr, inner_steps, objective
        self.first_order, self.truncation = first_order, truncation
        gates = 4 * hidden if self.recurrent else hidden
        self.rule = nn.ModuleDict(
            {
                "first": nn.Linear(FEATURES, gates),
                "second": nn.Linear(hidden, gates, bias=not self.recurrent),
                "last": nn.Linear(hidden, 1 + DIRECTIONS),
            }
        )
        for weights in self.rule["last"].parameters():
            nn.init.zeros_(weights)  # the rule starts as Adam

    def for_network(
        self,
        spec: TaskSpec,
        *,
        backbone: Backbone = "auto",
        backbone_options: dict[str, Any] | None = None,
        normalization: Normalization | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """A learner with a copy of this rule, for another network, other tasks or other options, as in `build`.

        Raises `UserError` for options that make another rule of it.
        """
        mine = self.recipe["options"]
        for name in ("rule", "hidden"):
            if options.get(name, mine[name]) != mine[name]:
                raise UserError(f"The trained rule has {name}={mine[name]!r}: leave {name} out, or train another rule.")
        other = type(self).build(
            spec,
            backbone=backbone,
            backbone_options=backbone_options,
            normalization=normalization,
            seed=seed,
            **(mine | options),
        )
        other.rule.load_state_dict(self.rule.state_dict())
        return other.train(self.training)

    def learned(self) -> LearnedRule:
        """The rule as it is now, for `engine.inner_loop.descend` on any weights."""
        return LearnedRule(tensors(self.rule), self.inner_lr, self.recurrent, self.pairs)

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The trained weights, and the normalization's statistics under them."""
        slow, fast = self._start(support, spec)
        context = {"slow": slow, "support": support}
        weights, _ = descend(
            self._inner_loss,
            fast,
            context,
            rule=self.learned(),
            steps=self.inner_steps,
            first_order=self.first_order,
        )
        _, statistics = self._inner_loss(weights, context)
        return {"weights": {name: weight.clone() for name, weight in weights.items()}, "statistics": statistics}

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """The mean of the losses, or of their logarithms, after each step from the start `noise`."""
        losses = self.losses(task, spec, start=noise)
        return ((losses + FLOOR).log() if self.log else losses).mean()

    def draw_noise(self, task: Task, spec: TaskSpec, generator: Generator) -> Weights | None:
        """A start of the network: normal numbers with the mean and deviation of each tensor of its own start."""
        drawn = {}
        for name, weight in self.backbone.named_parameters():
            if name in self.trainable:
                normal = torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device=generator.device)
                drawn[f"backbone.{name}"] = weight.mean() + weight.std(correction=0) * normal.to(weight.device)
        return drawn or None

    def losses(
        self,
        task: Task,
        spec: TaskSpec,
        *,
        rule: UpdateRule | None = None,
        steps: int | None = None,
        start: Weights | None = None,
    ) -> Tensor:
        """The objective after each step `(steps,)` of a rule, by default the learned one, on the task's support.

        steps: by default `inner_steps`.
        start: weights of the backbone, as `draw_noise` draws them.
        """
        slow, fast = self._start(task.support, spec)
        count = self.inner_steps if steps is None else steps
        measured = {"slow": slow, "task": task}
        weights, _ = descend(
            self._inner_loss,
            fast | (start or {}) | {"losses": task.support.inputs.new_zeros(count)},
            {"slow": slow, "support": task.support},
            rule=Observed(rule or self.learned(), self._objective, measured, self.truncation),
            steps=count,
            first_order=self.first_order,
        )
        return weights["losses"]

    def _objective(self, weights: Weights, context: dict[str, Any]) -> Tensor:
        slow, task = context["slow"], context["task"]
        loss, statistics = self._inner_loss(weights, {"slow": slow, "support": task.support})
        if self.objective == "support":
            return loss
        return self._query_loss(slow | weights, statistics, task.query)

    def _start(self, support: Examples, spec: TaskSpec) -> tuple[Weights, Weights]:
        """All of the network, and the weights that are trained, with a head of zeros."""
        network = self._network()
        fast = self._trainable(network)
        fast["head.weight"] = support.inputs.new_zeros(spec.outputs, self.features)
        if self.intercept:
            fast["head.bias"] = support.inputs.new_zeros(spec.outputs)
        return network, fast
