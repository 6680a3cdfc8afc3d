"""Task augmentation: training tasks change their targets by a draw of their own, and nothing else changes."""

import pytest
import torch

from handful import LEARNERS, evaluate, meta_train
from handful.errors import UserError
from handful.streams import seeded
from handful.tasks.augmentation import AugmentedImages, augmented
from handful.tasks.distribution import SizeRanges, Sizes, TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.sine import Sine
from handful.tasks.task_collection import TaskCollection
from handful.types import Examples, Task, TaskSpec


def shops(classes=3):
    """Tasks with shared labels."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(600, 2, generator=generator), torch.randint(classes, (600,), generator=generator)
    tasks = torch.arange(30).repeat_interleave(20)
    splits = {"train": range(20), "val": range(20, 25), "test": range(25, 30)}
    return TaskCollection(inputs, targets, tasks, [f"shop {i}" for i in range(30)], splits=splits, classes=classes)


def letters():
    """Tasks with labels drawn anew."""
    labels = torch.arange(30) // 5
    splits = {"train": [0, 1], "val": [2, 3], "test": [4, 5]}
    return LabeledPool(torch.zeros(30, 2), labels, list("abcdef"), splits=splits).with_sizes(way=2, query_shot=2)


def drawings():
    """Tasks of images: a bright stroke, at a place of its class."""
    images = torch.zeros(30, 1, 16, 16, dtype=torch.uint8)
    labels = torch.arange(30) // 5
    for index, label in enumerate(labels.tolist()):
        images[index, :, 2 * label + 2, 3:12] = 255
    splits = {"train": [0, 1], "val": [2, 3], "test": [4, 5]}
    return LabeledPool(images, labels, list("abcdef"), splits=splits).with_sizes(way=2, query_shot=2)


def test_support_and_query_of_a_training_task_are_scaled_and_shifted_alike():
    tasks = Sine()
    changed = augmented(tasks, 1.0)
    factors = []
    for index in range(40):
        before, after = tasks.task(index), changed.task(index)
        assert torch.equal(before.support.inputs, after.support.inputs)
        x, y = (torch.cat([part.targets for part in task]).double().flatten() for task in (before, after))
        line = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y).solution
        assert torch.allclose(line[0] * x + line[1], y, atol=1e-4)
        factors.append(float(line[0]))
    assert min(factors) < 0 < max(factors), "of either sign"
    assert 0.5 < torch.tensor(factors).square().mean() < 2, "about as large as they were"


def test_class_numbers_are_permuted_in_a_share_of_the_tasks():
    tasks = shops()
    changed = augmented(tasks, 0.5)
    count = 0
    for index in range(100):
        before, after = tasks.task(index), changed.task(index)
        pairs = {
            (int(a), int(b))
            for one, other in zip(before, after, strict=True)
            for a, b in zip(one.targets, other.targets, strict=True)
        }
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "one map for the whole task"
        count += any(a != b for a, b in pairs)
    assert 25 < count < 60  # of the half, one of six permutations changes nothing


@pytest.mark.parametrize("on", ["val", "test"])
@pytest.mark.parametrize("make", [Sine, shops])
def test_tasks_to_be_scored_on_are_not_changed(make, on):
    tasks = make()
    changed = augmented(tasks, 0.7).split(on)
    for one, other in zip(tasks.split(on).task(3), changed.task(3), strict=True):
        assert torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("make", [Sine, shops])
def test_it_keeps_the_contract_of_its_tasks(make):
    tasks = make()
    changed = augmented(tasks, 0.7)
    assert changed.spec == tasks.spec
    assert changed.manifest(3) == tasks.manifest(3)
    assert [changed.unit(i) for i in range(9)] == [tasks.unit(i) for i in range(9)]
    assert changed.split_manifest() == tasks.split_manifest()
    assert (changed.split("test").units, changed.split("test").split_name) == (tasks.split("test").units, "test")
    assert changed.with_sizes(shot=3).spec_of(0) == tasks.with_sizes(shot=3).spec_of(0)
    assert len(changed.with_sizes(shot=3).task(0).support.targets) == 3
    batch = changed.batch([5, 2])
    for place, index in enumerate((5, 2)):
        assert torch.equal(batch.support.targets[place], changed.task(index).support.targets)
    assert not torch.equal(
        changed.sample(seeded(1), changed.sizes_of(0)).support.targets,
        changed.sample(seeded(2), changed.sizes_of(0)).support.targets,
    )


@pytest.mark.parametrize(
    ("make", "strength", "said"),
    [
        (letters, 1.0, "are permuted"),
        (drawings, 10.0, "at most 3"),
        (shops, 1.5, "up to 1"),
        (Sine, -1.0, "above 0"),
    ],
)
def test_what_cannot_be_is_refused(make, strength, said):
    with pytest.raises(UserError, match=said):
        augmented(make(), strength)


def test_images_that_train_are_seen_under_maps_of_their_own():
    tasks = drawings()
    changed = augmented(tasks, 1.0)
    assert isinstance(changed, AugmentedImages)
    before, after = tasks.task(0), changed.task(0)
    assert torch.equal(before.query.targets, after.query.targets)
    assert before.support.inputs.shape == after.support.inputs.shape
    looks = torch.cat([after.support.inputs, after.query.inputs]).flatten(1)
    assert len({tuple(look.tolist()) for look in looks}) == len(looks), "drawings of a class are alike, its views not"
    assert not any(torch.equal(look, own) for look, own in zip(after.query.inputs, before.query.inputs, strict=True))
    assert torch.equal(changed.task(0).support.inputs, after.support.inputs)
    for on in ("val", "test"):
        assert torch.equal(changed.split(on).task(0).query.inputs, tasks.split(on).task(0).query.inputs)


def test_the_pool_to_pretrain_on_is_seen_likewise():
    tasks = drawings()
    changed = augmented(tasks, 1.0)
    plain, seen = (source.pool().draw(seeded(3), 8) for source in (tasks, changed))
    assert torch.equal(plain.targets, seen.targets)
    assert not torch.equal(plain.inputs, seen.inputs)
    plain, seen = (source.split("val").pool().draw(seeded(3), 8) for source in (tasks, changed))
    assert torch.equal(plain.inputs, seen.inputs)


@pytest.mark.parametrize(("channels", "turned"), [(1, False), (3, True)])
def test_images_in_color_are_mirrored_half_of_the_time(channels, turned):
    """They are bright on the left."""
    images = torch.zeros(30, channels, 8, 8, dtype=torch.uint8)
    images[..., :4] = 255
    splits = {"train": [0, 1], "val": [2, 3], "test": [4, 5]}
    tasks = LabeledPool(images, torch.arange(30) // 5, list("abcdef"), splits=splits)
    seen = augmented(tasks, 0.1).pool().draw(seeded(0), 200).inputs
    left = (seen[..., :4].mean((1, 2, 3)) > 0.5).float().mean().item()
    assert (0.4 < left < 0.6) if turned else left == 1.0


class Coded(TaskDistribution):
    """Levels; the inputs of a training task tell which of 10 it is, those of a new one what no task was."""

    default_sizes = SizeRanges(shot=4, query_shot=8)

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        return TaskSpec("regression", (4,), 1, "shared")

    def sample(self, generator, sizes):
        facts = generator
        if self.split_name == "train":
            facts = seeded(int(torch.randint(10, (), generator=generator)))
        code, level = 2 * torch.rand(4, generator=facts) - 1, torch.randn(1, 1, generator=facts)
        inputs, targets = code.expand(12, 4), level.expand(12, 1) + 0.3 * torch.randn(12, 1, generator=generator)
        return Task(Examples(inputs[:4], targets[:4]), Examples(inputs[4:], targets[4:]))


@pytest.mark.slow
def test_it_cures_memorization():
    """The whole of benchmarks/memorization.py, small: codes of tasks are known by heart, unless targets change."""
    errors = {}
    for strength in (0.0, 3.0):
        tasks = Coded()
        options = {"backbone_options": {"hidden": (32,)}, "inner_lr": 0.01, "inner_steps": 2}
        learner = LEARNERS["anil"].build(tasks.spec, backbone="mlp", **options)
        training = augmented(tasks, strength) if strength else tasks
        settings = {"steps": 150, "meta_batch_size": 8, "outer_lr": 1e-2, "plan": "vmap"}
        meta_train(learner, training, validate_every=150, validation_tasks=10, **settings)
        errors[strength] = evaluate(learner, tasks.split("test"), tasks=100).score.mean
    assert errors[3.0] < errors[0.0] / 2
