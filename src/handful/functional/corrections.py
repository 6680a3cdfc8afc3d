"""What a task's few examples say against a model of all tasks: an offset and slopes, shrunken towards none."""

import torch
from torch import Tensor
from torch.nn import functional as F

from handful.functional.closed_form_heads import inv, solve


def corrected_values(
    features: Tensor, residuals: Tensor, noise: Tensor | float, slopes: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The mean of a task's own slopes `(d, outputs)` and offset `(outputs,)`, given residuals `(n, outputs)`.

    *Best Linear Unbiased Estimation and Prediction under a Selection Model* (Henderson, 1975),
    https://doi.org/10.2307/2529430: of random effects with a prior around zero.

    features: `(n, d)`; a mean squared length of them counts as 1.
    noise: the variance of what the effects do not explain, in units of the offset's. Many of it: no correction.
    slopes: the variance of the slopes, in the same units; 0: the offset alone.
    """
    scaled, factor = _scaled(features, slopes)
    gram = 1 + scaled @ scaled.mT
    dual = solve(gram + noise * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), residuals)
    return factor * (scaled.mT @ dual), dual.sum(0)


def corrected_logits(
    features: Tensor,
    targets: Tensor,
    logits: Tensor,
    noise: Tensor | float,
    slopes: Tensor | float,
    *,
    steps: int = 100,
) -> tuple[Tensor, Tensor]:
    """The most probable slopes `(d, outputs)` and offset `(outputs,)` of a task, in log-odds.

    They are added to the pooled logits `(n, outputs)` of rows of the classes `(n,)`, and minimize the summed
    cross-entropy plus `noise` / 2 times their squares, those of slopes divided by `slopes`; the rest is as for
    `corrected_values`. Steps are those of `closed_form_heads.logistic`.
    """
    scaled, factor = _scaled(features, slopes)
    gram = 1 + scaled @ scaled.mT
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse = inv(0.5 * gram + noise * eye)  # the softmax's Hessian is at most 1/2
    labels = F.one_hot(targets, logits.shape[1]).to(logits)
    dual = previous = torch.zeros_like(logits)
    for step in range(steps):
        ahead = dual + (step / (step + 3)) * (dual - previous)
        previous = dual
        excess = torch.softmax(logits + gram @ ahead, dim=-1) - labels
        dual = ahead - inverse @ (excess + noise * ahead)
    return factor * (scaled.mT @ dual), dual.sum(0)


def _scaled(features: Tensor, slopes: Tensor | float) -> tuple[Tensor, Tensor]:
    """Features whose mean squared length is `slopes`, and the factor that made them so."""
    squared = features.square().sum(-1).mean()
    factor = (slopes / torch.where(squared > 0, squared, torch.ones_like(squared))).sqrt()
    return factor * features, factor
