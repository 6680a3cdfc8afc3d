"""Reptile's meta-gradient against the paper's, computed by torch's own optimizers."""

import pytest
import torch
from torch.nn import functional as F

from contracts.problems import VALUES
from handful.engine.meta_gradient import meta_gradient
from handful.engine.plan import Plan
from handful.evaluation.scoring import evaluate
from handful.learners.reptile import Reptile
from handful.tasks.sine import Sine
from handful.training.loop import meta_train
from handful.types import stack

NAMES = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")


def trained_by_torch(learner, task, make):
    """The weights of a network of two layers and a head, trained on support and query; and the loss they end at."""
    parameters = dict(learner.named_parameters())
    names = [*(f"backbone.{name}" for name in NAMES), "head.weight", "head.bias"]
    weights = [parameters[name].detach().clone().requires_grad_() for name in names]
    inputs, targets = (torch.cat(pair) for pair in zip(*task, strict=True))

    def loss():
        features = F.relu(F.linear(F.relu(F.linear(inputs, *weights[:2])), *weights[2:4]))
        return (F.linear(features, *weights[4:]) - targets).square().mean()

    optimizer = make(weights)
    for _ in range(learner.inner_steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return dict(zip(names, weights, strict=True)), loss().item()


@pytest.mark.parametrize("plan", ["loop", "vmap", "chunks:2+recompute"])
@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_the_gradient_is_the_start_minus_the_weights_after_training(rule, plan):
    learner = VALUES.learner(Reptile, inner_rule=rule, inner_steps=4, inner_lr=0.02)
    make = {
        "adam": lambda weights: torch.optim.Adam(weights, lr=0.02, betas=(0.0, 0.999), eps=1e-4),
        "sgd": lambda weights: torch.optim.SGD(weights, lr=0.02),
    }[rule]
    tasks = [VALUES.task(seed=seed) for seed in (1, 2)]
    ends = [trained_by_torch(learner, task, make) for task in tasks]
    losses, gradients = meta_gradient(learner, stack(tasks), VALUES.spec, plan=Plan.parse(plan))
    assert losses.tolist() == pytest.approx([loss for _, loss in ends])
    parameters = dict(learner.named_parameters())
    assert set(gradients) == set(ends[0][0])
    for name, gradient in gradients.items():
        end = (ends[0][0][name] + ends[1][0][name]) / 2
        torch.testing.assert_close(gradient, (parameters[name] - end).detach(), rtol=1e-8, atol=1e-10)
        assert gradient.abs().sum() > 0


def test_adapting_trains_on_the_support_alone():
    learner, task = VALUES.learner(Reptile, inner_rule="sgd", inner_steps=3), VALUES.task()
    alone = task._replace(query=task.query._replace(inputs=task.query.inputs[:0], targets=task.query.targets[:0]))
    expected, _ = trained_by_torch(learner, alone, lambda weights: torch.optim.SGD(weights, lr=learner.inner_lr))
    state = learner.adapt(task.support, VALUES.spec)
    assert set(state["weights"]) == set(expected)
    for name, weight in state["weights"].items():
        torch.testing.assert_close(weight, expected[name].detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_short_meta_training_beats_the_untrained_start():
    waves = Sine().with_sizes(shot=10)
    options = {"backbone": "mlp", "backbone_options": {"hidden": (32, 32)}, "inner_lr": 0.02, "inner_steps": 5}
    learner = Reptile.build(waves.spec, **options)
    before = evaluate(learner, waves.split("test"), tasks=60).score.mean
    meta_train(learner, waves, steps=100, outer_lr=1e-2, validate_every=100, validation_tasks=20, plan="vmap")
    assert evaluate(learner, waves.split("test"), tasks=60).score.mean < 0.9 * before
