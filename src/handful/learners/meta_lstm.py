"""The meta-learner LSTM: a recurrent network whose cell is the weights of another."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.functional.differentiation import Weights
from handful.functional.inner_loop import descend
from handful.functional.lstm_cell import lstm
from handful.functional.stateless import as_row, in_shape, tensors
from handful.learners.options import BelowOne, Count
from handful.learners.task_networks import AdaptedNetwork, Head
from handful.types import Examples, TaskSpec, TaskState

FACTOR = "factor"
"""Name of a weight of 1 by which the loss is multiplied: the slope along it is the loss, which the gates look at."""
KEEPING = 5.0
"""The forget gate's bias at the start: of a weight, 99.3 % stay in a step."""
RANGE = 10.0
"""Numbers below exp(-10) are encoded by their value, larger ones by their logarithm."""


class MetaLSTM(AdaptedNetwork):
    """Learn starting weights, and gates that say for each weight how much of it to keep and how far to step.

    *Optimization as a Model for Few-Shot Learning* (Ravi & Larochelle, 2017),
    https://openreview.net/forum?id=rJY0-Kcll. A step makes of a weight `forget * weight - enter * gradient`: the cell
    of an LSTM. Its gates see the weight, their own value of the step before, and what an ordinary LSTM of `hidden`
    units makes of the gradients and losses so far, encoded by logarithm and sign (*Learning to learn by gradient
    descent by gradient descent*, Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474). All weights share the
    gates; each has a memory of its own. `first_order` takes gradients and losses for constants.

    Departures: meta-gradients are exact by default, where the paper's are those of `first_order`; each step is on all
    of the support, not on a minibatch of it; the gates look at nothing at the start, so that fresh weights are trained
    by gradient descent with the rate `inner_lr` and a decay of 0.7 % a step; the head of a
    classifier starts at zero and batch norm uses the support's statistics (see `maml`).
    """

    key = "meta-lstm"

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        inner_lr: BelowOne = 0.01,
        inner_steps: Count = 5,
        hidden: Count = 8,
        first_order: bool = False,
        head: Head = "auto",
    ) -> None:
        super().__init__(spec, backbone, head=head)
        self.inner_steps, self.first_order = inner_steps, first_order
        forget, enter = nn.Linear(hidden + 2, 1), nn.Linear(hidden + 2, 1)
        for gate, bias in ((forget, KEEPING), (enter, math.log(inner_lr / (1 - inner_lr)))):
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, bias)
        first, second = nn.Linear(4, 4 * hidden), nn.Linear(hidden, 4 * hidden, bias=False)
        self.rule = nn.ModuleDict({"first": first, "second": second, "forget": forget, "enter": enter})

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The weights after the steps, and the normalization's statistics of the last one."""
        fast, slow = self._start(spec)
        weights, statistics = descend(
            self._multiplied_loss,
            fast | {FACTOR: support.inputs.new_ones(())},
            {"slow": slow, "support": support},
            rule=Gates(tensors(self.rule)),
            steps=self.inner_steps,
            first_order=self.first_order,
        )
        return self._state({name: weights[name].clone() for name in fast}, statistics)

    def _multiplied_loss(self, weights: Weights, context: dict[str, Any]) -> tuple[Tensor, Weights]:
        loss, statistics = self._inner_loss(weights, context)
        return weights[FACTOR] * loss, statistics


class Gates(NamedTuple):
    """An update rule: what the gates keep of each weight, less what they let in of its gradient.

    network: the weights of the LSTM (`first`, `second`) and of the gates (`forget`, `enter`), the meta-parameters.
    """

    network: Weights

    def start(self, weights: Weights) -> dict[str, Tensor]:
        """An empty memory of each weight; before the first step all was kept and nothing let in."""
        row, width = as_row(_without_factor(weights)), self.network["second.weight"].shape[1]
        memory = {name: row.new_zeros(len(row), width) for name in ("hidden", "cell")}
        return memory | {"forget": torch.ones_like(row), "enter": torch.zeros_like(row)}

    def step(self, weights: Weights, gradients: Weights, state: dict[str, Tensor]) -> tuple[Weights, dict[str, Tensor]]:
        """One step of all weights, as one long row."""
        own, trained = self.network, _without_factor(weights)
        row, slope = as_row(trained), as_row(_without_factor(gradients))
        loss = encoded(gradients[FACTOR]).expand(len(row), -1)
        features = torch.cat([encoded(slope), loss], dim=-1)  # (weights, 4)
        sums = F.linear(features, own["first.weight"], own["first.bias"])
        hidden, cell = lstm(sums + F.linear(state["hidden"], own["second.weight"]), state["cell"])
        state = {"hidden": hidden, "cell": cell} | {
            name: self._gate(name, torch.cat([hidden, torch.stack([row, state[name]], dim=-1)], dim=-1))
            for name in ("forget", "enter")
        }
        row = state["forget"] * row - state["enter"] * slope
        return in_shape(row, trained) | {FACTOR: torch.ones_like(weights[FACTOR])}, state

    def _gate(self, name: str, seen: Tensor) -> Tensor:
        """Values `(weights,)` from what a gate sees `(weights, hidden + 2)`."""
        return F.linear(seen, self.network[f"{name}.weight"], self.network[f"{name}.bias"]).sigmoid().squeeze(-1)


def _without_factor(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if name != FACTOR}


def encoded(numbers: Tensor) -> Tensor:
    """Numbers `(...)` of any size as pairs `(..., 2)`: logarithm and sign, or for small ones -1 and the value."""
    sizes = numbers.abs()
    large = sizes >= math.exp(-RANGE)
    logarithm = torch.where(large, sizes, 1.0).log() / RANGE
    return torch.stack(
        [torch.where(large, logarithm, -1.0), torch.where(large, numbers.sign(), math.exp(RANGE) * numbers)], dim=-1
    )
