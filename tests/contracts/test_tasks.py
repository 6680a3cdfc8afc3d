"""The contract of task sources, for every registered one and for the two shapes of a user's own data."""

import hashlib
import inspect
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from handful.errors import UserError
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.registry import TASKS
from handful.tasks.augmentation import augmented
from handful.tasks.distribution import BLOCK, SPLITS, Manifest, Sizes, TaskDistribution
from handful.tasks.gaussian_process import NOISE, GaussianProcess
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.many_tables import LabeledTables, ManyTables
from handful.tasks.task_collection import TaskCollection
from handful.types import Examples, Gaussian, Task, TaskSpec, stack


def omniglot_file(folder: Path) -> Path:
    """A file in the form of the real one, with noise for drawings."""
    path = folder / "omniglot_28.npz"
    count = 24
    np.savez(
        path,
        images=np.random.default_rng(0).integers(0, 256, (count, 20, 28, 28), dtype=np.uint8),
        alphabet=np.array(["Angelic"] * count),
        character=np.array([f"character{i:02}" for i in range(count)]),
        vinyals_split=np.array((["train"] * 8) + (["val"] * 8) + (["test"] * 8)),
        part=np.array(["images_background"] * count),
    )
    return path


FILES = {"omniglot": omniglot_file}
"""For the registered sources that read files: what to read. All others are made without arguments."""


def pool(folder: Path, seed: int) -> TaskDistribution:
    """A user's labeled pool, each class drawn by four writers."""
    count, each = 18, 24
    labels = torch.arange(count).repeat_interleave(each)
    inputs = torch.randn(count * each, 3, generator=torch.Generator().manual_seed(0))
    splits = {"train": range(6), "val": range(6, 12), "test": range(12, 18)}
    groups = torch.arange(count * each) % 4
    return LabeledPool(
        inputs, labels, [f"c{i}" for i in range(count)], splits=splits, groups=groups, seed=seed
    ).with_sizes(way=3, shot=2, query_shot=3)


def collection(folder: Path, seed: int) -> TaskDistribution:
    """A user's table with a task column."""
    count, each = 18, 20
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count * each, 3, generator=generator)
    targets = torch.randint(2, (count * each,), generator=generator)
    splits = {"train": range(6), "val": range(6, 12), "test": range(12, 18)}
    names = [f"shop {i}" for i in range(count)]
    tasks = torch.arange(count).repeat_interleave(each)
    return TaskCollection(inputs, targets, tasks, names, splits=splits, classes=2, seed=seed).with_sizes(
        shot=4, query_shot=5
    )


def ragged_collection(folder: Path, seed: int) -> TaskDistribution:
    """A table whose tasks have 6 to 23 rows."""
    generator, each = torch.Generator().manual_seed(0), torch.arange(6, 24)
    tasks = torch.arange(18)[torch.randperm(18, generator=generator)].repeat_interleave(each)
    inputs, targets = torch.randn(len(tasks), 3, generator=generator), torch.randn(len(tasks), 1, generator=generator)
    splits = {"train": range(10), "val": range(10, 14), "test": range(14, 18)}
    names = [f"shop {i}" for i in range(18)]
    return TaskCollection(inputs, targets, tasks, names, splits=splits, seed=seed).with_sizes(shot=4, query_shot=12)


def tables(folder: Path, seed: int) -> TaskDistribution:
    """A user's tables, with three to eight features each, of which the first is constant in most rows."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(24, 3 + number % 6, generator=generator) for number in range(18)]
    for table in features:
        table[:20, 0] = 0
    targets = [torch.randn(24, 1, generator=generator) for _ in features]
    splits = {"train": range(6), "val": range(6, 12), "test": range(12, 18)}
    names = [f"table {i}" for i in range(18)]
    pipeline = ManyTablesPipeline(width=4, target="last")
    return ManyTables(features, targets, names, splits=splits, pipeline=pipeline, seed=seed).with_sizes(
        shot=4, query_shot=5
    )


def labeled_tables(folder: Path, seed: int) -> TaskDistribution:
    """Tables with two or three classes, of three to eight features."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(36, 3 + number % 6, generator=generator) for number in range(18)]
    answers = [("ab", "abc")[number % 2] * (36 // (2 + number % 2)) for number in range(18)]
    splits = {"train": range(6), "val": range(6, 12), "test": range(12, 18)}
    names = [f"table {i}" for i in range(18)]
    pipeline = ManyTablesPipeline(width=4, label="last")
    tables = LabeledTables(features, answers, names, splits=splits, pipeline=pipeline, seed=seed)
    return tables.with_sizes(shot=3, query_shot=4)


def ragged_labeled_tables(folder: Path, seed: int) -> TaskDistribution:
    """Tables of which most have fewer rows of their two classes than a task asks for."""
    generator, counts = torch.Generator().manual_seed(0), [4, 6, 8, 30, 10, 40, *[40] * 12]
    features = [torch.randn(count, 3, generator=generator) for count in counts]
    splits = {"train": range(6), "val": range(6, 12), "test": range(12, 18)}
    names, pipeline = [f"table {i}" for i in range(18)], ManyTablesPipeline(width=4, label="last")
    answers = ["ab" * (count // 2) for count in counts]
    tables = LabeledTables(features, answers, names, splits=splits, pipeline=pipeline, seed=seed)
    return tables.with_sizes(shot=3, query_shot=8)


OWN = {
    "own pool": pool,
    "own collection": collection,
    "ragged collection": ragged_collection,
    "own tables": tables,
    "own labeled tables": labeled_tables,
    "ragged labeled tables": ragged_labeled_tables,
    "augmented collection": lambda folder, seed: augmented(collection(folder, seed), 0.5),
    "augmented tables": lambda folder, seed: augmented(tables(folder, seed), 0.5),
}
SOURCES = [*TASKS, *OWN]


def make(name: str, folder: Path, seed: int = 0) -> TaskDistribution:
    """The source of this name. The data stay the same for every seed."""
    if name in OWN:
        return OWN[name](folder, seed)
    cls = TASKS[name]
    if name not in FILES:
        return cls(seed=seed)
    return cls(FILES[name](folder), seed=seed)


@pytest.fixture(params=SOURCES)
def name(request):
    return request.param


@pytest.fixture
def source(name, tmp_path):
    return make(name, tmp_path)


def test_every_registered_source_is_under_contract():
    for key, cls in TASKS.items():
        needed = [
            parameter.name
            for parameter in inspect.signature(cls).parameters.values()
            if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        assert bool(needed) == (key in FILES), f"{key} needs {needed}: write a tiny one in FILES"


# Task i is a pure function of (seed, split, i)


@pytest.mark.parametrize("on", SPLITS)
def test_a_task_is_the_same_in_any_order_and_beside_others(source, on):
    check_order(source.split(on))


def check_order(source):
    """T17."""
    forwards = [digest(source.task(index)) for index in range(6)]
    backwards = [digest(source.task(index)) for index in reversed(range(6))]
    assert forwards == backwards[::-1]
    source.split("test").task(3)
    source.with_sizes(query_shot=1).task(0)
    assert digest(source.task(4)) == forwards[4]


def test_a_task_is_the_same_from_other_threads(source):
    expected = [digest(source.task(index)) for index in range(12)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda index: digest(source.task(index)), range(12))) == expected


@pytest.mark.slow
def test_tasks_are_the_same_from_no_worker_one_and_four(tmp_path):
    """T16, T17: all sources at once, since a new process needs seconds to import torch."""
    requests = [(name, on, index) for name in SOURCES for on in ("train", "test") for index in range(4)]
    expected = [of_worker((tmp_path, *request)) for request in requests]
    work = [(tmp_path, *request) for request in requests]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as workers:
        whole = workers.submit(of_one_worker, work)
        assert list(workers.map(of_worker, work)) == expected
        assert whole.result() == expected


def of_one_worker(requests) -> list[str]:
    return [of_worker(request) for request in requests]


def of_worker(request) -> str:
    folder, name, on, index = request
    made = _made.get(name)
    if made is None:
        own = folder / f"{name}-{multiprocessing.current_process().pid}"
        own.mkdir(exist_ok=True)
        made = _made[name] = make(name, own, seed=7)
    return digest(made.split(on).task(index))


_made: dict[str, TaskDistribution] = {}


def test_seeds_splits_and_indices_give_different_tasks(name, tmp_path):
    drawn = [
        digest(make(name, tmp_path, seed=seed).split(on).task(index))
        for seed in (0, 1)
        for on in SPLITS
        for index in range(3)
    ]
    assert len(set(drawn)) == len(drawn)


def test_drawing_leaves_the_global_generators_alone(source):
    check_global_generators(source)


def check_global_generators(source):
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = digest(source.task(0))
    source.batch([0, 1])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == before_numpy
    torch.manual_seed(99)
    assert digest(source.task(0)) == first


def test_a_batch_is_its_tasks_stacked(source):
    check_batch(source)


def check_batch(source):
    indices = [5, 0, 3]
    tasks = [source.task(index) for index in indices]
    assert digest(source.batch(indices)) == digest(stack(tasks))


# What a task is


@pytest.mark.parametrize("on", SPLITS)
def test_tasks_are_as_the_spec_says(source, on):
    source = source.split(on)
    for index in range(5):
        task, spec = source.task(index), source.spec_of(index)
        for examples in task:
            assert examples.inputs.dtype == torch.float32
            assert examples.inputs.isfinite().all()
            assert tuple(examples.inputs.shape[1:]) == spec.input_shape
            if spec.classification:
                assert examples.targets.dtype == torch.int64
                assert examples.targets.shape == (len(examples.inputs),)
                assert int(examples.targets.max()) < spec.outputs
            else:
                assert examples.targets.shape == (len(examples.inputs), spec.outputs)
                assert examples.targets.isfinite().all()


@pytest.mark.parametrize("on", SPLITS)
def test_support_and_query_are_disjoint(source, on):
    check_disjoint(source.split(on))


def check_disjoint(source):
    """T18."""
    for index in range(20):
        manifest = source.manifest(index)
        assert not set(manifest.support) & set(manifest.query)
        task = source.task(index)
        if manifest.support:
            assert (len(manifest.support), len(manifest.query)) == tuple(len(part.inputs) for part in task)
        support = {row.numpy().tobytes() for row in task.support.inputs}
        assert not support & {row.numpy().tobytes() for row in task.query.inputs}


def test_permuted_classes_are_distinct_and_have_the_right_numbers_of_examples(source):
    if source.spec.labels == "permuted" and source.spec.classification:
        check_classes(source)


def check_classes(source):
    """T32."""
    for index in range(20):
        task, sizes, manifest = source.task(index), source.sizes_of(index), source.manifest(index)
        way = source.spec_of(index).outputs
        assert len(set(manifest.classes)) == way
        assert torch.bincount(task.support.targets).tolist() == [sizes.shot] * way
        assert torch.bincount(task.query.targets).tolist() == [sizes.query_shot] * way
        if isinstance(source, LabeledPool):  # the pool's own label of each example
            for examples, ids in ((task.support, manifest.support), (task.query, manifest.query)):
                numbers = [manifest.classes.index(label) for label in source.labels[list(ids)].tolist()]
                assert examples.targets.tolist() == numbers


def test_permuted_class_numbers_are_drawn_anew(source):
    if source.spec.labels == "permuted" and source.spec.classification:
        check_class_numbers(source)


def check_class_numbers(source):
    """T14: not a function of the class, nor of the set of classes, such as their order."""
    upwards = [classes[0] < classes[1] for classes in (source.manifest(index).classes for index in range(60))]
    assert 15 < sum(upwards) < 45
    first = {source.manifest(index).classes[0] for index in range(60)}
    last = {source.manifest(index).classes[-1] for index in range(60)}
    assert first & last, "some class is the first of one task and the last of another"


def test_no_class_or_task_is_in_two_splits(source):
    check_splits(source)


def check_splits(source):
    """T20."""
    names = source.split_manifest()
    everything = [name for on in names for name in names[on]]
    assert len(set(everything)) == len(everything)
    used = {on: set() for on in SPLITS}
    for on in SPLITS:
        for index in range(20):
            manifest = source.split(on).manifest(index)
            used[on] |= {("class", c) for c in manifest.classes}
            used[on] |= {("example", e) for e in (*manifest.support, *manifest.query)}
    assert not used["train"] & used["val"]
    assert not used["train"] & used["test"]
    assert not used["val"] & used["test"]


def test_the_best_prediction_is_of_the_right_shape_and_calibrated(source):
    check_oracle(source)


def check_oracle(source):
    """Residuals are as large as it says, also all of a task together, and twice or half the deviation says it worse."""
    source = source.split("test")
    if source.oracle(0) is None:
        return
    squared, likelihoods = [], {factor: [] for factor in (0.5, 1.0, 2.0)}
    for index in range(0, 40 * BLOCK, BLOCK // 4):
        oracle, targets = source.oracle(index), source.task(index).query.targets
        assert oracle.mean.shape == oracle.variance.shape == targets.shape
        squared.append(((targets - oracle.mean).square() / oracle.variance).mean())
        for factor, values in likelihoods.items():
            values.append(-Gaussian(oracle.mean, factor**2 * oracle.variance).loss(targets).mean())
    residuals = torch.stack(squared).double()
    assert abs(residuals.mean() - 1) < 4 * residuals.std() / len(residuals) ** 0.5
    means = {factor: torch.stack(values).mean() for factor, values in likelihoods.items()}
    assert means[1.0] > max(means[0.5], means[2.0])


# Sizes


def test_sizes_are_as_asked(source):
    sized = source.with_sizes(shot=2, query_shot=3)
    task, way = sized.task(0), sized.spec.outputs if sized.sizes.way else 1
    assert [len(part.inputs) for part in task] == [2 * way, 3 * way]
    assert source.sizes == source.with_sizes().sizes


def test_ranges_of_sizes_are_drawn_once_for_each_block(source):
    sized = source.with_sizes(shot=(1, 4))
    assert {sized.sizes_of(index) for index in range(BLOCK)} == {sized.sizes_of(0)}
    blocks = [sized.sizes_of(block * BLOCK).shot for block in range(12)]
    assert set(blocks) <= {1, 2, 3, 4}
    assert len(set(blocks)) > 1
    for block in range(3):
        index = block * BLOCK
        way = sized.spec_of(index).outputs if sized.sizes.way else 1
        assert len(sized.task(index).support.inputs) == blocks[block] * way
    sized.batch([BLOCK, BLOCK + 1])


@pytest.mark.parametrize("sizes", [{"shot": 0}, {"query_shot": -1}, {"shot": (3, 2)}, {"way": 0}], ids=str)
def test_sizes_that_cannot_be_are_refused(source, sizes):
    with pytest.raises(UserError):
        source.with_sizes(**sizes)


@pytest.mark.parametrize("on", ["dev", "Train", ""])
def test_a_split_that_there_is_not_is_refused_with_those_there_are(source, on):
    with pytest.raises(UserError, match="train, val, test"):
        source.split(on)


@pytest.mark.parametrize("name", [*FILES, *OWN])
def test_more_examples_than_there_are_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"shot|rows"):
        make(name, tmp_path).with_sizes(shot=10_000)


def test_a_source_says_what_it_is(source):
    assert type(source).summary().endswith(".")


# Sources that break one clause each: the clauses can fail


class Sound(TaskDistribution):
    """Six points in each of three groups; not registered, since it has no key."""

    def spec_for(self, sizes):
        return TaskSpec("classification", (1,), 3)

    def draw(self, generator):
        return torch.randperm(8, generator=generator)[:3], torch.randperm(6, generator=generator)

    def sample(self, generator, sizes):
        classes, points = self.draw(generator)
        values = (
            classes.repeat_interleave(6).view(3, 6)[:, points] * 10.0 + points + 100 * SPLITS.index(self.split_name)
        )
        noise = torch.rand(values.shape, generator=generator)
        numbers = torch.arange(3).repeat_interleave(3)
        return Task(
            Examples((values + noise)[:, :3].reshape(-1, 1), numbers),
            Examples((values + noise)[:, 3:].reshape(-1, 1), numbers),
        )

    def sizes_of(self, index):
        return Sizes(3, 3, 3)

    def manifest(self, index):
        classes, points = self.draw(self.generator_of(index))
        ids = (classes.unsqueeze(1) * 6 + points + 1000 * SPLITS.index(self.split_name)).tolist()
        own = tuple(100 * SPLITS.index(self.split_name) + c for c in classes.tolist())
        return Manifest(own, *(tuple(i for row in ids for i in row[part]) for part in (slice(3), slice(3, 6))))

    def split_manifest(self):
        return {on: [f"{on} {i}" for i in range(8)] for on in SPLITS}


class UsesTheGlobalGenerator(Sound):
    def draw(self, generator):
        return torch.randperm(8)[:3], torch.randperm(6)


class Counts(Sound):
    """A stream: the next task depends on how many were drawn before."""

    drawn = 0

    def generator_of(self, index):
        self.drawn += 1
        return super().generator_of(self.drawn)


class BatchesOtherwise(Sound):
    def batch(self, indices):
        return super().batch(sorted(indices))


class Leaks(Sound):
    def sample(self, generator, sizes):
        task = super().sample(generator, sizes)
        return Task(task.support, task.support)


class DrawsAClassTwice(Sound):
    def draw(self, generator):
        classes, points = super().draw(generator)
        return classes[[0, 0, 1]], points


class SortsItsClasses(Sound):
    def draw(self, generator):
        classes, points = super().draw(generator)
        return classes.sort().values, points


class MixesItsSplits(Sound):
    def split_manifest(self):
        return {on: ["everything"] for on in SPLITS}


class ForgetsTheNoise(GaussianProcess):
    """What it calls the best prediction is that of the function, not of the values that are scored."""

    def oracle(self, index):
        mean, variance = super().oracle(index)
        return Gaussian(mean, (variance - NOISE**2).clamp_min(1e-6))


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (UsesTheGlobalGenerator, check_order),
        (UsesTheGlobalGenerator, check_global_generators),
        (Counts, check_order),
        (BatchesOtherwise, check_batch),
        (Leaks, check_disjoint),
        (DrawsAClassTwice, check_classes),
        (SortsItsClasses, check_class_numbers),
        (MixesItsSplits, check_splits),
        (ForgetsTheNoise, check_oracle),
    ],
    ids=lambda value: value.__name__,
)
def test_a_source_that_breaks_the_clause_is_caught(cls, check):
    check(Sound())
    with pytest.raises(AssertionError):
        check(cls())


def digest(task: Task) -> str:
    """A hash of all its tensors, bit for bit."""
    whole = hashlib.sha256()
    for leaf in pytree.tree_leaves(task):
        whole.update(f"{tuple(leaf.shape)} {leaf.dtype}".encode())
        whole.update(leaf.contiguous().numpy().tobytes())
    return whole.hexdigest()
