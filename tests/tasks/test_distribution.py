import hashlib
import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from handful.errors import UserError
from handful.tasks.distribution import BLOCK, SizeRanges, TaskDistribution
from handful.tasks.glyphs import Glyphs
from handful.tasks.sine import Sine
from handful.types import Task, stack

SOURCES = [Sine, Glyphs]


def equal(a: Task, b: Task) -> bool:
    return all(torch.equal(x, y) for x, y in zip([*a.support, *a.query], [*b.support, *b.query], strict=True))


@pytest.fixture(params=SOURCES, ids=lambda source: source.key)
def source(request: pytest.FixtureRequest) -> TaskDistribution:
    return request.param(seed=3)  # type: ignore[no-any-return]


def test_task_is_pure_in_its_index(source):
    task = source.task(5)
    source.task(6)
    torch.rand(7)  # the global generator has no part in it
    assert equal(task, source.task(5))
    assert equal(task, type(source)(seed=3).task(5))


def test_tasks_differ_by_index_split_and_seed(source):
    first = source.task(0)
    assert not equal(first, source.task(1))
    assert not equal(first, source.split("test").task(0))
    assert not equal(first, type(source)(seed=4).task(0))


def test_batch_equals_tasks(source):
    indices = [4, 9, 2, 63]
    assert equal(source.batch(indices), stack([source.task(index) for index in indices]))


def test_same_tasks_from_threads(source):
    with ThreadPoolExecutor(4) as threads:
        tasks = list(threads.map(source.task, range(16)))
    assert all(equal(task, source.task(index)) for index, task in enumerate(tasks))


def digest(source: TaskDistribution) -> str:
    task = source.task(11)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in (*task.support, *task.query))).hexdigest()


@pytest.mark.slow
def test_same_tasks_from_another_process():
    code = (
        "import hashlib\nfrom handful.tasks.sine import Sine\nfrom handful.tasks.glyphs import Glyphs\n"
        "from handful.tasks.distribution import TaskDistribution\n"
        f"{inspect.getsource(digest)}\nprint(digest(Sine(seed=3)), digest(Glyphs(seed=3).split('test')))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.split() == [digest(Sine(seed=3)), digest(Glyphs(seed=3).split("test"))]


def test_split_and_sized_leave_the_original(source):
    source.split("val").with_sizes(shot=2)
    assert source.split_name == "train"
    assert source.sizes == type(source).default_sizes


def test_unknown_split_is_named():
    with pytest.raises(UserError, match="train, val, test, not 'validation'"):
        Sine().split("validation")


def test_range_sizes_are_constant_within_a_block_and_vary_between():
    sine = Sine().with_sizes(shot=(5, 20))
    shots = [sine.sizes_of(index).shot for index in range(20 * BLOCK)]
    assert all(len(set(shots[start : start + BLOCK])) == 1 for start in range(0, len(shots), BLOCK))
    assert len(set(shots)) > 3
    assert len(sine.task(BLOCK).support.inputs) == shots[BLOCK]


@pytest.mark.parametrize("wrong", [{"way": 1}, {"way": (1, 5)}, {"shot": (3, 2)}, {"query_shot": 0}])
def test_impossible_sizes(wrong):
    with pytest.raises(UserError, match="at least 2" if "way" in wrong else "at least 1"):
        SizeRanges(**wrong)


def test_tasks_without_classes_have_no_way():
    with pytest.raises(UserError, match="Remove way="):
        Sine().with_sizes(way=5)
