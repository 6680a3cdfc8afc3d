import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handful.errors import DataError
from handful.tasks.omniglot import Omniglot
from noted import noted


@pytest.fixture
def characters() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, 20, 28, 28), dtype=np.uint8)


@pytest.fixture
def npz(tmp_path, characters):
    np.savez(
        tmp_path / "omniglot_28.npz",
        images=characters,
        alphabet=["Greek", "Greek", "Latin", "Latin", "Lao", "Lao"],
        character=[f"character{i:02}" for i in range(6)],
        vinyals_split=["train", "train", "train", "val", "test", "test"],
        part=["images_background"] * 4 + ["images_evaluation"] * 2,
    )
    return tmp_path / "omniglot_28.npz"


@pytest.fixture
def folders(tmp_path):
    for part, count in (("images_background", 10), ("images_evaluation", 3)):
        for number in range(count):
            folder = tmp_path / part / f"{part[7]}{number % 3}" / f"character{number:02}"
            folder.mkdir(parents=True)
            for drawing in range(2):
                image = Image.new("1", (105, 105), 1)
                image.paste(0, (40, 40, 60, 60))
                image.save(folder / f"{drawing}.png")
    return tmp_path


def test_each_rotation_is_a_class_in_the_split_of_its_character(npz, characters):
    omniglot = Omniglot(npz)
    names = omniglot.split_manifest()
    assert {on: len(part) for on, part in names.items()} == {"train": 12, "val": 4, "test": 8}
    of = {on: {name.rsplit("/", 1)[0] for name in part} for on, part in names.items()}
    assert not of["train"] & of["test"] | of["train"] & of["val"] | of["val"] & of["test"]
    label = omniglot.names.index("Lao/character04/rotated-90")
    turned = omniglot.inputs[omniglot.members[label]].squeeze(1).numpy()
    assert np.array_equal(turned, np.rot90(characters[4], axes=(1, 2)))


def test_tasks_are_images_from_0_to_1(npz):
    task = Omniglot(npz.parent).split("test").with_sizes(way=4, shot=2, query_shot=3).task(0)
    assert task.support.inputs.shape == (8, 1, 28, 28)
    assert task.query.inputs.max() <= 1
    assert task.query.inputs.dtype == torch.float32


def test_alphabets_of_the_official_folders_are_split(folders):
    omniglot = Omniglot(folders, seed=1)
    names = omniglot.split_manifest()
    of = {on: {name.partition("/")[0] for name in part} for on, part in names.items()}
    assert of["test"] == {"e0", "e1", "e2"}
    assert len(of["val"]) == 1
    assert of["train"] | of["val"] == {"b0", "b1", "b2"}
    assert not of["train"] & of["val"]
    assert sum(map(len, names.values())) == 4 * 13
    assert Omniglot(folders, seed=1).split_manifest() == names
    assert len({str(Omniglot(folders, seed=seed).split_manifest()) for seed in range(5)}) > 1
    images = omniglot.inputs
    assert images.shape == (4 * 26, 1, 28, 28)
    assert images[:, :, 0, 0].max() == 0
    assert images.amax(dim=(1, 2, 3)).min() > 200


def test_lake_s_split_of_an_npz_file(npz):
    names = Omniglot(npz, split="lake").split_manifest()
    of = {on: {name.partition("/")[0] for name in part} for on, part in names.items()}
    assert of["test"] == {"Lao"}
    assert {*of["train"], *of["val"]} == {"Greek", "Latin"}


def test_tasks_within_one_alphabet(npz):
    with noted("4 of 12 classes of the train split have .* or no 2 classes of their family have, and are left out"):
        omniglot = Omniglot(npz, one_alphabet=True).with_sizes(way=2, shot=1, query_shot=1)
    for index in range(20):
        classes = omniglot.manifest(index).classes
        names = [omniglot.names[c] for c in classes]
        assert len({(name.partition("/")[0], name.rpartition("/")[2]) for name in names}) == 1
    seen = {omniglot.names[omniglot.manifest(index).classes[0]].rpartition("/")[2] for index in range(20)}
    assert len(seen) == 4
    with pytest.raises(DataError, match="the largest has 2"):
        omniglot.with_sizes(way=3)


def test_the_split_of_vinyals_needs_the_file_that_has_it(folders):
    with pytest.raises(DataError, match="split='lake'"):
        Omniglot(folders, split="vinyals")


def test_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not Omniglot: it has no folders images_background and"):
        Omniglot(tmp_path)
    np.savez(tmp_path / "x.npz", images=np.zeros(3))
    with pytest.raises(DataError, match="lacks some of the arrays images, alphabet"):
        Omniglot(tmp_path / "x.npz")
    with pytest.raises(DataError, match="does not exist"):
        Omniglot(tmp_path / "nowhere")


def test_real_omniglot_has_the_published_counts():
    data = os.environ.get("HANDFUL_DATA")
    if not data:
        pytest.skip("set HANDFUL_DATA to a folder that holds omniglot/omniglot_28.npz")
    names = Omniglot(Path(data) / "omniglot" / "omniglot_28.npz").split_manifest()
    assert {on: len(part) for on, part in names.items()} == {"train": 4112, "val": 688, "test": 1692}
