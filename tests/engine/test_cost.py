"""Costs that are counted, and those that are measured."""

import subprocess
import sys
import weakref
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import FlopCounterMode

from handful.engine.cost import (
    Operations,
    free_bytes,
    graph_bytes,
    live_bytes,
    operations,
    operations_per_second,
    peak_bytes,
    query_bytes,
)
from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import Plan
from handful.learners.cavia import CAVIA
from handful.learners.imaml import ImplicitMAML
from handful.learners.maml import MAML
from handful.learners.r2d2 import R2D2
from handful.registry import LEARNERS
from handful.tasks.sine import Sine
from handful.types import Examples, Task, TaskSpec


def test_graph_bytes_are_the_most_that_was_kept_at_once():
    x = torch.randn(1000, requires_grad=True)

    def run():
        torch.autograd.grad(x.exp().exp().sum(), x)  # each exp keeps its result
        torch.autograd.grad(x.exp().sum(), x)

    assert graph_bytes(run) == 8000


def test_what_keeps_too_much_is_stopped():
    x = torch.randn(1000, requires_grad=True)
    after = []

    def run():
        y = x.exp().exp().exp()
        after.append(y)

    assert graph_bytes(run, limit=5000) == 8000
    assert not after
    assert graph_bytes(run) == 12000
    assert after


@pytest.mark.parametrize("limit", [None, 10_000])
def test_no_graph_is_held_for_good(limit):
    """Neither one that is stopped nor one that ends without a backward pass: in a training they were hundreds of MB."""
    results = []

    def run():
        value = torch.randn(1000, requires_grad=True)
        for _ in range(5):
            value = value.tanh()  # keeps its result
            results.append(weakref.ref(value))

    graph_bytes(run, limit)
    assert len(results) == (5 if limit is None else 2)
    assert not any(result() is not None for result in results)


def test_a_storage_that_is_kept_twice_counts_once():
    x = torch.randn(10, 100, requires_grad=True)
    assert graph_bytes(lambda: torch.autograd.grad((x * x.view(10, 100)).sum(), x)) == 4000


def test_live_bytes_are_the_most_that_was_there_at_one_time():
    x = torch.randn(1000)

    def run():
        for _ in range(3):
            x.exp().exp().exp()  # two at a time
        x.exp().view(10, 100)

    assert live_bytes(run) == 8000
    assert live_bytes(lambda: None) == 0


def test_live_bytes_count_what_a_graph_keeps():
    x = torch.randn(1000, requires_grad=True)
    assert live_bytes(lambda: x.exp().exp().exp()) == 12000


def test_the_bytes_of_a_query_are_measured_once_for_each_shape_of_state():
    network = torch.nn.Linear(10, 100)
    seen = []

    def predict(inputs):
        seen.append(len(inputs))
        return network(inputs)

    with torch.no_grad():
        for state in (torch.zeros(3), torch.ones(3), torch.ones(4)):
            assert query_bytes(network, state.shape, predict, torch.zeros(0, 10)) == 400
    assert len(seen) == 4


def test_what_cannot_be_measured_counts_nothing():
    def predict(inputs):
        raise RuntimeError

    assert query_bytes(torch.nn.Linear(1, 1), (), predict, torch.zeros(0, 1)) == 0


def test_operations_of_a_meta_gradient_are_those_of_its_products():
    """Of a linear head without inner steps: outputs of the support and where they pull, outputs of the query and the
    slope of the weight; each is a product of 6 examples, 8 inputs and 3 classes."""
    spec = TaskSpec("classification", (8,), 3)

    def examples():
        return Examples(torch.randn(2, 6, 8), torch.arange(6).expand(2, 6) % 3)

    learner = MAML.build(spec, backbone="raw", head="slots")
    learner.inner_steps = 0
    assert operations(learner, Task(examples(), examples()), spec) == (4 * 2 * 6 * 8 * 3, 0)


def test_the_machine_does_some_operations():
    assert all(1e8 < rate < 1e16 for rate in operations_per_second(torch.zeros(1)))


def test_convolutions_have_a_limit_of_their_own():
    """They reach more operations a second than matrix products: measured against these, a share was 120 %."""
    spec = TaskSpec("classification", (1, 8, 8), 2)
    tasks = Task(*(Examples(torch.randn(1, 4, 1, 8, 8), torch.arange(4).expand(1, 4) % 2) for _ in range(2)))
    learner = LEARNERS["protonet"].build(spec, backbone=lambda shape: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten()))
    forward, pixels = 2 * 8 * 3 * 9 * 36, 8 * 3 * 36
    counted = operations(learner, tasks, spec)
    assert counted.convolutions == 2 * forward, "outputs, and the slope of the kernel"
    assert 0 < counted.products < 20 * 4 * 2 * pixels
    assert Operations(10, 40).share_of_limit(Operations(100, 200), seconds=2) == pytest.approx((0.1 + 0.2) / 2)
    assert Operations(10, 40).share_of_limit(Operations(100, 200), seconds=0.1) == 1


def test_there_is_free_memory():
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_a_large_tensor_that_is_freed_goes_back_to_the_system():
    """In a process of its own, for which the rule is new."""
    code = """if True:
        import torch
        from handful.engine.cost import give_back_memory, resident_bytes

        def grown(size):
            torch.ones(size)  # by which glibc learns to keep tensors of that size
            before = resident_bytes()
            for _ in range(4):
                large = torch.ones(size)
                kept.append(torch.ones(3000))  # lies behind it
                del large
            return (resident_bytes() - before) // 2**20

        kept = []
        print(grown(2**22))  # 16 MiB each
        give_back_memory()
        print(grown(3 * 2**21))  # too large for the holes that the others left
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    without, given_back = map(int, done.stdout.split())
    assert given_back < 8 < without


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_what_a_batch_frees_is_kept_for_the_next_one():
    """In a process of its own, for which the rule is new, and in a thread, whose memory is apart."""
    code = """if True:
        import resource, threading
        import torch
        from handful.engine.cost import keep_memory

        def taken_anew():
            for batch in range(30):
                if batch == 20:
                    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
                tensors = [torch.ones(320_000) for _ in range(3)]  # 1.3 MB each
                del tensors
            pages.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

        def in_a_thread():
            thread = threading.Thread(target=taken_anew)
            thread.start()
            thread.join()

        pages = []
        in_a_thread()
        keep_memory()
        in_a_thread()
        print(*pages)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    without, kept = map(int, done.stdout.split())
    assert kept < 500 < 5000 < without


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells the largest size of a process on Linux alone")
def test_peak_memory_is_what_a_function_took_even_if_it_gave_it_back():
    taken = peak_bytes(lambda: torch.ones(16 * 2**20).sum())  # 64 MiB
    assert 60 * 2**20 < taken < 80 * 2**20
    assert peak_bytes(lambda: None) < 8 * 2**20


@pytest.mark.parametrize("learner", [CAVIA, MAML, ImplicitMAML])
def test_operations_are_counted_as_pytorch_counts_them(learner):
    waves = Sine().with_sizes(shot=4, query_shot=3)
    learner = learner.build(waves.spec, backbone="mlp", backbone_options={"hidden": (8,)})
    tasks, spec = waves.batch(range(1)), waves.spec
    counted = operations(learner, tasks, spec)
    with suppress(RuntimeError), FlopCounterMode(display=False) as counter:  # its hooks fail for CAVIA
        MetaGradient(learner, Plan("loop"))(tasks, spec)
        assert counted.total == counter.get_total_flops()
    assert counted.total > 1000


def test_a_network_of_parametrized_layers_is_counted():
    waves = Sine().with_sizes(shot=4, query_shot=3)
    learner = R2D2.build(waves.spec, backbone=lambda shape: weight_norm(nn.Linear(*shape, 8)))
    assert operations(learner, waves.batch(range(1)), waves.spec).total > 1000


def test_a_count_that_fails_ends_nothing(monkeypatch):
    waves = Sine().with_sizes(shot=4, query_shot=3)
    learner = MAML.build(waves.spec, backbone="mlp", backbone_options={"hidden": (8,)})
    monkeypatch.setattr(learner, "meta_loss", lambda *task: 1 / 0)
    assert operations(learner, waves.batch(range(1)), waves.spec) is None
