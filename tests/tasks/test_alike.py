import io

import numpy as np
import torch
from PIL import Image

from handful.tasks.alike import alike


def scenes(count, seed=0):
    """Images `(count, 3, 32, 32)` in bytes, of a smooth pattern each."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), np.uint8)
    smooth = [np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)) for one in coarse]
    return torch.from_numpy(np.stack(smooth)).permute(0, 3, 1, 2)


def compressed(image, quality=90):
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1)


def sets(groups):
    return {frozenset(torch.nonzero(groups == group).flatten().tolist()) for group in groups.unique()}


def test_copies_of_a_class_share_a_group():
    images = scenes(20)
    images = torch.cat([images, compressed(images[3])[None], images[7:8], compressed(images[7])[None]])
    found = alike(images, torch.zeros(23, dtype=torch.long), [f"{n}.png" for n in range(23)])
    assert {one for one in sets(found) if len(one) > 1} == {frozenset({3, 20}), frozenset({7, 21, 22})}


def test_no_copies():
    assert alike(scenes(30), torch.arange(30) % 3, ["a.png"] * 30) is None


def test_copies_of_other_classes_do_not_count():
    images = scenes(4)
    assert alike(torch.cat([images, images]), torch.arange(8), ["a.png"] * 8) is None


def test_copies_by_their_names():
    names = ["train/a/x_jpg.rf.01.jpg", "test/a/x_jpg.rf.02.jpg", "train/b/x_jpg.rf.03.jpg", "train/a/y_jpg.rf.04.jpg"]
    found = alike(scenes(4), torch.tensor([0, 0, 1, 0]), names)
    assert sets(found) == {frozenset({0, 1}), frozenset({2}), frozenset({3})}


def test_what_lies_between_two_images_joins_them():
    start, end = scenes(40)[:2].float()
    steps = [(start + share * (end - start)).round() for share in torch.linspace(0, 1, 12)]
    images = torch.cat([torch.stack(steps[::2] + steps[1::2]), scenes(40)[2:].float()])
    found = alike(images, torch.zeros(50, dtype=torch.long), ["a.png"] * 50)
    assert {one for one in sets(found) if len(one) > 1} == {frozenset(range(12))}


def test_equal_images_of_any_shade_are_one_group():
    for shade in (17, 201):
        images = torch.full((7, 3, 20, 20), shade, dtype=torch.uint8)
        assert alike(images, torch.zeros(7, dtype=torch.long), list("abcdefg")).tolist() == [0] * 7
