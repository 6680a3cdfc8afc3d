"""Heads in closed form: centroids, distances, ridge and logistic regression on features of one task."""

import torch
from torch import Tensor
from torch.nn import functional as F

from handful.types import check_shape

ABSENT = 1e4
"""How far the logit of a class without examples stays below all others: finite, so that a loss of it is too."""


def centroids(features: Tensor, targets: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Mean feature vector of each class `(outputs, d)` from features `(n, d)`, and which classes are present.

    A class without examples has no mean (it would be NaN); it gets the mean of all examples, a finite stand-in.
    """
    member = F.one_hot(targets, outputs).to(features)  # (n, outputs)
    counts = member.sum(0)
    means = member.mT @ features / counts.clamp_min(1).unsqueeze(-1)
    present = counts > 0
    return torch.where(present.unsqueeze(-1), means, features.mean(0)), present


def without_absent(logits: Tensor, present: Tensor) -> Tensor:
    """Logits `(..., n, outputs)` under which a class that is not `present` `(..., outputs)` is never predicted."""
    return torch.where(present.unsqueeze(-2), logits, logits.amin(-1, keepdim=True).detach() - ABSENT)


def squared_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Squared Euclidean distances `(..., n, m)` of `(..., n, d)` to `(..., m, d)`; safe to differentiate twice."""
    if points.shape[-2] == 1:  # differences take no more than the products would
        return (points - centers).square().sum(-1).unsqueeze(-2)
    middle = centers.mean(
        -2, keepdim=True
    )  # else the difference of large squares is lost where features are far from zero
    points, centers = points - middle, centers - middle
    products = points @ centers.mT
    return points.square().sum(-1, keepdim=True) - 2 * products + centers.square().sum(-1).unsqueeze(-2)


def spread(features: Tensor) -> Tensor:
    """Root of the mean squared distance of examples `(n, d)` from their mean; 1 where they are all alike.

    Divided by it, features mean the same in any units and any number: one grid of regularizations fits them all.
    """
    squared = (features - features.mean(0)).square().sum(-1).mean()
    rounding = (8 * torch.finfo(features.dtype).eps) ** 2 * features.square().sum(-1).mean()
    return torch.where(squared > rounding, squared, torch.ones_like(squared)).sqrt()


def solve(matrix: Tensor, values: Tensor) -> Tensor:
    """`torch.linalg.solve`, but NaN where the matrix is singular: one task that diverged fails alone in its batch."""
    return _known(*torch.linalg.solve_ex(matrix, values))


def inv(matrix: Tensor) -> Tensor:
    """`torch.linalg.inv`, but NaN where the matrix is singular."""
    return _known(*torch.linalg.inv_ex(matrix))


def cholesky(matrix: Tensor) -> Tensor:
    """`torch.linalg.cholesky`, but NaN where the matrix is not positive definite."""
    return _known(*torch.linalg.cholesky_ex(matrix))


def _known(found: Tensor, info: Tensor) -> Tensor:
    return torch.where((info == 0)[..., None, None], found, torch.nan)


def ridge(features: Tensor, targets: Tensor, regularization: Tensor | float) -> tuple[Tensor, Tensor]:
    """Ridge regression with a free intercept: weights `(d, outputs)` and bias `(outputs,)`.

    Minimizes ||X w + b - Y||^2 + regularization * ||w||^2 for features X `(n, d)` and targets Y `(n, outputs)`. With
    more features than examples it solves the n x n dual (the Woodbury identity), as R2-D2 does.
    """
    feature_mean, target_mean = features.mean(0), targets.mean(0)
    x, y = features - feature_mean, targets - target_mean
    n, d = x.shape
    if d > n:
        weights = (solve(x @ x.mT + regularization * torch.eye(n, dtype=x.dtype, device=x.device), y).mT @ x).mT
    else:
        weights = solve(x.mT @ x + regularization * torch.eye(d, dtype=x.dtype, device=x.device), x.mT @ y)
    return weights, target_mean - feature_mean @ weights


def logistic(
    features: Tensor, targets: Tensor, outputs: int, regularization: Tensor | float, *, steps: int = 300
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a free intercept: weights `(d, outputs)` and bias `(outputs,)`.

    Minimizes the summed cross-entropy + regularization / 2 * ||w||^2 by Newton steps on a fixed bound of the Hessian
    (*Multinomial logistic regression algorithm*, Bohning, 1992), with Nesterov's momentum. It runs on the features'
    n x n Gram matrix, so that a step costs the same for any number of features. A class without examples has its
    optimum at a bias of minus infinity; the finite number of steps leaves it a finite logit.
    """
    center = features.mean(0)
    x = features - center
    gram = x @ x.mT  # (n, n)
    # The softmax's Hessian is at most 1/2; since x is centered, weights and bias do not mix in the bound.
    inverse = inv(0.5 * gram + regularization * torch.eye(len(x), dtype=x.dtype, device=x.device))
    labels = F.one_hot(targets, outputs).to(x)
    solution = previous = x.new_zeros(len(x) + 1, outputs)  # weights = x.T @ dual; the last row is the bias
    for step in range(steps):
        ahead = solution + (step / (step + 3)) * (solution - previous)
        previous = solution
        dual, bias = ahead[:-1], ahead[-1]
        excess = torch.softmax(gram @ dual + bias, dim=-1) - labels
        newton = inverse @ (excess + regularization * dual)
        solution = ahead - torch.cat([newton, 2 * excess.mean(0, keepdim=True)])
    weights = x.mT @ solution[:-1]
    return weights, solution[-1] - center @ weights


def descended(
    features: Tensor,
    targets: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    rates: tuple[Tensor | float, Tensor | float],
    steps: int,
    first_order: bool = False,
) -> tuple[Tensor, Tensor]:
    """Weight `(outputs, d)` and bias `(outputs,)` of a linear head after gradient steps on fixed features `(n, d)`.

    Targets are class numbers `(n,)` for the mean cross-entropy, or values `(n, outputs)` for the mean squared error;
    rates are those of weight and bias. `first_order` as in `inner_loop.descend`.

    The weight moves along the examples only: by -rate * total.T @ features, where `total` sums the slopes of the loss
    with respect to the outputs over the steps. So the steps work on `total` and, where features are many, on the Gram
    matrix of the examples (the dual form: exact, and n multiplications in place of 2 d). These slopes are known
    formulas, so no step needs a backward pass of its own; a factor that all of them share is part of the rates.
    """
    n, d = features.shape
    outputs = len(weight)
    wanted = F.one_hot(targets, outputs).to(features) if targets.ndim == 1 else targets
    factor = 1 / n if targets.ndim == 1 else 2 / (n * outputs)
    weight_rate, bias_rate = (rate * factor for rate in rates)
    dual = n * (d + steps * outputs) < 2 * steps * d * outputs
    with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
        at_start = features @ weight.mT + bias
        check_shape("targets", wanted, at_start)
        gram = weight_rate * (features @ features.mT) + bias_rate if dual else None  # (n, n)
        total, current = torch.zeros_like(at_start), at_start
        for step in range(steps):
            total = total + (current.softmax(-1) if targets.ndim == 1 else current) - wanted
            if step == steps - 1:
                break
            if gram is not None:
                current = torch.addmm(at_start, gram, total, alpha=-1)
            else:
                moved = weight_rate * (features @ (features.mT @ total)) + bias_rate * total.sum(0)
                current = at_start - moved
        toward = total.mT @ features
    return weight - weight_rate * toward, bias - bias_rate * total.sum(0)
