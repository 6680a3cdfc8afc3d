import warnings

import pytest
import torch

from handful.engine.across_tasks import stack
from handful.errors import DataError, UserError
from handful.tasks.collection import TaskCollection
from handful.tasks.pool import split_classes


def collection(counts: list[int], *, classes=None, groups=None, seed=0) -> TaskCollection:
    """Tasks with these numbers of rows; a row's input is its own number, its target the number of its task."""
    tasks = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = torch.arange(len(tasks))
    targets = rows % classes if classes else tasks.float().unsqueeze(1)
    names = [f"shop{i}" for i in range(len(counts))]
    inputs = rows.float().unsqueeze(1)
    splits = split_classes(len(counts), seed, noun="task")
    return TaskCollection(inputs, targets, tasks, names, splits=splits, classes=classes, groups=groups, seed=seed)


@pytest.fixture
def shops() -> TaskCollection:
    return collection([30] * 20).sized(shot=5, query_shot=10)


def test_training_draws_fixed_sizes_from_one_task(shops):
    drawn = set()
    for index in range(60):
        task = shops.task(index)
        assert [len(side.inputs) for side in task] == [5, 10]
        manifest = shops.manifest(index)
        assert len({*manifest.support, *manifest.query}) == 15
        of = set(torch.cat([side.targets for side in task]).flatten().tolist())
        assert len(of) == 1
        drawn |= of
        assert shops.unit(index) == shops.eligible.index(int(*of))
        assert task.support.inputs.flatten().tolist() == list(manifest.support)
    assert drawn == set(shops.splits["train"])


def test_tasks_are_split_and_not_rows(shops):
    rows = {}
    for on in ("train", "val", "test"):
        split = shops.split(on)
        rows[on] = {row for i in range(60) for side in split.manifest(i)[1:] for row in side}
    assert not rows["train"] & rows["val"]
    assert not rows["train"] & rows["test"]
    assert not rows["val"] & rows["test"]
    assert {on: len(names) for on, names in shops.split_manifest().items()} == {"train": 12, "val": 4, "test": 4}


def test_evaluation_goes_through_the_tasks_and_scores_all_remaining_rows():
    test = collection([30, 17, 9, 40, 25, 12, 33, 21, 28, 14]).split("test").sized(shot=5)
    assert test.ragged
    assert test.sizes.query_shot is None
    assert test.units == 2
    for index in range(6):
        manifest = test.manifest(index)
        task = test.splits["test"][index % 2]
        assert test.unit(index) == index % 2
        assert sorted((*manifest.support, *manifest.query)) == test.members[task].tolist()
        assert len(manifest.support) == 5
    assert set(test.manifest(0).support) != set(test.manifest(2).support)


def test_split_and_sized_go_back_and_forth(shops):
    again = shops.split("test").sized(shot=3).split("train")
    assert (again.sizes.shot, again.sizes.query_shot) == (3, 10)
    assert not again.ragged
    assert shops.sizes.shot == 5


def test_draws_are_pure_and_batches_equal_tasks(shops):
    for split in (shops, shops.split("val")):
        batch, one = split.batch([3, 8, 1]), stack([split.task(i) for i in (3, 8, 1)])
        assert all(torch.equal(a, b) for a, b in zip([*batch.support, *batch.query], [*one.support, *one.query]))  # noqa: B905
        again = collection([30] * 20).sized(shot=5, query_shot=10).split(split.on)
        assert again.manifest(3) == split.manifest(3)


def test_small_tasks_are_left_out_aloud():
    with pytest.warns(UserWarning, match=r"Left out: \d of 6 tasks of the train split, with fewer than 15 usable"):
        shops = collection([8, 8, 8, 30, 30, 30, 30, 30, 30, 30]).sized(shot=5, query_shot=10)
    assert all(len(shops.members[task]) == 30 for task in shops.eligible)
    shops.task(0)


def test_smaller_query_where_most_tasks_are_small():
    with pytest.warns(UserWarning, match="training scores 3 query rows per task and not 10"):
        shops = collection([8] * 10).sized(shot=5, query_shot=10)
    assert len(shops.task(0).query.inputs) == 3


def test_enough_rows_are_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collection([15] * 10).sized(shot=5, query_shot=10)


def test_no_eligible_task_names_the_largest(shops):
    with pytest.raises(DataError, match=r"No task of the train split has the 30 support rows.*shop\d+ \(30\).*--shot"):
        shops.sized(shot=30)


def test_way_is_refused(shops):
    with pytest.raises(UserError, match="leave out --way"):
        shops.sized(way=5)


def test_shared_labels_are_global():
    shops = collection([30] * 10, classes=3)
    assert (shops.spec.kind, shops.spec.outputs, shops.spec.labels) == ("classification", 3, "shared")
    task = shops.task(0)
    assert torch.equal(task.query.targets, task.query.inputs.flatten().long() % 3)
    assert task.query.targets.dtype == torch.int64


@pytest.mark.parametrize("on", ["train", "val", "test"])
def test_support_and_query_share_no_group(on):
    counts = [30] * 10
    groups = torch.cat([torch.tensor([0] * 20 + [1] * 6 + [2] * 4) + 3 * task for task in range(10)])
    shops = collection(counts, groups=groups).sized(shot=22, query_shot=4).split(on)
    for index in range(30):
        manifest = shops.manifest(index)
        sides = [set(groups[list(side)].tolist()) for side in manifest[1:]]
        assert len(manifest.support) == 22
        assert len(manifest.query) >= 4
        assert not sides[0] & sides[1]


def test_one_group_per_task_cannot_be_divided():
    groups = torch.arange(10).repeat_interleave(30)
    with pytest.raises(DataError, match="in different groups"):
        collection([30] * 10, groups=groups).sized(shot=5)


def test_pool_is_all_rows_of_the_split(shops):
    pool = shops.split("val").pool()
    examples = pool.draw(torch.Generator().manual_seed(0), 500)
    assert pool.outputs == 1
    assert set(examples.targets.flatten().tolist()) == set(map(float, shops.splits["val"]))
