"""A support vector machine of several classes on features of one task, solved and differentiated at its optimum."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from handful.functional.closed_form_heads import inv, solve


def multiclass_svm(
    features: Tensor, targets: Tensor, outputs: int, penalty: float, *, steps: int = 40
) -> tuple[Tensor, Tensor]:
    """Multi-class support vector machine: weights `(d, outputs)` and bias `(outputs,)`.

    Minimizes (||w||^2 + ||b||^2) / 2 + penalty * (summed margin errors), where the error of an example is how far
    another class's score, plus 1, exceeds that of its own (*On the Algorithmic Implementation of Multiclass
    Kernel-based Vector Machines*, Crammer & Singer, 2001, https://www.jmlr.org/papers/v2/crammer01a.html). A class
    without examples is still separated from all others.

    Solved is the dual: each example splits its penalty into `shares` `(n, outputs)` among the classes, and pulls by
    them away from their weights and toward its own class's. A fixed number of interior-point steps (*On the
    Implementation of a Primal-Dual Interior Point Method*, Mehrotra, 1992, https://doi.org/10.1137/0802028) ends just
    short of the boundary, and there the solution is differentiated implicitly. A millionth of the problem's size on the
    diagonal rounds the margin's corner by as much: so shares are unique, and smooth, also with equal examples, ties and
    more examples than features. All in double precision.
    """
    x = features.double()
    labels = F.one_hot(targets, outputs).to(x)
    gram = penalty * (x @ x.mT + 1)  # the bias is the weight of a constant
    size = 1 + gram.diagonal().mean()
    gram = gram + 1e-6 * size * torch.eye(len(x), dtype=x.dtype, device=x.device)
    with torch.no_grad():
        point = _interior_point(gram, labels, 1e-10 / size, steps)
    # A Newton step from the solution is zero, but its derivative with respect to the Gram matrix is the solution's.
    change, _, _ = _newton(gram, labels, *point)(1e-10 / size)
    dual = penalty * (labels - point[0] - (change - change.detach()))
    return (x.mT @ dual).to(features), dual.sum(0).to(features)


def _interior_point(gram: Tensor, labels: Tensor, barrier: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Shares, slack and level where `shares * slack` is `barrier`; see `_newton`. The last steps only center."""
    shares = torch.full_like(labels, 1 / labels.shape[-1])
    slopes = gram @ (shares - labels) + labels - 1
    level = 1 - slopes.amin(-1, keepdim=True)
    slack = slopes + level
    for step in range(steps):
        newton, target = _newton(gram, labels, shares, slack, level), barrier
        if step < steps - 5:
            ahead, ahead_slack, _ = newton(torch.zeros_like(barrier))
            length = _length(shares, slack, ahead, ahead_slack)
            gap = (shares * slack).mean()
            left = ((shares + length * ahead) * (slack + length * ahead_slack)).mean() / gap
            target = torch.maximum(gap * left**3, barrier) - ahead * ahead_slack
        change, change_slack, change_level = newton(target)
        length = _length(shares, slack, change / 0.99, change_slack / 0.99)
        shares, slack = shares + length * change, slack + length * change_slack
        level = level + length * change_level
    return shares, slack, level


def _newton(
    gram: Tensor, labels: Tensor, shares: Tensor, slack: Tensor, level: Tensor
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Newton's step of shares, slack and level toward the dual's solution, given what `shares * slack` should be.

    The shares of an example sum to 1. Its `level` `(n, 1)` is the best of the classes' scores, each but its own plus
    1, and `slack` `(n, outputs)` how far they stay below it; at the solution a class has a share only without slack.
    """
    # Without the condition on sums, classes do not mix: n x n matrices, one per class, are all there is to invert.
    inverses = inv(gram.detach() + torch.diag_embed((slack / shares).mT))  # (outputs, n, n)
    below = gram @ (shares - labels) + labels - 1 + level
    excess = shares.sum(-1, keepdim=True) - 1

    def step(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wanted = (target / shares - below).mT.unsqueeze(-1)  # (outputs, n, 1)
        of_level = solve(inverses.sum(0), (inverses @ wanted).sum(0) + excess)
        change = (inverses @ (wanted - of_level)).squeeze(-1).mT
        return change, (target - slack * (shares + change)) / shares, of_level

    return step


def _length(shares: Tensor, slack: Tensor, change: Tensor, change_slack: Tensor) -> Tensor:
    """How much of a step, 1 at most, keeps shares and slack from falling below zero."""
    return 1 / torch.maximum((-change / shares).amax(), (-change_slack / slack).amax()).clamp_min(1)
