"""The update rule of learned optimizers, and how the losses along its way are kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from handful.functional.differentiation import Weights
from handful.functional.inner_loop import UpdateRule
from handful.functional.lbfgs import Secants, shortened
from handful.functional.lstm_cell import lstm
from handful.functional.stateless import as_row, in_shape

MOMENTA = (0.5, 0.9, 0.99)
SQUARES = (0.9, 0.999)
HORIZONS = (3.0, 10.0, 30.0)
EPSILON = 1e-6
"""Gradients below it count as zero, so that rounding errors do not become steps."""
SMALLEST_WEIGHT = 1e-3
"""What stands for the size of weights that are all zero."""

LONGEST = 3.0
"""Root mean square of the quasi-Newton direction at most, in units of the rate."""

DIRECTIONS = 2 + len(MOMENTA)
FEATURES = DIRECTIONS + 13 + len(HORIZONS)


class LearnedRule(NamedTuple):
    """An update rule: Adam's step, which a small network scales and bends for each weight on its own.

    network: the small network's weights, which are the meta-parameters.
    rate: Adam's, which the rule has as long as the network gives zeros.
    recurrent: whether the network is an LSTM cell, with a memory per weight, or has two layers.
    pairs: of past steps and gradients from which the quasi-Newton direction comes, two numbers each per weight; 0: no
        such direction.

    The step of a weight is `-rate * exp(s) * (adam + c @ directions)`: the directions `(5,)` are the gradient and three
    momenta in units of the root of the mean squared gradient and that of limited-memory BFGS in units of the rate, s
    and c `(5,)` the network's outputs. What the network sees does not depend on the loss's scale, and a step is zero
    where the gradients are.
    """

    network: Weights
    rate: float
    recurrent: bool = False
    pairs: int = 0

    def start(self, weights: Weights) -> dict[str, Any]:
        """Momenta, squares and memory of each weight, the pairs, and the number of steps taken."""
        row = as_row(weights)
        state: dict[str, Any] = {
            "momenta": row.new_zeros(len(row), len(MOMENTA)),
            "squares": row.new_zeros(len(row), len(SQUARES)),
            "steps": row.new_zeros(()),
        }
        if self.recurrent:
            width = self.network["last.weight"].shape[1]
            state |= {name: row.new_zeros(len(row), width) for name in ("hidden", "cell")}
        if self.pairs:
            state["secants"] = Secants.of(row, self.pairs)
        return state

    def step(self, weights: Weights, gradients: Weights, state: dict[str, Any]) -> tuple[Weights, dict[str, Any]]:
        """One step of all weights, as one long row."""
        row, slope, steps = as_row(weights), as_row(gradients), state["steps"] + 1
        newton, secants = self._newton(row, slope, state)
        momenta, means = _averaged(state["momenta"], slope, MOMENTA, steps)
        squares, variances = _averaged(state["squares"], slope.square(), SQUARES, steps)
        roots = (variances + EPSILON**2).sqrt()  # (weights, 2): of the last steps, of all
        scaled = torch.cat([slope.unsqueeze(-1), means], dim=-1) / roots[:, 1:]
        directions = torch.cat([scaled, newton.unsqueeze(-1)], dim=-1)
        sizes = [weight.numel() for weight in weights.values()]
        features = _features(row, slope, state["momenta"][:, 1], directions, roots, steps, sizes)
        outputs, memory = self._outputs(features, state)
        adam = directions[:, 1 + MOMENTA.index(0.9)]
        bent = adam + (outputs[:, 1:] * directions).sum(-1)
        row = row - self.rate * (3 * torch.tanh(outputs[:, 0] / 3)).exp() * bent  # a factor from 1/20 to 20
        return in_shape(row, weights), {"momenta": momenta, "squares": squares, "steps": steps} | memory | secants

    def _newton(self, row: Tensor, slope: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Secants]]:
        """The quasi-Newton direction `(weights,)` in units of the rate, and what it comes from."""
        if not self.pairs:
            return torch.zeros_like(slope), {}
        secants = state["secants"].grown(row, slope)
        return shortened(secants.direction(slope) / self.rate, LONGEST), {"secants": secants}

    def _outputs(self, features: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's outputs `(weights, 1 + directions)` and its new memory."""
        own = self.network
        first = F.linear(features, own["first.weight"], own["first.bias"])
        if not self.recurrent:
            hidden = F.silu(F.linear(F.silu(first), own["second.weight"], own["second.bias"]))
            return F.linear(hidden, own["last.weight"], own["last.bias"]), {}
        hidden, cell = lstm(first + F.linear(state["hidden"], own["second.weight"]), state["cell"])
        return F.linear(hidden, own["last.weight"], own["last.bias"]), {"hidden": hidden, "cell": cell}


def _averaged(averages: Tensor, value: Tensor, decays: tuple[float, ...], steps: Tensor) -> tuple[Tensor, Tensor]:
    """Moving averages `(weights, decays)` with one value `(weights,)` more, and without the bias of their start."""
    decay = value.new_tensor(decays)
    averages = decay * averages + (1 - decay) * value.unsqueeze(-1)
    return averages, averages / (1 - decay**steps)


def _features(
    row: Tensor, slope: Tensor, before: Tensor, directions: Tensor, roots: Tensor, steps: Tensor, sizes: list[int]
) -> Tensor:
    """What the network sees of each weight `(weights, FEATURES)`: of itself, its tensor, all tensors, and the time."""
    products = [row.square(), slope.square(), before.square(), slope * before, roots[:, 1].square()]
    moments = torch.stack(products, dim=-1)
    newton = directions[:, -1]
    length = (newton.square().mean() + EPSILON**2).sqrt()
    of_tensor = torch.cat([rows.mean(0, keepdim=True).expand_as(rows) for rows in torch.split(moments, sizes)])
    of_all = moments.mean(0, keepdim=True).expand_as(moments)
    magnitude = (of_tensor[:, 0] + SMALLEST_WEIGHT**2).sqrt()
    slopes, all_slopes = ((which[:, 1] + EPSILON**2).sqrt() for which in (of_tensor, of_all))
    usual, all_usual = ((which[:, 4] + EPSILON**2).sqrt() for which in (of_tensor, of_all))
    alone = [
        slope / roots[:, 0],
        row / magnitude,
        slope / slopes,
        _squashed(roots[:, 0] / roots[:, 1]),
        _squashed(roots[:, 1] / usual),
        _squashed(magnitude),
        _squashed(slopes / all_slopes),
        _squashed(slopes / usual),
        _squashed(all_slopes / all_usual),
        # Whether the gradient still points where the momentum went: it does not after a step that was too long.
        of_tensor[:, 3] / (slopes * (of_tensor[:, 2] + EPSILON**2).sqrt()),
        of_all[:, 3] / (all_slopes * (of_all[:, 2] + EPSILON**2).sqrt()),
        _squashed(length).expand_as(row),
        # Steep ravines, where the quasi-Newton direction is far from that of the gradient.
        ((newton * slope).mean() / (length * all_slopes)).expand_as(row),
    ]
    time = torch.tanh(steps / row.new_tensor(HORIZONS)).expand(len(row), -1)
    return torch.cat([directions, torch.stack(alone, dim=-1), time], dim=-1)


def _squashed(ratio: Tensor) -> Tensor:
    return torch.tanh(ratio.log() / 4)


class Observed(NamedTuple):
    """A rule under which a weight named "losses" `(steps,)` ends as the losses after each step.

    The loss that is descended on must not depend on that weight.

    measure: `(weights, context) -> scalar`.
    truncation: n, after which no meta-gradient passes from one run of n steps to the one before; 0: none.
    """

    rule: UpdateRule
    measure: Callable[[Weights, Any], Tensor]
    context: Any
    truncation: int = 0

    def start(self, weights: Weights) -> dict[str, Any]:
        """That of the rule, and the number of steps taken."""
        own = {name: weight for name, weight in weights.items() if name != "losses"}
        return {"rule": self.rule.start(own), "steps": weights["losses"].new_zeros(())}

    def step(self, weights: Weights, gradients: Weights, state: dict[str, Any]) -> tuple[Weights, dict[str, Any]]:
        """One step of the rule, with one loss more at the end of the row."""
        own = {name: weight for name, weight in weights.items() if name != "losses"}
        carry = self.rule.step(own, {name: gradients[name] for name in own}, state["rule"])
        loss = self.measure(carry[0], self.context)
        steps = state["steps"] + 1
        if self.truncation:
            within = steps % self.truncation != 0
            carry = pytree.tree_map(lambda tensor: torch.where(within, tensor, tensor.detach()), carry)
        losses = torch.cat([weights["losses"][1:], loss.unsqueeze(0)])
        return carry[0] | {"losses": losses}, {"rule": carry[1], "steps": steps}
