import re

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from handful.errors import DataError, UserError
from handful.notes import collecting
from handful.tasks.distribution import BLOCK
from handful.tasks.task_collection import TaskCollection
from handful.types import stack
from noted import noted, nothing_noted


def collection(counts: list[int], *, classes=None, groups=None, seed=0) -> TaskCollection:
    """Tasks with these numbers of rows; a row's input is its own number, its target the number of its task."""
    tasks = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = torch.arange(len(tasks))
    targets = rows % classes if classes else tasks.float().unsqueeze(1)
    names = [f"shop{i}" for i in range(len(counts))]
    inputs = rows.float().unsqueeze(1)
    order = np.random.default_rng(seed).permutation(len(counts)).tolist()
    train, val = max(1, round(0.6 * len(order))), max(1, round(0.2 * len(order)))
    splits = {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}
    return TaskCollection(inputs, targets, tasks, names, splits=splits, classes=classes, groups=groups, seed=seed)


@pytest.fixture
def shops() -> TaskCollection:
    return collection([30] * 20).with_sizes(shot=5, query_shot=10)


def test_a_shot_that_is_not_given_leaves_half_of_the_tasks_of_each_split_a_query():
    assert collection([30] * 20).sizes.shot == 5
    small = collection([4] * 19 + [30])
    assert small.sizes.shot == 3
    assert all(small.split(on).task(0).query.targets.numel() for on in ("train", "val", "test"))


@pytest.mark.parametrize("on", ["train", "test"])
def test_no_queries_are_refused(shops, on):
    with pytest.raises(UserError, match="query-shot is at least 1"):
        shops.split(on).with_sizes(query_shot=0)


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
    test = collection([30, 17, 9, 40, 25, 12, 33, 21, 28, 14]).split("test").with_sizes(shot=5)
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
    again = shops.split("test").with_sizes(shot=3).split("train")
    assert (again.sizes.shot, again.sizes.query_shot) == (3, 10)
    assert not again.ragged
    assert shops.sizes.shot == 5


def test_draws_are_pure_and_batches_equal_tasks(shops):
    for split in (shops, shops.split("val")):
        batch, one = split.batch([3, 8, 1]), stack([split.task(i) for i in (3, 8, 1)])
        assert all(torch.equal(a, b) for a, b in zip([*batch.support, *batch.query], [*one.support, *one.query]))  # noqa: B905
        again = collection([30] * 20).with_sizes(shot=5, query_shot=10).split(split.split_name)
        assert again.manifest(3) == split.manifest(3)


def test_tasks_that_are_all_large_enough_are_drawn_as_ever():
    """Recorded results depend on it."""
    manifest = collection([30] * 20).with_sizes(shot=5, query_shot=10).manifest(3)
    assert manifest.support == (418, 398, 417, 397, 394)
    assert manifest.query[:5] == (419, 399, 415, 406, 413)


def ragged(seed=0, groups=None):
    """Five tasks of each of these numbers of rows, all in the train split."""
    counts = [2, 3, 5, 6, 9, 40] * 5
    tasks = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = torch.arange(len(tasks)).float().unsqueeze(1)
    splits = {"train": range(len(counts)), "val": [], "test": []}
    names = [f"shop{i}" for i in range(len(counts))]
    shops = TaskCollection(rows, tasks.float().unsqueeze(1), tasks, names, splits=splits, groups=groups, seed=seed)
    return shops.with_sizes(shot=5, query_shot=10)


def test_every_task_with_two_rows_trains():
    shops = ragged()
    assert shops.units == len(shops.names) == 30
    drawn, seen = torch.zeros(30), set()
    for index in range(0, 250 * BLOCK, BLOCK // 8):
        sizes, manifest = shops.sizes_of(index), shops.manifest(index)
        assert (len(manifest.support), len(manifest.query)) == (sizes.shot, sizes.query_shot)
        assert len({*manifest.support, *manifest.query}) == sizes.shot + sizes.query_shot
        drawn[shops.places[int(shops.tasks[manifest.support[0]])]] += 1
        seen.add((sizes.shot, sizes.query_shot))
    assert seen == {(1, 1), (2, 1), (4, 1), (5, 1), (5, 4)}
    assert drawn.min() > 0
    small = [len(shops.members[task]) < 9 for task in shops.eligible]
    share = float(drawn[torch.tensor(small)].sum() / drawn.sum())
    said = re.fullmatch(
        r"half of the training tasks with more than 5 usable rows have at most 9, so that 4 and not 10 query rows are "
        r"scored; 20 of 30 training tasks have fewer than 9 usable rows \(5 to learn from and 4 to be scored on\): "
        r"they are ([\d.]+) % of the training draws, with 1 to 5 support and 1 to 4 query rows",
        shops.small_tasks(),
    )
    assert float(said[1]) / 100 == pytest.approx(share, abs=0.05)


def test_sizes_are_the_same_in_a_block_and_a_pure_function_of_it():
    shops, again = ragged(), ragged()
    blocks = [shops.sizes_of(block * BLOCK) for block in range(12)]
    assert len(set(blocks)) > 2
    for block in (7, 2):
        assert {again.sizes_of(block * BLOCK + place) for place in range(BLOCK)} == {blocks[block]}
        batch = again.batch([block * BLOCK + 1, block * BLOCK + 60])
        assert batch.support.inputs.shape[1] == blocks[block].shot
    assert [ragged(seed=1).sizes_of(block * BLOCK) for block in range(12)] != blocks
    assert shops.varied
    assert not shops.split("val").varied
    assert not collection([15] * 10).with_sizes(shot=5, query_shot=10).varied
    equal = collection([8] * 10).with_sizes(shot=5, query_shot=10)
    assert not equal.varied
    assert equal.small_tasks().endswith("have at most 8, so that 3 and not 10 query rows are scored")
    assert shops.typical(3) == range(0, 3 * BLOCK, BLOCK)


def test_a_rare_size_is_drawn_with_the_next_larger_ones():
    counts = [2] + [8] * 30 + [40] * 30
    tasks = torch.arange(61).repeat_interleave(torch.tensor(counts))
    rows = torch.arange(len(tasks)).float().unsqueeze(1)
    splits = {"train": range(61), "val": [], "test": []}
    shops = TaskCollection(rows, rows, tasks, [str(task) for task in range(61)], splits=splits)
    (smallest,) = {block for block in map(shops.block_at, range(0, 900 * BLOCK, BLOCK)) if block.sizes.query_shot == 1}
    assert shops.training_sizes().drawn_from(smallest) == list(range(31)), (
        "all of eight rows, since they are equally near"
    )


def test_ranges_of_sizes_are_cut_to_the_tasks_too():
    shops = ragged().with_sizes(shot=(3, 8), query_shot=(2, 4))
    seen = {(sizes.shot, sizes.query_shot) for sizes in map(shops.sizes_of, range(0, 300 * BLOCK, BLOCK))}
    assert {(1, 1), (2, 1), (8, 4), (3, 2)} <= seen
    for index in range(0, 40 * BLOCK, BLOCK):
        assert len(shops.task(index).support.inputs) == shops.sizes_of(index).shot


@pytest.mark.parametrize("each", [1, 2, 7])
def test_groups_of_small_tasks_stay_on_one_side(each):
    lengths = torch.tensor([2, 3, 5, 6, 9, 40] * 5)
    place = torch.cat([torch.arange(int(length)) for length in lengths])
    groups = 100 * torch.arange(30).repeat_interleave(lengths) + place // each
    several = 30 - 5 * sum(length <= each for length in (2, 3, 5, 6, 9, 40))
    with collecting():
        shops = ragged(groups=groups)
    assert shops.units == several
    drawn = set()
    for index in range(0, 100 * BLOCK, BLOCK // 2):
        manifest, sizes = shops.manifest(index), shops.sizes_of(index)
        assert (len(manifest.support), len(manifest.query)) == (sizes.shot, sizes.query_shot)
        assert not set(groups[list(manifest.support)].tolist()) & set(groups[list(manifest.query)].tolist())
        drawn.add(shops.unit(index))
    assert len(drawn) > 0.6 * several


def test_tasks_of_one_row_are_left_out_aloud():
    with noted(r"Left out: \d of 6 tasks of the train split, with fewer than 2 usable rows"):
        shops = collection([1, 1, 1, 30, 30, 30, 30, 30, 30, 30]).with_sizes(shot=5, query_shot=10)
    assert all(len(shops.members[task]) == 30 for task in shops.eligible)
    assert not shops.small_tasks()


def test_small_tasks_are_no_warning_but_in_validation():
    with nothing_noted():
        shops = collection([4] * 5 + [20] * 15).with_sizes(shot=5, query_shot=10)
    assert shops.small_tasks()
    val = collection([30, 17, 9, 40, 25, 12, 33, 21, 28, 14]).split("val")
    rows = sorted(len(val.members[task]) for task in val.splits["val"])
    with noted(rf"Left out: 1 of 2 tasks of the val split, with fewer than {rows[0] + 1} us"):
        val.with_sizes(shot=rows[0])


def test_enough_rows_are_no_warning():
    with nothing_noted():
        collection([15] * 10).with_sizes(shot=5, query_shot=10)


def test_no_eligible_task_names_the_largest(shops):
    with pytest.raises(DataError, match=r"No task of the train split has 30 support rows.*shop\d+ \(30\).*shot="):
        shops.with_sizes(shot=30)


def test_way_is_refused(shops):
    with pytest.raises(UserError, match="Remove way="):
        shops.with_sizes(way=5)


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
    shops = collection(counts, groups=groups).with_sizes(shot=22, query_shot=4).split(on)
    for index in range(30):
        manifest = shops.manifest(index)
        sides = [set(groups[list(side)].tolist()) for side in manifest[1:]]
        assert len(manifest.support) == 22
        assert len(manifest.query) >= 4
        assert not sides[0] & sides[1]


def test_one_group_per_task_cannot_be_divided():
    groups = torch.arange(10).repeat_interleave(30)
    with pytest.raises(DataError, match="in different groups"):
        collection([30] * 10, groups=groups).with_sizes(shot=5)


def test_pool_is_all_rows_of_the_split(shops):
    pool = shops.split("val").pool()
    examples = pool.draw(torch.Generator().manual_seed(0), 500)
    assert pool.outputs == 1
    assert set(examples.targets.flatten().tolist()) == set(map(float, shops.splits["val"]))


@pytest.mark.parametrize("split", ["train", "test"])
def test_with_an_order_all_support_rows_precede_all_query_rows(split):
    """Rows of equal moments are on one side, and outside of training all later rows are scored."""
    order = torch.arange(20 * 30) * 7 % 30 // 2
    shops = collection([30] * 20)
    shops = TaskCollection(shops.inputs, shops.targets, shops.tasks, shops.names, splits=shops.splits, order=order)
    shops = shops.with_sizes(shot=5, query_shot=4).split(split)
    starts = set()
    for index in range(30):
        manifest = shops.manifest(index)
        support, query = list(manifest.support), list(manifest.query)
        assert len(support) == 5
        assert order[support].max() < order[query].min()
        own = shops.members[int(shops.tasks[support[0]])]
        later = int((order[own] > order[support].max()).sum())
        assert len(query) == (4 if split == "train" else later)
        starts.add(int(order[support].min()))
    assert len(starts) > 3


def test_a_task_without_a_later_row_is_not_drawn():
    shops = collection([4] * 6)
    order = torch.arange(24) % 4
    order[shops.members[shops.splits["train"][0]]] = 0  # all at the same moment
    shops = TaskCollection(shops.inputs, shops.targets, shops.tasks, shops.names, splits=shops.splits, order=order)
    assert shops.splits["train"][0] not in shops.eligible
    assert len(shops.eligible) == len(shops.splits["train"]) - 1


@pytest.mark.parametrize("classes", [None, 3])
def test_what_is_done_to_its_tensors_later_changes_no_task(classes):
    tasks = torch.arange(6).repeat_interleave(9)
    targets = torch.arange(54) % 3 if classes else torch.randn(54, 2)
    given = {"inputs": torch.randn(54, 2), "targets": targets, "tasks": tasks, "order": torch.arange(54) % 9}
    splits = {"train": range(4), "val": [4], "test": [5]}
    shops = TaskCollection(names=list("abcdef"), splits=splits, classes=classes, **given).with_sizes(shot=3)
    before = [[split.task(index) for index in range(4)] for split in map(shops.split, splits)]
    for column in given.values():
        column.zero_()
    again = [[split.task(index) for index in range(4)] for split in map(shops.split, splits)]
    assert all(map(torch.equal, pytree.tree_leaves(before), pytree.tree_leaves(again)))


def test_whole_numbers_are_floats_and_classes_are_numbers_of_64_bits():
    tasks, splits = torch.arange(6).repeat_interleave(9), {"train": range(4), "val": [4], "test": [5]}
    rows = torch.arange(54, dtype=torch.int32)
    shops = TaskCollection(rows[:, None], rows[:, None], tasks, list("abcdef"), splits=splits).with_sizes(shot=3)
    assert {part.dtype for examples in shops.task(0) for part in examples} == {torch.float32}
    shops = TaskCollection(rows[:, None], rows % 3, tasks, list("abcdef"), splits=splits, classes=3).with_sizes(shot=3)
    assert shops.task(0).query.targets.dtype == torch.int64
    assert shops.task(0).query.targets.tolist() == [row % 3 for row in shops.manifest(0).query]


@pytest.mark.parametrize(
    ("targets", "classes", "words"),
    [
        (torch.zeros(54), None, r"float32 of shape \(54,\), but should be values \(n, outputs\)"),
        (torch.zeros(54), 3, "float32 of shape .*whole numbers of classes"),
        (torch.zeros(54, 1, dtype=torch.int64), 3, "int64 of shape .*whole numbers of classes"),
        (torch.arange(54) % 4, 3, "Example 3 is of class 3, but the 3 classes are 0 to 2"),
        (torch.zeros(1, 54), None, r"inputs have shape \(54, 1\), but the targets have shape \(1, 54\)"),
    ],
)
def test_targets_that_no_loss_takes_are_told(targets, classes, words):
    tasks, splits = torch.arange(6).repeat_interleave(9), {"train": range(4), "val": [4], "test": [5]}
    with pytest.raises(DataError, match=words):
        TaskCollection(torch.zeros(54, 1), targets, tasks, list("abcdef"), splits=splits, classes=classes)


def test_mapped_tasks_are_the_same_with_features_in_place_of_inputs(shops):
    for tasks in (shops, shops.split("test")):
        mapped = tasks.mapped(torch.nn.Linear(*tasks.spec.input_shape, 7))
        assert mapped.spec.input_shape == (7,)
        for index in (0, 5):
            assert tasks.manifest(index) == mapped.manifest(index)
            for plain, features in zip(tasks.task(index), mapped.task(index), strict=True):
                assert torch.allclose(features.inputs, mapped.inputs.network(plain.inputs), atol=1e-6)
                assert torch.equal(plain.targets, features.targets)


def test_rows_are_those_of_the_tasks_of_the_split(shops):
    for tasks in (shops, shops.split("test")):
        rows = tasks.rows()
        assert sorted(rows.ids.tolist()) == [
            row for row, task in enumerate(shops.tasks.tolist()) if task in tasks.splits[tasks.split_name]
        ]
        known = torch.cat(list(rows.parts(50)))
        support = tasks.task(3).support.inputs
        assert (support.unsqueeze(1) == known).all(-1).any(1).all()
    assert shops.mapped(torch.nn.Linear(*shops.spec.input_shape, 7)).rows() is None
