"""Heads in closed form: centroids, distances, ridge and logistic regression on features of one task."""

import torch
from torch import Tensor
from torch.nn import functional as F


def centroids(features: Tensor, targets: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Mean feature vector of each class `(outputs, d)` from features `(n, d)`, and which classes are present.

    A class without examples has no mean (it would be NaN); it gets the mean of all examples, a finite stand-in.
    """
    member = F.one_hot(targets, outputs).to(features)  # (n, outputs)
    counts = member.sum(0)
    means = member.mT @ features / counts.clamp_min(1).unsqueeze(-1)
    present = counts > 0
    return torch.where(present.unsqueeze(-1), means, features.mean(0)), present


def squared_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Squared Euclidean distances `(n, m)` between `(n, d)` and `(m, d)`; safe to differentiate twice."""
    products = points @ centers.mT
    return points.square().sum(-1, keepdim=True) - 2 * products + centers.square().sum(-1)


def ridge(features: Tensor, targets: Tensor, regularization: Tensor | float) -> tuple[Tensor, Tensor]:
    """Ridge regression with a free intercept: weights `(d, outputs)` and bias `(outputs,)`.

    Minimizes ||X w + b - Y||^2 + regularization * ||w||^2 for features X `(n, d)` and targets Y `(n, outputs)`. With
    more features than examples it solves the n x n dual (the Woodbury identity), as R2-D2 does.
    """
    feature_mean, target_mean = features.mean(0), targets.mean(0)
    x, y = features - feature_mean, targets - target_mean
    n, d = x.shape
    if d > n:
        weights = x.mT @ torch.linalg.solve(x @ x.mT + regularization * torch.eye(n).to(x), y)
    else:
        weights = torch.linalg.solve(x.mT @ x + regularization * torch.eye(d).to(x), x.mT @ y)
    return weights, target_mean - feature_mean @ weights


def logistic(
    features: Tensor, targets: Tensor, outputs: int, regularization: float, *, steps: int = 100
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: weights `(d, outputs)` and bias `(outputs,)`.

    Minimizes the summed cross-entropy + regularization / 2 * ||w||^2 by accelerated gradient descent with the step
    that the largest eigenvalue of the Gram matrix allows. It runs on the features' n x n Gram matrix, so that a step
    costs the same for any number of features.
    """
    center = features.mean(0)
    x = torch.cat([features - center, torch.ones_like(features[:, :1])], dim=1)
    gram = x @ x.mT  # (n, n)
    # The softmax's Hessian is at most 1/2; the Gram matrix's largest eigenvalue is at most its largest row sum.
    rate = 1 / (0.5 * gram.abs().sum(-1).amax() + regularization)
    labels = F.one_hot(targets, outputs).to(features)
    dual = previous = torch.zeros_like(labels)  # weights = x.T @ dual
    for step in range(steps):
        ahead = dual + (step / (step + 3)) * (dual - previous)
        previous = dual
        gradient = torch.softmax(gram @ ahead, dim=-1) - labels + regularization * ahead
        dual = ahead - rate * gradient
    solution = x.mT @ dual
    weights = solution[:-1]
    return weights, solution[-1] - center @ weights
