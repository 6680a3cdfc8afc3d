"""Corrections of a pooled model: random effects given a few residuals."""

import pytest
import torch
from torch.nn import functional as F

from handful.functional.corrections import corrected_logits, corrected_values


def support(n=6, d=3, outputs=2):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return features, torch.randn(n, outputs, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_without_slopes_the_offset_is_the_shrunken_mean(noise):
    features, residuals = support()
    slopes, offset = corrected_values(features, residuals, noise, 0.0)
    torch.testing.assert_close(offset, residuals.sum(0) / (6 + noise))
    assert not slopes.any()


@pytest.mark.parametrize("n", [1, 6])
def test_offset_and_slopes_are_the_posterior_mean(n):
    """That of weights with a normal prior, solved in their own space."""
    features, residuals = support(n)
    noise, variance = 0.5, 2.0
    slopes, offset = corrected_values(features, residuals, noise, variance)
    scale = features.square().sum(-1).mean().sqrt()
    design = torch.cat([features / scale, torch.ones(n, 1, dtype=torch.float64)], 1)
    prior = torch.diag(torch.tensor([1 / variance] * 3 + [1.0], dtype=torch.float64))
    expected = torch.linalg.solve(design.mT @ design / noise + prior, design.mT @ residuals / noise)
    torch.testing.assert_close(torch.cat([slopes * scale, offset[None]]), expected)


def test_features_that_are_all_zero_leave_the_offset():
    _, residuals = support()
    slopes, offset = corrected_values(torch.zeros(6, 3, dtype=torch.float64), residuals, 1.0, 1.0)
    assert not slopes.any()
    torch.testing.assert_close(offset, residuals.sum(0) / 7)


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_the_correction_of_logits_is_the_most_probable_one(noise):
    features, logits = support(9, outputs=3)
    targets = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 1])  # one class is absent
    variance = 0.7
    slopes, offset = corrected_logits(features, targets, logits, noise, variance)
    squared = features.square().sum(-1).mean()
    slopes, offset = slopes.requires_grad_(), offset.requires_grad_()
    loss = F.cross_entropy(logits + features @ slopes + offset, targets, reduction="sum")
    penalty = offset.square().sum() + slopes.square().sum() * squared / variance
    found = torch.autograd.grad(loss + noise / 2 * penalty, (slopes, offset))
    for gradient in found:
        assert gradient.abs().max() < 1e-4
    assert offset[1] > offset[0] > offset[2]
