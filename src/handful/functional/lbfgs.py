"""Directions that use the curvature along the last steps: limited-memory BFGS, differentiable and without a search."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from handful.functional.differentiation import Weights
from handful.functional.stateless import as_row, in_shape

LEAST_COSINE = 1e-2
"""Between a move and the change of the gradient along it: with less, the loss is hardly convex there."""
ROUNDING = 10
"""Moves, and changes of the gradient, smaller than so many rounding errors are ignored."""


class Secants(NamedTuple):
    """The history of a descent, as far as it determines the curvature.

    moves: `(pairs, n)`, of length 1, the newest last; rows of zeros for missing ones.
    changes: `(pairs, n)`, by which the gradient changed along them, per unit of length.
    row, slope: the weights `(n,)` and gradient at the last look.
    """

    moves: Tensor
    changes: Tensor
    row: Tensor
    slope: Tensor

    @classmethod
    def of(cls, row: Tensor, pairs: int) -> Self:
        """None yet, at weights `(n,)`."""
        none = row.new_zeros(pairs, len(row))
        return cls(none, none, row, torch.zeros_like(row))

    def grown(self, row: Tensor, slope: Tensor) -> Self:
        """The history with the pair from the last state to this one, unless its curvature is not positive."""
        step, change = row - self.row, slope - self.slope
        smallest = torch.finfo(row.dtype).eps
        moved = step.norm() > ROUNDING * smallest * (1 + row.norm())
        changed = change.norm() > ROUNDING * smallest * (slope.norm() + self.slope.norm())
        convex = step @ change > LEAST_COSINE * step.norm() * change.norm()
        length = (step @ step + smallest**2).sqrt()
        move, change = step / length, change / length
        # Below, what `direction` divides by, or its derivative, underflows: the loss has come to its floor.
        curved = change @ change > torch.finfo(row.dtype).tiny ** 0.5
        kept = (moved & changed & convex & curved).unsqueeze(-1)
        moves = torch.where(kept, torch.cat([self.moves[1:], move.unsqueeze(0)]), self.moves)
        changes = torch.where(kept, torch.cat([self.changes[1:], change.unsqueeze(0)]), self.changes)
        return type(self)(moves, changes, row, slope)

    def direction(self, slope: Tensor) -> Tensor:
        """The gradient `(n,)` times the inverse Hessian from the pairs; zeros without pairs.

        *Representations of quasi-Newton matrices and their use in limited memory methods* (Byrd, Nocedal & Schnabel,
        1994), https://doi.org/10.1007/BF01582063, equation 3.1: two small triangular systems in place of a recursion.
        """
        along, between = self.moves @ self.changes.mT, self.changes @ self.changes.mT  # (pairs, pairs)
        curvature = along.diagonal()
        told = curvature > 0
        # A pair that is not there has a row and a column of zeros, and an equation of its own.
        upper = torch.triu(along) + torch.diag_embed((~told).to(along))
        scale = torch.where(told, curvature, 0.0)[-1] / torch.where(told, between.diagonal(), 1.0)[-1]
        solved = torch.linalg.solve_triangular(upper, (self.moves @ slope).unsqueeze(-1), upper=True)
        rest = curvature.unsqueeze(-1) * solved + scale * (between @ solved - (self.changes @ slope).unsqueeze(-1))
        weights = torch.linalg.solve_triangular(upper.mT, rest, upper=False)
        ahead: Tensor = scale * slope + (self.moves.mT @ weights - scale * self.changes.mT @ solved).squeeze(-1)
        return ahead


def shortened(direction: Tensor, longest: float) -> Tensor:
    """A direction `(n,)` whose root mean square stays below `longest`, smoothly."""
    unit = direction.detach().abs().amax().clamp_min(longest)  # in it, squares are neither lost nor too large
    scaled = direction / unit
    return scaled * (longest / ((longest / unit).square() + scaled.square().mean()).sqrt())


class LBFGS(NamedTuple):
    """An update rule: limited-memory BFGS with steps of length 1 as long as their root mean square is small.

    *On the limited memory BFGS method for large scale optimization* (Liu & Nocedal, 1989),
    https://doi.org/10.1007/BF01589116. Departures: in place of a line search, `longest` bounds the root mean square of
    a step, and the first one is 0.7 times as long, along the gradient; pairs without positive curvature are left out.
    The loss must be the same function at every step, without noise.
    """

    longest: float
    pairs: int = 16

    def start(self, weights: Weights) -> Secants:
        """No pairs."""
        return Secants.of(as_row(weights), self.pairs)

    def step(self, weights: Weights, gradients: Weights, state: Secants) -> tuple[Weights, Secants]:
        """One step of all weights, as one long row."""
        row, slope = as_row(weights), as_row(gradients)
        state = state.grown(row, slope)
        tiny = torch.finfo(slope.dtype).tiny
        unit = slope / slope.detach().abs().amax().clamp_min(tiny)
        steepest = unit * (self.longest / (unit.square().mean() + tiny).sqrt())
        direction = torch.where((state.moves[-1] != 0).any(), state.direction(slope), steepest)
        return in_shape(row - shortened(direction, self.longest), weights), state
