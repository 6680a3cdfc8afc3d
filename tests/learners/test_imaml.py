"""The implicit meta-gradient against a closed form, and against differentiating through all steps."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from contracts.problems import IMAGES, ROWS, VALUES, Problem
from handful.engine.cost import graph_bytes
from handful.engine.meta_gradient import meta_gradient
from handful.engine.plan import Plan
from handful.evaluation.scoring import evaluate
from handful.functional.inner_loop import SGD, descend
from handful.learners.imaml import ImplicitMAML
from handful.tasks.sine import Sine
from handful.training.loop import meta_train
from handful.types import stack

LINEAR = Problem("linear", VALUES.spec, "raw", normalizes=False)
"""Raw inputs, so that the head is all there is: the inner problem is a ridge regression toward the start."""


@pytest.mark.parametrize("plan", ["loop", "vmap", "loop+recompute"])
def test_on_a_ridge_regression_the_gradient_is_the_exact_one_in_closed_form(plan):
    pull = 0.7
    learner = LINEAR.learner(ImplicitMAML, inner_steps=250, inner_lr=0.2, pull=pull, solver_steps=12)
    task = LINEAR.task()
    start = torch.cat([learner.head["weight"].detach().mT, learner.head["bias"].detach().unsqueeze(0)])  # (4, 2)
    (x, y), (query_x, query_y) = (
        (torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1), targets) for inputs, targets in task
    )
    hessian = 2 * x.mT @ x / y.numel()
    system = hessian + pull * torch.eye(4, dtype=torch.float64)
    end = torch.linalg.solve(system, 2 * x.mT @ y / y.numel() + pull * start)
    errors = query_x @ end - query_y
    exact = pull * torch.linalg.solve(system, 2 * query_x.mT @ errors / errors.numel())
    losses, gradients = meta_gradient(learner, stack([task]), LINEAR.spec, plan=Plan.parse(plan))
    torch.testing.assert_close(losses[0], errors.square().mean(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradients["head.weight"], exact[:3].mT, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(gradients["head.bias"], exact[3], rtol=1e-8, atol=1e-9)
    state = learner.adapt(task.support, LINEAR.spec)
    torch.testing.assert_close(state["weights"]["head.weight"], end[:3].mT, rtol=1e-9, atol=1e-10)


def unrolled(learner, task, spec):
    """The meta-gradient through every step of the same descent."""
    start, slow = learner._start(spec)
    context = {"slow": slow, "support": task.support, "query": task.query, "start": start}
    end, _ = descend(learner._pulled_loss, start, context, rule=SGD(learner.inner_lr), steps=learner.inner_steps)
    parameters = {name: value for name, value in learner.named_parameters() if value.requires_grad}
    slopes = torch.autograd.grad(learner._outer_loss(end, context)[0], list(parameters.values()))
    return dict(zip(parameters, slopes, strict=True))


def smooth(input_shape):
    """Without kinks, at which descent would go to and fro."""
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4), nn.Tanh())


@pytest.mark.parametrize(
    "problem", [replace(VALUES, backbone=smooth, options={}), replace(ROWS, backbone=smooth)], ids=str
)
@pytest.mark.slow
def test_with_many_steps_it_agrees_with_the_gradient_through_all_of_them(problem):
    task = problem.task(seed=2)
    learner = problem.learner(ImplicitMAML, inner_steps=200, inner_lr=0.05, pull=4.0, solver_steps=40)
    expected = unrolled(learner, task, problem.spec)
    _, gradients = meta_gradient(learner, stack([task]), problem.spec, plan=Plan("vmap"))
    first_order = meta_gradient(
        problem.learner(ImplicitMAML, inner_steps=200, inner_lr=0.05, pull=4.0, solver_steps=1),
        stack([task]),
        problem.spec,
        plan=Plan("vmap"),
    )[1]
    size = sum(slope.square().sum() for slope in expected.values()).sqrt()

    def error(own):
        return float(sum((own[name] - slope).square().sum() for name, slope in expected.items()).sqrt() / size)

    assert error(gradients) < 1e-3
    assert error(first_order) > 10 * error(gradients)


def test_memory_does_not_grow_with_inner_steps():
    task = IMAGES.task()

    def kept(steps):
        learner = IMAGES.learner(ImplicitMAML, inner_steps=steps)
        return graph_bytes(lambda: meta_gradient(learner, stack([task]), IMAGES.spec, plan=Plan("loop")))

    assert kept(12) <= 1.01 * kept(2)


@pytest.mark.slow
def test_a_short_meta_training_beats_the_untrained_start():
    waves = Sine().with_sizes(shot=10)
    options = {"backbone": "mlp", "backbone_options": {"hidden": (32, 32)}, "inner_lr": 0.02, "inner_steps": 5}
    learner = ImplicitMAML.build(waves.spec, **options)
    before = evaluate(learner, waves.split("test"), tasks=60).score.mean
    meta_train(learner, waves, steps=60, outer_lr=1e-2, validate_every=60, validation_tasks=20, plan="vmap")
    assert evaluate(learner, waves.split("test"), tasks=60).score.mean < 0.9 * before


@pytest.mark.slow
def test_at_its_defaults_it_learns_waves_whose_amplitude_is_5():
    waves = Sine()
    learner = ImplicitMAML.build(waves.spec, backbone="mlp", backbone_options={"hidden": (16, 16)})
    before = evaluate(learner, waves.split("test"), tasks=50).score.mean
    meta_train(learner, waves, steps=10, outer_lr=1e-2, validate_every=10, validation_tasks=10, plan="vmap")
    assert evaluate(learner, waves.split("test"), tasks=50).score.mean < before
