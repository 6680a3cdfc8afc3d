"""Reduced precision: networks compute in bfloat16, gradients are near those of float32, and nothing else changes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from contracts.problems import IMAGES, ROWS, VALUES, single
from evaluation.toys import Clusters
from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import Plan
from handful.engine.precision import _Autocast
from handful.errors import UserError
from handful.registry import LEARNERS
from handful.training.loop import Training, checked
from handful.training.settings import Settings

PLANS = [Plan("loop"), Plan("vmap"), Plan("loop", memory="recompute"), Plan("loop", threads=2)]


@pytest.mark.parametrize("plan", PLANS, ids=Plan.written)
@pytest.mark.parametrize(
    ("key", "problem"), [("protonet", IMAGES), ("maml", ROWS), ("r2d2", ROWS), ("bayesian-last-layer", VALUES)]
)
def test_the_meta_gradient_is_near_that_of_single_precision(key, problem, plan):
    learner, tasks = problem.learner(LEARNERS[key]).float(), single(problem.tasks(2))
    exact, reduced = (MetaGradient(learner, plan, precision)(tasks, problem.spec) for precision in ("fp32", "bf16"))
    assert not torch.equal(exact[0], reduced[0])
    assert torch.allclose(exact[0], reduced[0], rtol=0.05, atol=0.02)
    assert {slope.dtype for slope in reduced[1].values()} == {torch.float32}
    one, other = (torch.cat([slope.flatten() for slope in found[1].values()]) for found in (exact, reduced))
    assert float(nn.functional.cosine_similarity(one, other, dim=0)) > 0.95


class Notes(nn.Module):
    """A network that notes in which type it computes."""

    seen: list[torch.dtype] = []  # noqa: RUF012

    def __init__(self, input_shape):
        super().__init__()
        self.linear = nn.Linear(input_shape[0], 4)

    def forward(self, inputs):
        features = self.linear(inputs)
        self.seen.append(features.dtype)
        if float(inputs.detach().abs().sum()) > 1e6:
            raise ArithmeticError
        return features


def test_only_the_network_of_the_meta_gradient_computes_in_bfloat16():
    learner, tasks = LEARNERS["protonet"].build(ROWS.spec, backbone=Notes), single(ROWS.tasks(2))
    gradient = MetaGradient(learner, Plan("loop"), "bf16")
    Notes.seen.clear()
    gradient(tasks, ROWS.spec)
    assert set(Notes.seen) == {torch.bfloat16}
    huge = pytree.tree_map_only(torch.Tensor, lambda leaf: leaf * 10**6 if leaf.is_floating_point() else leaf, tasks)
    with pytest.raises(ArithmeticError):
        gradient(huge, ROWS.spec)
    Notes.seen.clear()
    MetaGradient(learner, Plan("loop"))(tasks, ROWS.spec)
    learner.adapt(pytree.tree_map(lambda leaf: leaf[0], tasks).support, ROWS.spec)
    assert set(Notes.seen) == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_threads_that_share_the_hooks_open_and_close_autocast_each_for_itself(monkeypatch):
    """One closes while another has begun to open; else it may be left in bfloat16, in which heads solve nothing."""
    within, begun, closed = (threading.Event() for _ in range(3))
    autocast = torch.autocast

    class Network(nn.Module):
        def forward(self, inputs):
            within.set()
            assert begun.wait(10)
            return inputs

    def opened(*arguments, **options):
        if within.is_set():  # the other thread, whose autocast is yet to begin
            begun.set()
            assert closed.wait(10)
        return autocast(*arguments, **options)

    monkeypatch.setattr(torch, "autocast", opened)
    network, inputs = Network(), torch.zeros(1)
    _Autocast(network)

    def first():
        network(inputs)
        left_open = torch.is_autocast_enabled("cpu")
        closed.set()
        return left_open

    def second():
        assert within.wait(10)
        network(inputs)
        return torch.is_autocast_enabled("cpu")

    with ThreadPoolExecutor(2) as pool:
        assert [one.result() for one in [pool.submit(first), pool.submit(second)]] == [False, False]


def test_meta_steps_of_a_training_take_the_precision_of_its_settings():
    tasks = Clusters()
    learner = LEARNERS["protonet"].build(tasks.spec, backbone=Notes)
    training = Training(learner, tasks, tasks, Settings(precision="bf16", plan="loop", meta_batch_size=1))
    Notes.seen.clear()
    training.advance()
    assert set(Notes.seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in learner.parameters()} == {torch.float32}


def test_bfloat16_is_for_cuda_alone():
    tasks = Clusters()
    learner = LEARNERS["protonet"].build(tasks.spec, backbone="mlp")
    for settings in ({}, {"device": "cpu"}):
        with pytest.raises(UserError, match=r"precision bf16 .* cuda"):
            checked(learner, tasks, tasks, settings | {"precision": "bf16"})
    with pytest.raises(UserError, match="fp32 or bf16, not 'fp16'"):
        checked(learner, tasks, tasks, {"precision": "fp16"})
