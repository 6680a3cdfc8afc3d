"""A plan is measured, right, and lean enough."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from contracts.problems import Unbatchable
from handful.engine import planner
from handful.engine.cost import training_limit
from handful.engine.meta_gradient import MetaGradient
from handful.engine.over_tasks import count_of
from handful.engine.plan import MEMORIES, Plan
from handful.engine.planner import (
    NO_DIFFERENCE,
    NO_TIME,
    PlanTrial,
    _Problem,
    batches,
    choose,
    footprint,
    measure,
    planned,
    rule,
    shortage,
)
from handful.errors import UserError
from handful.learners.maml import MAML
from handful.learners.prototypical import PrototypicalNetwork
from handful.types import Examples, Task, TaskSpec

SPEC = TaskSpec("regression", (3,), 1)


def tasks(count=6, n=5, d=3):
    generator = torch.Generator().manual_seed(0)

    def examples():
        return Examples(torch.randn(count, n, d, generator=generator), torch.randn(count, n, 1, generator=generator))

    return Task(examples(), examples())


def maml(backbone="mlp", **options):
    return MAML.build(SPEC, backbone=backbone, inner_steps=options.pop("inner_steps", 2), **options).train()


class NativeNorm(nn.Module):
    """Layer normalization as a function, which no conversion sees; its second derivative is wrong under `vmap`."""

    def __init__(self, input_shape):
        super().__init__()
        self.linear = nn.Linear(input_shape[0], 4)
        self.weight, self.bias = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.zeros(4))

    def forward(self, inputs):
        return torch.tanh(F.layer_norm(self.linear(inputs), (4,), self.weight, self.bias))


@pytest.fixture
def clock(monkeypatch):
    """A clock that meta-gradients move on, by a second for each task, and a look at it by a little.

    at_once: the seconds of all tasks under `vmap`, if they are not as many.
    """
    clock = SimpleNamespace(now=0.0, at_once=None)

    def look():
        clock.now += 0.1
        return clock.now

    class Timed(MetaGradient):
        def __call__(self, tasks, *arguments):
            clock.now += clock.at_once if clock.at_once and self.plan.backend == "vmap" else count_of(tasks)
            return super().__call__(tasks, *arguments)

    monkeypatch.setattr(planner, "MetaGradient", Timed)
    monkeypatch.setattr(planner, "time", SimpleNamespace(perf_counter=look))
    return clock


def test_no_plan_begins_that_would_end_too_late(clock):
    """But the first one, which tells how long a meta-step takes."""
    plans = [Plan("loop"), Plan("vmap"), Plan("loop", memory="sqrt")]
    tried = measure(maml(), tasks(2), SPEC, plans=plans, seconds=60.0, within=1.0)
    assert [bool(trial.times) for trial in tried] == [True, False, False]
    assert {trial.note for trial in tried[1:]} == {NO_TIME}
    clock.now = 0.0
    tried = measure(maml(), tasks(2), SPEC, plans=plans, seconds=60.0, within=30.0)
    assert all(len(trial.times) > 2 for trial in tried)
    assert 25 < clock.now < 30, "and nothing is waited for"


def test_the_fastest_plan_is_chosen_and_the_first_of_those_that_are_as_fast():
    trials = [
        PlanTrial(Plan("vmap", threads=1), None, [9.0, 1.04]),
        PlanTrial(Plan("vmap"), None, [9.0, 1.0, 1.0, 7.0]),
        PlanTrial(Plan("loop"), None, [9.0, 5.0]),
        PlanTrial(Plan("chunks", 2), None, note="no batching rule"),
    ]
    assert choose(trials) == Plan("vmap", threads=1)
    assert choose(trials[1:]) == Plan("vmap")
    assert trials[1].seconds == 1.0
    assert trials[3].seconds == math.inf


IMAGES = TaskSpec("classification", (1, 16, 16), 2)


def photos(count=4):
    return Task(*(Examples(torch.rand(count, 4, 1, 16, 16), torch.arange(4).expand(count, 4) % 2) for _ in range(2)))


def test_measuring_tries_each_back_end_and_never_leaves_out_the_loop(clock):
    clock.at_once = 2.0
    trials = measure(maml(), tasks(), SPEC, seconds=60.0)
    assert {trial.plan.backend for trial in trials if trial.times} >= {"loop", "vmap"}
    assert any(trial.plan == Plan("loop") and trial.times for trial in trials)
    assert choose(trials).backend == "vmap"


def test_times_are_of_the_whole_meta_batch(clock):
    """Measured on some of the tasks where they take long."""
    for count in (2, 64):
        clock.now = 0.0
        [trial] = measure(maml(), tasks(count), SPEC, seconds=30.0, plans=[Plan("loop")])
        assert trial.seconds == pytest.approx(count, rel=0.1)
        assert clock.now < 60


@pytest.mark.parametrize("backbone", [NativeNorm, Unbatchable], ids=lambda cls: cls.__name__)
def test_vmap_is_left_out_where_it_is_wrong_or_refused(backbone):
    learner = maml(backbone)
    reason = batches(learner, tasks(), SPEC)
    assert reason is not True
    trials = measure(learner, tasks(), SPEC, seconds=0.1)
    assert choose(trials).backend == "loop"
    assert all(trial.note == reason for trial in trials if trial.plan.backend != "loop")
    plan, measured, _ = planned(learner, tasks(), SPEC, steps=1)
    assert plan == Plan("loop")
    assert not measured


def test_what_diverges_is_left_to_the_training_to_tell():
    assert batches(maml(inner_lr=1e30, inner_steps=9), tasks(), SPEC) is True


def test_a_converted_network_batches():
    assert batches(maml(lambda shape: nn.Sequential(nn.Linear(*shape, 4), nn.LayerNorm(4), nn.Tanh())), tasks(), SPEC)


def test_a_short_training_is_not_measured_and_a_long_one_is(monkeypatch):
    monkeypatch.setattr(planner, "measure", partial(measure, seconds=0.1))
    monkeypatch.setattr("handful.engine.meta_gradient.compiled", lambda function, example: function)
    assert planned(maml(), tasks(), SPEC, steps=1)[:2] == (Plan("vmap"), [])
    plan, trials, _ = planned(maml(), tasks(), SPEC, steps=10**6)
    assert plan in [trial.plan for trial in trials]


def test_long_trainings_of_dense_networks_try_to_compile_and_say_so(monkeypatch):
    monkeypatch.setattr("handful.engine.meta_gradient.compiled", lambda function, example: function)
    said = []
    trials = measure(maml(), tasks(), SPEC, seconds=0.1, steps=10**7, say=said.append)
    assert trials[-1].plan.compiled
    assert "Compiling" in said[0]
    assert not any(trial.plan.compiled for trial in trials[:-1])


def test_the_rule_knows_convolutions():
    images = TaskSpec("classification", (1, 16, 16), 2)
    threads = torch.get_num_threads()
    assert rule(PrototypicalNetwork.build(images), 1) == Plan("loop")
    assert rule(PrototypicalNetwork.build(images), 99) == Plan("loop", threads=threads if threads > 1 else 0)
    assert rule(maml(), 99) == Plan("vmap")


def test_the_memory_mode_follows_from_the_limit():
    learner = maml(inner_steps=20, backbone_options={"hidden": (50,)})
    sizes = {memory: footprint(learner, tasks(), SPEC, None, memory) for memory in MEMORIES}
    assert sizes["sqrt"] < sizes["recompute"] < sizes["whole"]
    for mode in ("whole", "recompute", "sqrt"):
        limit = 6 * 2 * sizes[mode] + 100
        plans = [trial.plan for trial in measure(learner, tasks(), SPEC, seconds=0.05, limit=limit)]
        assert Plan("vmap", memory=mode) in plans or Plan("vmap", threads=1, memory=mode) in plans
    trials = measure(learner, tasks(), SPEC, seconds=0.05, limit=2 * sizes["sqrt"])
    assert choose(trials).backend == "loop"
    assert "would take" in next(trial.note for trial in trials if trial.plan.backend == "vmap")


@pytest.mark.parametrize(
    ("plan", "bytes_"),
    [
        (Plan("loop"), 10),
        (Plan("loop", threads=4), 40),
        (Plan("loop", threads=20), 80),
        (Plan("vmap", memory="recompute"), 2 * 8 * 3),
        (Plan("chunks", 3, threads=2), 2 * 2 * 3 * 10),
    ],
    ids=str,
)
def test_predicted_memory_counts_the_tasks_at_once(plan, bytes_, monkeypatch):
    sizes = {"whole": 10, "recompute": 3, "sqrt": None}
    monkeypatch.setattr(planner, "footprint", lambda learner, tasks, spec, noise, memory, limit: sizes[memory])
    problem = _Problem(maml(), tasks(8), SPEC)
    assert problem.predicted(plan) == bytes_
    assert problem.predicted(Plan("vmap", memory="sqrt")) is None


@pytest.mark.parametrize(("size", "told"), [(10, True), (None, False), (2**40, False)])
def test_a_memory_mode_makes_no_difference_only_where_sizes_are_known(size, told, monkeypatch):
    """Beyond the limit nothing is counted to its end."""
    monkeypatch.setattr(planner, "footprint", lambda *arguments: size)
    plans = [Plan("loop"), Plan("loop", memory="recompute")]
    trials = measure(maml(), tasks(2), SPEC, plans=plans, seconds=0.01, limit=2**30)
    assert (trials[1].note == NO_DIFFERENCE) is told


def test_a_memory_mode_that_fails_is_left_out(monkeypatch):
    """As where a network does not take its steps again; what the plain loop raises is raised."""

    class Failing(MetaGradient):
        def __call__(self, *arguments):
            if self.plan.memory == failing:
                raise RuntimeError("modified by an inplace operation")
            return super().__call__(*arguments)

    monkeypatch.setattr(planner, "MetaGradient", Failing)
    monkeypatch.setattr(planner, "footprint", lambda *arguments: None)
    plans, failing = [Plan("loop"), Plan("loop", memory="recompute")], "recompute"
    trials = measure(maml(), tasks(2), SPEC, plans=plans, seconds=0.01)
    assert trials[0].times
    assert "inplace operation" in trials[1].note
    failing = "whole"
    with pytest.raises(RuntimeError, match="inplace operation"):
        measure(maml(), tasks(2), SPEC, plans=plans, seconds=0.01)


def test_a_graph_that_does_not_fit_is_not_finished():
    """A process that is killed for its memory raises no exception."""
    learner = maml(inner_steps=20, backbone_options={"hidden": (50,)})
    whole, stopped = (footprint(learner, tasks(), SPEC, None, "whole", limit) for limit in (None, 20_000))
    assert 20_000 < stopped < whole
    problem = _Problem(learner, tasks(), SPEC, limit=whole - 1)
    assert problem.fitting(Plan("loop")).memory == "recompute"
    assert problem.fitting(Plan("vmap")).memory == "sqrt"


def test_what_fits_under_no_plan_is_told(monkeypatch):
    learner = maml(inner_steps=20, backbone_options={"hidden": (50,)})
    sizes = {memory: footprint(learner, tasks(), SPEC, None, memory) for memory in MEMORIES}
    for limit, fits in ((sizes["whole"], True), (min(sizes.values()), True), (min(sizes.values()) - 1, False)):
        monkeypatch.setattr(planner, "training_limit", lambda device, limit=limit: limit)
        told = shortage(learner, tasks(), SPEC)
        assert (told is None) == fits
    assert told.startswith("a step on one task takes ")
    monkeypatch.setattr(planner, "footprint", lambda *arguments: None)
    assert shortage(learner, tasks(), SPEC) is None, "it cannot be counted"


def test_the_comparison_with_the_loop_keeps_to_the_limit(monkeypatch):
    """In double precision and under `vmap` two tasks take eight times what one takes: with photos 3 GB."""
    monkeypatch.setattr(planner, "footprint", lambda *arguments: 2**30)
    monkeypatch.setattr(planner, "batches", lambda *arguments, **options: True)
    tight, wide = (_Problem(maml(), tasks(2), SPEC, limit=limit) for limit in (2**33 - 1, 2**33))
    assert tight.batched == "not tried: to compare it with the loop takes 8.0 GiB of 8.0"
    assert wide.batched is True


@pytest.mark.parametrize(("limit", "threads"), [(400, 4), (399, 3), (200, 2), (199, 0), (1, 0)])
def test_a_loop_runs_on_as_many_threads_as_fit_into_the_limit(limit, threads, monkeypatch):
    monkeypatch.setattr(planner, "footprint", lambda *arguments: 100)
    assert _Problem(maml(), tasks(8), SPEC, limit=limit).fitting(Plan("loop", threads=4)).threads == threads


@pytest.mark.slow
def test_a_training_keeps_to_its_limit_whatever_is_free(monkeypatch):
    """With photos of 64 pixels it grew to 3.6 GB."""
    monkeypatch.setattr("handful.engine.cost.free_bytes", lambda device: 2**50)
    assert training_limit(torch.device("cpu")) < 2**30 < training_limit(torch.device("cuda"))
    limits = []

    def footprint_of(learner, tasks, spec, noise, memory, limit):
        limits.append(limit)
        return 300 * 2**20

    monkeypatch.setattr(planner, "footprint", footprint_of)
    monkeypatch.setattr(planner, "cores", lambda: 4)
    plan, trials, grown = planned(PrototypicalNetwork.build(IMAGES), photos(), IMAGES, steps=10**6)
    assert set(limits) == {training_limit(torch.device("cpu"))}
    assert all(trial.note.startswith("not tried") for trial in trials if trial.plan.backend != "loop")
    assert plan.backend == "loop"
    assert plan.threads <= 2
    assert grown == 1.5 * 300 * 2**20 * max(1, plan.threads)


def test_where_one_task_takes_long_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(planner, "SECONDS", 0.0)
    monkeypatch.setattr(planner, "measure", pytest.fail)
    assert planned(maml(), tasks(), SPEC, steps=10**6)[:2] == (Plan("loop"), [])


def test_what_the_loop_raises_is_raised():
    with pytest.raises(UserError, match="cannot adapt to 2"):
        measure(maml(), tasks(), TaskSpec("regression", (3,), 2), seconds=0.1)
