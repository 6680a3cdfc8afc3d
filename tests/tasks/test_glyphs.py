import pytest
import torch

from handful.tasks.glyphs import FACES, TEST_SCRIPTS, TRAIN_SCRIPTS, Glyphs


@pytest.fixture(scope="module")
def glyphs() -> Glyphs:
    return Glyphs(seed=0)


def nearest_centroid(glyphs: Glyphs, way: int, tasks: int) -> float:
    """Accuracy of the nearest class mean of raw pixels."""
    test = glyphs.split("test").with_sizes(way=way, shot=1, query_shot=5)
    right = []
    for start in range(0, tasks, 20):
        batch = test.batch(range(start, start + 20))
        support, query = batch.support.inputs.flatten(2), batch.query.inputs.flatten(2)  # (tasks, n, pixels)
        right.append(torch.cdist(query, support).argmin(-1) == batch.query.targets)
    return float(torch.cat(right).float().mean())


@pytest.mark.parametrize(("way", "tasks", "expected"), [(5, 400, 0.40), (20, 200, 0.20)])
def test_difficulty_is_pinned(glyphs, way, tasks, expected):
    assert nearest_centroid(glyphs, way, tasks) == pytest.approx(expected, abs=0.02)


def test_splits_are_by_script(glyphs):
    names = glyphs.split_manifest()
    scripts = {on: {name.split()[0] for name in names[on]} for on in names}
    assert scripts == {"train": set(TRAIN_SCRIPTS), "val": {"CYRILLIC"}, "test": set(TEST_SCRIPTS)}
    assert 265 <= len(names["test"]) <= 285
    everything = [name for part in names.values() for name in part]
    assert len(set(everything)) == len(everything)


def test_support_and_query_share_no_face(glyphs):
    for on in ("train", "val", "test"):
        tasks = glyphs.split(on).with_sizes(way=5, shot=3, query_shot=5)
        for index in range(30):
            manifest = tasks.manifest(index)
            faces = [set(glyphs.groups[list(side)].tolist()) for side in manifest[1:]]
            assert faces[0]
            assert faces[1]
            assert not faces[0] & faces[1]
            assert len(set(manifest.classes)) == 5


def test_images_are_bright_ink_on_black(glyphs):
    inputs = glyphs.task(0).query.inputs
    assert inputs.shape[1:] == (1, 28, 28)
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert 0.02 < inputs.mean() < 0.3


def test_every_class_has_enough_faces_and_the_users_files_are_inverted(glyphs):
    assert int(glyphs.has_group.sum(1).min()) >= 8
    assert glyphs.has_group.shape[1] == len(FACES)
    assert glyphs.pipeline.invert
    assert glyphs.pipeline.input_shape == glyphs.spec.input_shape
