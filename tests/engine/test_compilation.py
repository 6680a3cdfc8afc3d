"""A compiled meta-step gives the same meta-gradient; one that cannot be compiled runs as it is."""

import pytest
import torch

from handful.engine.compilation import compiled
from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import Plan
from handful.learners.maml import MAML
from handful.types import Examples, Task, TaskSpec
from noted import noted

SPEC = TaskSpec("classification", (4,), 2)


def tasks(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def examples():
        inputs = torch.randn(count, 6, 4, generator=generator, dtype=torch.float64)
        return Examples(inputs, torch.arange(6).expand(count, 6) % 2)

    return Task(examples(), examples())


@pytest.mark.slow
def test_a_compiled_meta_step_is_the_loops():
    """With learned rates, on other tasks and weights than those that it was compiled with."""
    learner = MAML.build(SPEC, backbone="mlp", backbone_options={"hidden": (5,)}, learn_inner_lr=True).double().train()
    gradient = MetaGradient(learner, Plan("vmap", compiled=True))
    gradient(tasks(), SPEC)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(1.1)
    losses, slopes = gradient(tasks(seed=1), SPEC)
    expected_losses, expected = MetaGradient(learner, Plan("loop"))(tasks(seed=1), SPEC)
    torch.testing.assert_close(losses, expected_losses)
    for name, slope in expected.items():
        torch.testing.assert_close(slopes[name], slope, rtol=1e-9, atol=1e-11)


def test_the_graph_is_compiled_once_for_each_shape(monkeypatch):
    calls = []

    def counted(function, example):
        calls.append([tensor.shape for tensor in example])
        return function

    monkeypatch.setattr("handful.engine.meta_gradient.compiled", counted)
    gradient = MetaGradient(MAML.build(SPEC, backbone="raw", head="slots").double(), Plan("chunks", 2, compiled=True))
    for seed in range(3):
        gradient(tasks(5, seed), SPEC)
    assert len(calls) == 2, "one for chunks of two tasks, one for the last one"


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no compiler here")

    monkeypatch.setattr("torch._inductor.compile", refuse)
    with noted("could not be compiled and runs uncompiled .OSError: no compiler here"):
        double = compiled(lambda x: {"twice": 2 * x}, [torch.ones(2)])
    assert torch.equal(double(torch.ones(2))["twice"], torch.full((2,), 2.0))
