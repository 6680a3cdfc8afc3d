"""A distribution around another one keeps all that it does not change."""

import pytest
import torch

from handful.tasks.augmentation import augmented
from handful.tasks.distribution import TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.sine import Sine
from handful.tasks.wrapped import WrappedTasks

OWN = {"key", "default_sizes", "summary", "split", "with_sizes", "mapped", "with_columns", "thinned"}
"""What a wrapper has of its own: the first three belong to the class, the others make new wrappers."""

MEMBERS = sorted(name for name in {*dir(TaskDistribution), *vars(Sine())} - OWN if name[0] != "_")


def special(name):
    """A member like that of no other distribution: a method, or a value for an attribute or a property."""
    if callable(getattr(TaskDistribution, name, None)):
        return lambda self, *arguments: f"special {name}{arguments}"
    return f"special {name}"


Special = type("Special", (TaskDistribution,), {name: special(name) for name in MEMBERS})


@pytest.mark.parametrize("name", sorted({*MEMBERS} - {"check"}))
def test_every_member_is_that_of_the_tasks(name):
    tasks = object.__new__(Special)
    own, wrapped = getattr(tasks, name), getattr(WrappedTasks(tasks), name)
    if callable(own):
        without = ("pool", "rows", "split_manifest", "contents", "small_tasks")
        arguments = (1, 2) if name == "sample" else () if name in without else (7,)
        own, wrapped = own(*arguments), wrapped(*arguments)
    assert wrapped == own
    assert own.startswith(f"special {name}")


def test_check_is_that_of_the_tasks():
    class Refusing(Sine):
        def check(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        WrappedTasks(Refusing()).check()


@pytest.mark.parametrize("wrap", [WrappedTasks, lambda tasks: augmented(tasks, 0.5)], ids=["wrapped", "augmented"])
def test_other_splits_and_sizes_keep_it_too(wrap):
    tasks = Sine()
    tasks.nested, tasks.error_unit, tasks.target_scale = False, "meters", torch.tensor([3.0])
    changed = wrap(tasks)
    for other in (changed, changed.split("test"), changed.with_sizes(shot=3), changed.split("val").with_sizes(shot=2)):
        assert (other.nested, other.error_unit, other.target_scale.item()) == (False, "meters", 3.0)
        assert (other.split_name, other.sizes) == (other.tasks.split_name, other.tasks.sizes)


def test_mapped_and_thinned_ones_keep_what_is_changed():
    """But images that come out different each time have no features."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(80, 1, 8, 8, generator=generator), torch.arange(80) % 8
    splits = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}
    pool = LabeledPool(images, labels, list("abcdefgh"), splits=splits).with_sizes(way=2, shot=1, query_shot=2)
    flat = torch.nn.Flatten()
    wrapped = WrappedTasks(pool).mapped(flat)
    assert torch.equal(wrapped.task(3).query.inputs, pool.task(3).query.inputs.flatten(1))
    assert WrappedTasks(pool).thinned(4).tasks.counts.tolist() == [4] * 8
    changed = augmented(pool, 0.5)
    assert changed.mapped(flat) is None
    assert torch.equal(
        changed.split("val").mapped(flat).task(3).query.inputs, pool.split("val").task(3).query.inputs.flatten(1)
    )
    assert changed.rows() is None
    assert changed.split("val").rows().ids.tolist() == WrappedTasks(pool).split("val").rows().ids.tolist()
    assert WrappedTasks(Sine()).mapped(flat) is WrappedTasks(Sine()).rows() is None
