"""A function of one task over many tasks: the same result under every plan."""

import threading

import pytest
import torch
from torch import nn

from handful.engine.memory import out_of_memory
from handful.engine.over_tasks import chunks, count_of, over_tasks
from handful.engine.plan import Plan
from handful.engine.threads import cores, one_core_each, unfused_attention
from handful.functional.normalization import transforms
from handful.types import Examples, stack, take
from noted import noted

TREES = Examples(torch.arange(10.0).view(5, 2), torch.arange(5))


@pytest.mark.parametrize(
    ("plan", "sizes"),
    [
        (Plan("vmap"), [5]),
        (Plan("chunks", 2), [2, 2, 1]),
        (Plan("chunks", 9), [5]),
        (Plan("loop"), [None] * 5),
    ],
    ids=str,
)
def test_a_plan_splits_tasks_into_parts_of_its_size(plan, sizes):
    parts = list(chunks(TREES, plan))
    assert [None if single else len(part.inputs) for part, single in parts] == sizes
    joined = [part.inputs.unsqueeze(0) if single else part.inputs for part, single in parts]
    assert torch.equal(torch.cat(joined), TREES.inputs)
    assert plan.size(5) == max(size or 1 for size in sizes)


@pytest.mark.parametrize("plan", [Plan("vmap"), Plan("chunks", 2), Plan("loop")], ids=str)
def test_results_are_stacked_in_order_under_every_plan(plan):
    def function(one, factor):
        return {"sum": one.inputs.sum() * factor, "targets": one.targets + 1}

    result = over_tasks(function, (TREES, torch.arange(5.0)), plan)
    assert torch.equal(result["sum"], TREES.inputs.sum(-1) * torch.arange(5.0))
    assert torch.equal(result["targets"], TREES.targets + 1)


def test_arguments_that_are_none_stay_none():
    for plan in (Plan("loop"), Plan("chunks", 2)):
        assert all(noise is None for (_, noise), _ in chunks((TREES, None), plan))


def test_stacking_and_taking_are_each_others_inverse():
    parts = [take(TREES, index) for index in range(5)]
    again = stack(parts)
    assert isinstance(again, Examples)
    assert torch.equal(again.inputs, TREES.inputs)
    assert count_of(again) == 5
    assert torch.equal(take(TREES, slice(1, 3)).targets, torch.tensor([1, 2]))


def test_within_one_core_each_the_others_are_for_task_threads():
    before, available = torch.get_num_threads(), cores()
    with one_core_each(), one_core_each():
        assert torch.get_num_threads() == 1
        assert cores() == available
    assert torch.get_num_threads() == before
    assert cores() == available


def test_task_threads_run_parts_at_once_on_one_core_each_and_keep_the_order():
    met = threading.Barrier(2, timeout=20)

    def function(one):
        met.wait()  # two parts are in here together
        return one.inputs.sum() + torch.get_num_threads() - 1

    even = Examples(*(leaf[:4] for leaf in TREES))
    with torch.no_grad():
        result = over_tasks(function, (even,), Plan("loop", threads=2))
    assert torch.equal(result, even.inputs.sum(-1))


def test_a_task_thread_records_a_graph_only_if_the_caller_does():
    weight = torch.ones((), requires_grad=True)

    def function(one):
        return one.inputs.sum() * weight

    assert over_tasks(function, (TREES,), Plan("loop", threads=2)).requires_grad
    with torch.no_grad():
        assert not over_tasks(function, (TREES,), Plan("loop", threads=2)).requires_grad


class Branching(nn.Module):
    """Takes a branch by its inputs, which `vmap` refuses. calls: whether each call was under `vmap`."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, one):
        self.calls.append("Vmap" in transforms())
        return one.inputs * (2 if float(one.inputs.detach().sum()) > 0 else 3)


def test_what_vmap_refuses_of_a_learner_runs_one_by_one_with_a_warning():
    """Once: from then on `vmap` is not tried again."""
    learner, other = Branching(), Branching()
    with torch.no_grad():
        expected = over_tasks(learner, (TREES,), Plan("loop"))
        learner.calls.clear()
        with noted(r"Branching .*one task after another.*vmap refuses.*\.item\(\)"):
            assert torch.equal(over_tasks(learner, (TREES,), Plan("chunks", 2), learner), expected)
        assert learner.calls == [True] + 5 * [False]
        for plan in (Plan("chunks", 2), Plan("vmap")):
            learner.calls.clear()
            assert torch.equal(over_tasks(learner, (TREES,), plan, learner), expected)
            assert learner.calls == 5 * [False]
        with noted("Branching"):
            over_tasks(other, (TREES,), Plan("vmap"), other)


def test_of_no_learner_or_for_a_graph_the_error_of_vmap_is_raised():
    learner = Branching()
    with torch.no_grad(), pytest.raises(RuntimeError, match="vmap"):
        over_tasks(learner, (TREES,), Plan("vmap"))
    with pytest.raises(RuntimeError, match="vmap"):
        over_tasks(learner, (TREES,), Plan("vmap"), learner)
    assert learner.calls == [True, True]


class Failing(nn.Module):
    """Raises what is given for it: alone, and under `vmap`."""

    def __init__(self, alone, batched):
        super().__init__()
        self.alone, self.batched = alone, batched

    def forward(self, one):
        error = self.batched if "Vmap" in transforms() else self.alone
        if error:
            raise error
        return one.inputs


def test_an_error_of_the_network_is_the_one_that_it_raises_alone():
    learner = Failing(RuntimeError("a layer too narrow"), RuntimeError("vmap: a layer too narrow"))
    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"^a layer too narrow") as raised:
                over_tasks(learner, (TREES,), Plan("vmap"), learner)
            assert raised.value.__context__ is None
        learner.alone = learner.batched = None
        assert torch.equal(over_tasks(learner, (TREES,), Plan("vmap"), learner), TREES.inputs)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["a GPU's", "a CPU's", "a library's"],
)
def test_what_runs_out_of_memory_is_not_run_again(error):
    learner = Failing(None, error)
    with torch.no_grad(), pytest.raises(RuntimeError) as raised:
        over_tasks(learner, (TREES,), Plan("vmap"), learner)
    assert raised.value is error


def test_a_cpu_s_error_of_too_little_memory_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**16)
    assert out_of_memory(raised.value)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied (12x5 and 3x3)"))


def test_fused_attention_is_back_when_the_last_thread_has_left():
    before = torch.backends.cuda.flash_sdp_enabled()
    first, second = unfused_attention(), unfused_attention()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cuda.flash_sdp_enabled(), "the second one is still in"
    second.__exit__(None, None, None)
    assert torch.backends.cuda.flash_sdp_enabled() == before
