"""Images that are one and the same but for their size, compression or a small change."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 16
"""Pixels a side at which images are compared."""
NEAR = 0.02
"""Squared distance of nearly equal images, as a share of the mean one between any two of them."""
AT_ONCE = 1000
"""Images that are made smaller at a time."""


def alike(images: Tensor, classes: Tensor, names: Sequence[str]) -> Tensor | None:
    """Groups `(n,)` of images of a class that are nearly equal, or copies of one by their names; None if none are.

    images: `(n, channels, size, size)`.
    classes: `(n,)`.
    names: of the files; the copies that Roboflow makes of `cat.jpg`, turned or darker, are `cat_jpg.rf.HASH.jpg`.
    """
    looks = torch.cat([adaptive_avg_pool2d(part.float(), SIDE).flatten(1) for part in torch.split(images, AT_ONCE)])
    near = NEAR * 2 * float(looks.var(0, correction=0).sum())
    groups = torch.arange(len(images))
    for label in torch.unique(classes).tolist():
        own = torch.nonzero(classes == label).flatten()
        own = own[looks[own].mean(1).argsort(stable=True)]
        first = groups[own].tolist()
        means = looks[own].mean(1)
        # Images whose means differ by more than this are not near, so each is compared with those behind it alone.
        ends = torch.searchsorted(means, means + (near / looks.shape[1]) ** 0.5, right=True).tolist()
        for place, end in enumerate(ends):
            distances = (looks[own[place + 1 : end]] - looks[own[place]]).square().sum(1)
            for other in (torch.nonzero(distances <= near).flatten() + place + 1).tolist():
                if (joined := first[other]) != first[place]:
                    first = [first[place] if one == joined else one for one in first]
        groups[own] = torch.tensor(first)
    origins: dict[tuple[int, str], int] = {}
    for place, (label, name) in enumerate(zip(classes.tolist(), names, strict=True)):
        origin, copy, _ = name.rpartition("/")[2].partition(".rf.")
        if copy:
            groups[groups == groups[place]] = groups[origins.setdefault((label, origin), place)]
    found = torch.unique(groups, return_inverse=True)[1]
    return found if len(images) > int(found.max()) + 1 else None
