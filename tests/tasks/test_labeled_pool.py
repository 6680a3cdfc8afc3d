import re

import pytest
import torch
from torch.utils import _pytree as pytree

from handful.errors import DataError
from handful.learners.prototypical import PrototypicalNetwork
from handful.tasks.distribution import BLOCK, SizeRanges, Sizes
from handful.tasks.labeled_pool import LabeledPool
from noted import noted, nothing_noted

SHARED = {"train": [0, 1, 2], "val": [3, 4], "test": [5, 6, 7]}


def pool(counts: list[int], *, groups=None, splits=None, **options) -> LabeledPool:
    """A pool whose inputs are the example's own number."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    inputs = torch.arange(len(labels)).float().unsqueeze(1)
    names = [f"class{i}" for i in range(len(counts))]
    return LabeledPool(inputs, labels, names, splits=splits or SHARED, groups=groups, **options)


def test_each_task_has_exactly_way_classes_and_disjoint_examples():
    tasks = pool([10] * 8).with_sizes(way=3, shot=2, query_shot=4)
    for index in range(50):
        task, manifest = tasks.task(index), tasks.manifest(index)
        assert len(set(manifest.classes)) == 3
        assert sorted(task.support.targets.tolist()) == [0, 0, 1, 1, 2, 2]
        assert torch.bincount(task.query.targets).tolist() == [4, 4, 4]
        assert len({*manifest.support, *manifest.query}) == 3 * 6
        # Images and labels were drawn together: each example is of the class that its number stands for.
        for examples in task:
            classes = tasks.labels[examples.inputs.flatten().long()]
            assert torch.equal(classes, torch.tensor(manifest.classes)[examples.targets])


def test_sizes_that_are_not_given_are_no_larger_than_the_classes_allow():
    """So that each split has tasks; what is given stays."""
    plenty = pool([40] * 24, splits={"train": range(12), "val": range(12, 18), "test": range(18, 24)})
    assert plenty.sizes == LabeledPool.default_sizes
    few = pool([10] * 5 + [6, 9, 4])
    assert few.sizes == SizeRanges(way=2, shot=1, query_shot=5), "of test half have 6, of val two 10"
    with noted("1 of 3 classes of the test split have fewer than 6"):
        for on in SHARED:
            few.split(on).with_sizes().task(0)
    assert few.with_sizes(shot=3).sizes == SizeRanges(2, 3, 3)
    assert few.with_sizes(shot=3).with_sizes(shot=1).sizes == SizeRanges(2, 1, 5)
    assert few.with_sizes(query_shot=2).with_sizes(shot=3).sizes == SizeRanges(2, 3, 2)
    with pytest.raises(DataError, match="A 4-way task"):
        few.with_sizes(way=4)


def test_class_numbers_are_drawn_anew_for_each_task():
    tasks = pool([10] * 8).with_sizes(way=3, shot=1, query_shot=2)
    assert {tasks.manifest(index).classes.index(0) for index in range(40)} == {0, 1, 2}


def test_splits_share_no_class():
    tasks = pool([10] * 8).with_sizes(way=2, shot=1, query_shot=2)
    seen = {on: set() for on in SHARED}
    for on, classes in seen.items():
        for index in range(30):
            classes.update(tasks.split(on).manifest(index).classes)
    assert {on: sorted(classes) for on, classes in seen.items()} == SHARED
    names = tasks.split_manifest()
    assert not set(names["train"]) & set(names["val"]) | set(names["train"]) & set(names["test"])


def test_support_and_query_share_no_group():
    groups = torch.arange(80) % 4
    tasks = pool([10] * 8, groups=groups).with_sizes(way=3, shot=2, query_shot=2)
    for index in range(50):
        manifest = tasks.manifest(index)
        assert not set(groups[list(manifest.support)].tolist()) & set(groups[list(manifest.query)].tolist())


def test_groups_of_one_leave_as_many_for_the_query_as_there_are():
    tasks = pool([7] * 8, groups=torch.arange(56)).with_sizes(way=3, shot=2, query_shot=5)
    drawn = {example for index in range(60) for example in tasks.manifest(index).support}
    assert drawn == set(range(21)), "each example of the training classes is support at times"


def test_one_group_cannot_be_divided():
    tasks = pool([10] * 8, groups=torch.zeros(80, dtype=torch.long)).with_sizes(way=2, shot=1, query_shot=1)
    with pytest.raises(DataError, match="group="):
        tasks.task(0)


def test_too_few_examples_names_the_classes_and_the_way_out():
    with pytest.raises(DataError, match=r"needs 3 classes of 7 or more.*class0 \(2\).*Lower way=, shot="):
        pool([2] + [10] * 7).with_sizes(way=3, shot=3, query_shot=4)


def test_classes_of_one_example_are_left_out_aloud():
    with noted(r"1 of 3 classes of the train split have fewer than 2 examples \(1 to learn from, 1 to be scored on\)"):
        tasks = pool([1] + [10] * 7).with_sizes(way=2, shot=3, query_shot=4)
    assert {c for i in range(20) for c in tasks.manifest(i).classes} == {1, 2}
    assert not tasks.small_tasks()


def test_small_classes_are_left_out_aloud_where_they_are_not_trained_on():
    with nothing_noted():
        tasks = pool([10] * 3 + [6, 10, 10, 6, 10]).with_sizes(way=2, shot=3, query_shot=4)
    with noted("1 of 3 classes of the test split have fewer than 7 examples"):
        test = tasks.split("test").with_sizes(way=2)
    assert {c for i in range(20) for c in test.manifest(i).classes} == {5, 7}
    assert {test.sizes_of(index) for index in range(0, 9 * BLOCK, BLOCK)} == {Sizes(2, 3, 4)}


def ragged(**options) -> LabeledPool:
    """Five training classes of each of these numbers of examples."""
    counts = [2, 3, 5, 6, 9, 40] * 5
    splits = {"train": range(30), "val": [], "test": []}
    return pool(counts, splits=splits, **options).with_sizes(way=3, shot=5, query_shot=4)


def test_every_class_with_two_examples_trains():
    tasks, drawn, seen = ragged(), torch.zeros(30), set()
    for index in range(0, 250 * BLOCK, BLOCK // 8):
        sizes, manifest = tasks.sizes_of(index), tasks.manifest(index)
        assert len(set(manifest.classes)) == 3
        assert (len(manifest.support), len(manifest.query)) == (3 * sizes.shot, 3 * sizes.query_shot)
        assert len({*manifest.support, *manifest.query}) == 3 * (sizes.shot + sizes.query_shot)
        drawn[list(manifest.classes)] += 1
        seen.add((sizes.shot, sizes.query_shot))
    assert seen == {(1, 1), (2, 1), (4, 1), (5, 1), (5, 4)}
    assert drawn.min() > 0
    small = tasks.counts < 9
    said = re.fullmatch(
        r"20 of 30 training classes have fewer than 9 usable examples \(5 to learn from and 4 to be scored on\): they "
        r"are ([\d.]+) % of the classes drawn, with 1 to 5 support and 1 to 4 query examples",
        tasks.small_tasks(),
    )
    assert float(said[1]) / 100 == pytest.approx(float(drawn[small].sum() / drawn.sum()), abs=0.05)
    assert not tasks.split("val").small_tasks()


def test_sizes_are_the_same_in_a_block_and_a_pure_function_of_it():
    tasks, again = ragged(), ragged()
    blocks = [tasks.sizes_of(block * BLOCK) for block in range(12)]
    assert len(set(blocks)) > 2
    for block in (7, 2):
        assert {again.sizes_of(block * BLOCK + place) for place in range(BLOCK)} == {blocks[block]}
        batch = again.batch([block * BLOCK + 1, block * BLOCK + 60])
        assert batch.support.inputs.shape[1] == 3 * blocks[block].shot
    assert [ragged(seed=1).sizes_of(block * BLOCK) for block in range(12)] != blocks
    assert tasks.varied
    assert tasks.typical(3) == range(0, 3 * BLOCK, BLOCK)
    assert not pool([10] * 8).with_sizes(way=3, shot=5, query_shot=5).varied


def test_classes_that_are_all_large_enough_are_drawn_as_ever():
    """Recorded results depend on it."""
    manifest = pool([10] * 8).with_sizes(way=3, shot=2, query_shot=4).manifest(3)
    assert manifest.support == (9, 0, 15, 14, 24, 26)
    assert manifest.query == (8, 4, 2, 1, 10, 12, 18, 19, 29, 23, 27, 21)
    families = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    splits = {"train": range(10), "val": [], "test": []}
    tasks = pool([10] * 10, splits=splits, families=families).with_sizes(way=2, shot=(1, 3), query_shot=4)
    assert tasks.manifest(3) == ((9, 5), (99, 93, 50, 58), (97, 98, 94, 92, 52, 54, 51, 59))


def test_a_small_class_is_drawn_with_others_of_its_family():
    """Of each family four classes have many examples, so that they are not near to the small ones."""
    families = torch.arange(12).repeat_interleave(6)
    splits = {"train": range(72), "val": [], "test": []}
    tasks = pool([40, 40, 40, 40, 3, 2] * 12, splits=splits, families=families).with_sizes(4, 5, 4)
    drawn = torch.zeros(72)
    for classes in drawn_classes(tasks, 100):
        assert len(set(classes)) == 4
        assert len(set(families[list(classes)].tolist())) == 1
        drawn[list(classes)] += 1
    assert all(drawn[tasks.counts == count].sum() > 0 for count in (2, 3, 40))


@pytest.mark.parametrize("each", [4, 10])
@pytest.mark.parametrize("apart", ["groups", "order"])
def test_small_classes_that_groups_or_times_keep_apart_do_not_end_a_training(apart, each):
    """The small classes have one group each, or other times than all others; large ones are drawn in their place."""
    counts = [each] * 20 + [40] * 5
    labels = torch.arange(25).repeat_interleave(torch.tensor(counts))
    splits = {"train": range(25), "val": [], "test": []}
    place = torch.arange(len(labels))
    kept = {
        "groups": torch.where(labels < 20, 0, place % 4),
        "order": torch.where(labels < 20, 999 * labels + 99, 0) + place % 40,
    }
    tasks = pool(counts, splits=splits, **{apart: kept[apart]}).with_sizes(way=3, shot=2, query_shot=10)
    assert {tasks.sizes_of(index) for index in range(0, 9 * BLOCK, BLOCK)} == {Sizes(3, 2, min(10, each - 2))}
    assert {c for classes in drawn_classes(tasks, 20) for c in classes} <= {20, 21, 22, 23, 24}


def test_a_way_that_varies_takes_families_of_fewer_classes_too():
    families = torch.tensor([0] * 2 + [1] * 4)
    splits = {"train": range(6), "val": [], "test": []}
    tasks = pool([3] * 2 + [20] * 4, splits=splits, families=families).with_sizes(way=(2, 4), shot=5, query_shot=5)
    seen = {(*map(int, families[list(classes)].unique()), len(classes)) for classes in drawn_classes(tasks, 60)}
    assert seen == {(0, 2), (1, 2), (1, 3), (1, 4)}


def drawn_classes(tasks, blocks):
    return [tasks.manifest(index).classes for index in range(0, blocks * BLOCK, BLOCK)]


def test_enough_examples_are_no_warning():
    with nothing_noted():
        pool([7] * 8).with_sizes(way=3, shot=3, query_shot=4)


def test_pool_numbers_the_classes_of_its_split():
    drawn = pool([10] * 8).split("test").pool()
    assert drawn.outputs == 3
    examples = drawn.draw(torch.Generator().manual_seed(0), 100)
    assert torch.equal(examples.inputs.flatten() // 10 - 5, examples.targets.float())


@pytest.mark.parametrize("groups", [None, torch.arange(20_000) % 4])
def test_a_draw_reads_the_examples_of_its_own_classes_only(groups, monkeypatch):
    splits = {"train": range(2000), "val": [], "test": []}
    tasks = pool([10] * 2000, groups=groups, splits=splits).with_sizes(way=3, shot=1, query_shot=2)
    read = []

    class Watched(list):
        def __getitem__(self, label):
            read.append(label)
            return super().__getitem__(label)

    monkeypatch.setattr(tasks, "members", Watched(tasks.members))
    drawn = [label for index in range(5) for label in tasks.manifest(index).classes]
    assert len(read) <= 2 * len(drawn) < 100


def test_with_an_order_all_support_examples_precede_all_queries():
    """Examples of equal moments are on one side; of each class the support are the last ones before the queries."""
    order = torch.arange(80) * 7 % 40 // 2
    tasks = pool([10] * 8, order=order).with_sizes(way=2, shot=2, query_shot=3)
    moments = set()
    for index in range(40):
        manifest = tasks.manifest(index)
        support, query = order[list(manifest.support)], order[list(manifest.query)]
        assert support.max() < query.min()
        assert len({*manifest.support, *manifest.query}) == 2 * 5
        moments.add(int(support.max()))
    assert len(moments) > 3
    same = pool([10] * 8, order=torch.zeros(80).long()).with_sizes(way=2, shot=2, query_shot=3)
    with pytest.raises(DataError, match="in order"):
        same.task(0)


def test_what_is_done_to_its_tensors_later_changes_no_task():
    """Whatever the tensors are: also the order, and the families of the classes."""
    labels = torch.arange(8).repeat_interleave(10)
    columns = {"groups": torch.arange(80) % 4} | {"families": torch.arange(8) % 2}
    for own in (columns, {"order": torch.arange(80) % 10}):
        given = {"inputs": torch.arange(80.0).unsqueeze(1), "labels": labels.clone(), **own}
        given = {name: column.clone() for name, column in given.items()}
        tasks = LabeledPool(names=list("abcdefgh"), splits=SHARED | {"train": range(8)}, **given)
        tasks = tasks.with_sizes(way=2, shot=2, query_shot=2)
        before, seen = [tasks.task(index) for index in range(5)], tasks.pool().draw(torch.Generator(), 5)
        for column in given.values():
            column.zero_()
        again = [tasks.task(index) for index in range(5)]
        assert all(map(torch.equal, pytree.tree_leaves(before), pytree.tree_leaves(again)))
        assert torch.equal(tasks.pool().draw(torch.Generator(), 5).targets, seen.targets)


def test_tensors_that_are_handed_over_are_not_copied():
    inputs = torch.zeros(80, 3)
    tasks = LabeledPool(inputs, torch.arange(80) // 10, list("abcdefgh"), splits=SHARED, copy=False)
    assert tasks.inputs is inputs or tasks.inputs.data_ptr() == inputs.data_ptr()


@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_rows_of_whole_numbers_reach_networks_as_floats(kind):
    inputs = torch.randint(-9, 9, (80, 3)).to(kind)
    tasks = LabeledPool(inputs, torch.arange(80) // 10, list("abcdefgh"), splits=SHARED)
    tasks = tasks.with_sizes(way=2, shot=2, query_shot=2)
    task, manifest = tasks.task(0), tasks.manifest(0)
    assert task.support.inputs.dtype == torch.float32
    assert torch.equal(task.support.inputs, inputs[list(manifest.support)].float())
    learner = PrototypicalNetwork.build(tasks.spec, backbone="mlp")
    assert learner.meta_loss(task, tasks.spec).isfinite()


def test_whole_numbers_that_floats_cannot_hold_are_named():
    inputs = torch.zeros(80, 3, dtype=torch.int64)
    inputs[7, 2] = -(2**24) - 1
    with pytest.raises(DataError, match=r"Example 7 .* -16777217"):
        LabeledPool(inputs, torch.arange(80) // 10, list("abcdefgh"), splits=SHARED)
    inputs[7, 2] += 1
    LabeledPool(inputs, torch.arange(80) // 10, list("abcdefgh"), splits=SHARED)


def test_columns_of_other_lengths_are_told():
    with pytest.raises(DataError, match=r"inputs have shape \(79, 3\), but the labels have shape \(80,\)"):
        LabeledPool(torch.zeros(79, 3), torch.arange(80) // 10, list("abcdefgh"), splits=SHARED)
    with pytest.raises(DataError, match="but the groups have shape"):
        pool([10] * 8, groups=torch.zeros(81, dtype=torch.long))


class Doubling(torch.nn.Module):
    """Two features of each number, and which ones were asked for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs):
        self.seen += inputs.flatten().tolist()
        return torch.cat([2 * inputs, -inputs], dim=1)


def test_mapped_tasks_are_the_same_with_features_computed_once():
    tasks, network = pool([10] * 8).with_sizes(way=2, shot=1, query_shot=4).split("test"), Doubling()
    mapped = tasks.mapped(network)
    network.seen.clear()
    for index in range(20):
        own, other = tasks.task(index), mapped.task(index)
        assert tasks.manifest(index) == mapped.manifest(index)
        for plain, features in zip(own, other, strict=True):
            assert torch.equal(features.inputs, torch.cat([2 * plain.inputs, -plain.inputs], dim=1))
            assert torch.equal(plain.targets, features.targets)
    assert mapped.spec.input_shape == (2,)
    assert len(network.seen) == len(set(network.seen)), "some row was computed twice"
    drawn = {row for index in range(20) for part in tasks.manifest(index)[1:] for row in part}
    assert {int(row) for row in network.seen} == drawn, "others than those of tasks were computed"
    mapped.with_sizes(shot=2).split("test").task(0)
    assert len(network.seen) == len(set(network.seen)), "copies share what is known"
    assert tasks.spec.input_shape == (1,)


def test_examples_that_come_out_different_each_time_have_no_features():
    assert pool([10] * 8, repeats=True).mapped(Doubling()) is None

    class Noisy(LabeledPool):
        def prepare(self, raw, generator):
            return raw + torch.rand(raw.shape, generator=generator)

    own = pool([10] * 8)
    assert Noisy(own.inputs, own.labels, own.names, splits=SHARED).mapped(Doubling()) is None


def test_rows_are_the_examples_of_the_split():
    tasks = pool([4, 3, 5, 6, 4, 4, 3, 3]).with_sizes(2, 1, 1)
    for on in SHARED:
        rows = tasks.split(on).rows()
        parts = list(rows.parts(5))
        assert max(map(len, parts)) <= 5
        expected = {index for label in tasks.splits[on].tolist() for index in tasks.members[label].tolist()}
        assert set(rows.ids.tolist()) == expected
        assert torch.cat(parts).flatten().tolist() == rows.ids.tolist()
    assert len(tasks.thinned(2).rows()) == 2 * len(tasks.splits["train"])
    assert pool([4] * 8, repeats=True).rows() is None, "they look different each time"


def test_a_thinned_pool_has_some_examples_of_every_class():
    tasks = pool([10, 10, 10, 10, 10, 10, 3, 10]).with_sizes(way=2, shot=1).split("test")
    thin = tasks.thinned(4)
    assert thin.counts.tolist() == [4, 4, 4, 4, 4, 4, 3, 4]
    assert tasks.counts.tolist() == [10, 10, 10, 10, 10, 10, 3, 10]
    for label, members in enumerate(thin.members):
        assert members.tolist() == sorted(members.tolist())
        assert set(members.tolist()) <= set(tasks.members[label].tolist())
    assert thin.members[0].tolist() != tasks.members[0][:4].tolist(), "drawn, not the first"
    assert [own.tolist() for own in tasks.thinned(4).members] == [own.tolist() for own in thin.members]
    assert thin.sizes == SizeRanges(2, 1, 3), "queries that are not given fit"
    drawn = {row for index in range(30) for part in thin.manifest(index)[1:] for row in part}
    assert drawn <= {row for members in thin.members for row in members.tolist()}
    assert tasks.with_sizes(query_shot=2).thinned(2).sizes.query_shot == 2, "also where no task is left"


@pytest.mark.parametrize("column", ["groups", "order"])
def test_a_pool_whose_examples_belong_together_stays_whole(column):
    tasks = pool([10] * 8, **{column: torch.arange(80) % 10})
    assert tasks.thinned(4) is tasks
