"""Near-duplicate images: equal except for size, compression or a small change."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 16
"""Pixels a side at which images are compared."""
NEAR = 0.02
"""Squared distance of nearly equal images, as a share of the mean one between two images."""
AT_ONCE = 250
"""Images that are made smaller, or compared with others, at a time."""


def alike(images: Tensor, classes: Tensor, names: Sequence[str]) -> Tensor | None:
    """Groups `(n,)` of images of a class that are nearly equal, or copies by their names; None without such images.

    images: `(n, channels, size, size)`.
    classes: `(n,)`.
    names: of the files; the copies that Roboflow makes of `cat.jpg`, turned or darker, are `cat_jpg.rf.HASH.jpg`.
    """
    looks = torch.cat([adaptive_avg_pool2d(part.float(), SIDE).flatten(1) for part in torch.split(images, AT_ONCE)])
    looks -= looks.mean(0)
    near = NEAR * 2 * float(looks.square().sum(1).mean())
    groups = torch.arange(len(images))
    for label in torch.unique(classes).tolist():
        own = torch.nonzero(classes == label).flatten()
        groups[own] = _joined(groups[own], looks[own].double(), near)
    origins: dict[tuple[int, str], int] = {}
    for place, (label, name) in enumerate(zip(classes.tolist(), names, strict=True)):
        origin, copy, _ = name.rpartition("/")[2].partition(".rf.")
        if copy:
            groups[groups == groups[place]] = groups[origins.setdefault((label, origin), place)]
    found = torch.unique(groups, return_inverse=True)[1]
    return found if len(images) > int(found.max()) + 1 else None


def _joined(groups: Tensor, looks: Tensor, near: float) -> Tensor:
    """The groups `(n,)` of images by their values `(n, values)`: connected components of nearly equal ones."""
    sizes = looks.square().sum(1)
    for start in range(0, len(looks), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        others = slice(start, None)
        distances = sizes[part, None] + sizes[others] - 2 * looks[part] @ looks[others].T
        for place, close in enumerate(distances <= near, start=start):
            joined = groups[others][close]
            if (joined != groups[place]).any():
                groups[torch.isin(groups, joined)] = int(groups[place])
    return groups
