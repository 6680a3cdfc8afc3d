"""Affine views of images: a bank of random maps, and images seen through them."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_maps(count: int, extent: float = 1.0) -> Tensor:
    """Affine maps `(count, 2, 3)` from output to input coordinates, from the global generator (seeded by `build`).

    Rotation within 15 degrees, scales 0.8 to 1.2 per axis, shear within 0.2, shift within 10 % of the image; with an
    extent below 1 that part of the way from the identity.
    """
    low = torch.tensor([-math.radians(15), 0.8, 0.8, -0.2, -0.2, -0.2])
    angle, wide, tall, shear, right, down = (low + torch.rand(count, 6) * (_mirrored(low) - low)).unbind(1)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    zero = torch.zeros(count)
    sheared = torch.stack([torch.stack([1 / wide, shear], 1), torch.stack([zero, 1 / tall], 1)], 1)
    maps = torch.cat([rotation @ sheared, torch.stack([right, down], 1).unsqueeze(-1)], dim=-1)
    return torch.lerp(torch.eye(2, 3), maps, extent)


def _mirrored(low: Tensor) -> Tensor:
    """The upper bounds: scales mirror at 1, all else at 0. Shifts of 0.2 are 10 % of an image from -1 to 1."""
    center = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    return 2 * center - low


def warped(images: Tensor, maps: Tensor) -> Tensor:
    """Images `(n, c, h, w)`, each under a map of its own `(n, 2, 3)`; same shape."""
    grid = F.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    # The border goes on outside: a background need not be black.
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
