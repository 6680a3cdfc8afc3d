"""Affine views: how far the maps go, and what an image looks like under one."""

import math

import torch

from handful.functional.image_warps import mirrored, random_maps, warped


def test_maps_stay_within_bounds() -> None:
    maps = random_maps(997)
    assert maps[:, :, 2].abs().max() <= 0.2
    area = torch.linalg.det(maps[:, :, :2])
    assert area.min() >= 1 / 1.2**2 - 1e-4
    assert area.max() <= 1 / 0.8**2 + 1e-4
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0])  # the shear leaves the first axis where it is
    assert angle.abs().max() <= math.radians(15) + 1e-4


def test_maps_go_as_far_as_their_extent() -> None:
    whole, half, none = (random_maps(20, extent, torch.Generator().manual_seed(0)) for extent in (1.0, 0.5, 0.0))
    torch.testing.assert_close(2 * half[:, :, 2], whole[:, :, 2])
    angles = [torch.atan2(maps[:, 1, 0], maps[:, 0, 0]) for maps in (half, whole)]
    torch.testing.assert_close(2 * angles[0], angles[1])
    torch.testing.assert_close(none, torch.eye(2, 3).expand(20, 2, 3))


def test_about_half_of_the_maps_show_the_mirror_image() -> None:
    maps = random_maps(400, 0.0)
    turned = mirrored(maps, torch.Generator().manual_seed(0))
    images = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)).expand(400, -1, -1, -1)
    seen = warped(images, turned)
    same = [torch.allclose(one, images[0], atol=1e-5) for one in seen]
    flipped = [torch.allclose(one, images[0].flip(-1), atol=1e-5) for one in seen]
    assert all(a != b for a, b in zip(same, flipped, strict=True))
    assert 160 < sum(flipped) < 240


def test_each_image_goes_under_its_own_map() -> None:
    """The identity, and a turn by 90 degrees."""
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]])
    seen = warped(images, maps)
    torch.testing.assert_close(seen[0], images[0])
    torch.testing.assert_close(seen[1], torch.rot90(images[1], -1, (1, 2)))


def test_nothing_foreign_comes_in_over_the_border() -> None:
    constant = torch.full((5, 1, 16, 16), 0.7)
    torch.testing.assert_close(warped(constant, random_maps(5)), constant)
