"""Affine views of images: random maps, and images seen through them."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def random_maps(count: int, extent: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Affine maps `(count, 2, 3)` from output to input coordinates.

    Rotation within 15 degrees, scales 0.8 to 1.2 per axis, shear within 0.2, shift within 10 % of the image; all times
    the extent.

    generator: None takes the global one, as constructors of learners do (`build` seeds it).
    """
    reach = extent * torch.tensor([math.radians(15), 0.2, 0.2, 0.2, 0.2, 0.2])  # an image is 2 wide
    drawn = reach * (2 * torch.rand(count, 6, generator=generator) - 1)
    angle, wide, tall, shear, right, down = (drawn + torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0])).unbind(1)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    zero = torch.zeros(count)
    sheared = torch.stack([torch.stack([1 / wide, shear], 1), torch.stack([zero, 1 / tall], 1)], 1)
    return torch.cat([rotation @ sheared, torch.stack([right, down], 1).unsqueeze(-1)], dim=-1)


def mirrored(maps: Tensor, generator: Generator | None = None) -> Tensor:
    """The same maps, of which about half show the mirror image besides; generator: see `random_maps`."""
    chosen = torch.rand(len(maps), generator=generator) < 0.5
    sideways = torch.tensor([[-1.0, 1.0, 1.0]])
    return torch.where(chosen.view(-1, 1, 1), maps * sideways, maps)


def in_color(shape: tuple[int, ...]) -> bool:
    """Whether inputs of this shape are images whose mirror images show the same: that of a letter is another letter."""
    return len(shape) == 3 and shape[0] == 3


def warped(images: Tensor, maps: Tensor) -> Tensor:
    """Images `(n, c, h, w)`, each under a map of its own `(n, 2, 3)`; same shape."""
    grid = F.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    # The border goes on outside: a background need not be black.
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
