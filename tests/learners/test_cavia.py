"""CAVIA against its inner loop written by hand, and what its contexts are."""

import pytest
import torch
from torch.nn import functional as F

from contracts.problems import ROWS, VALUES
from contracts.test_learners import close, flatten
from handful.errors import UserError
from handful.evaluation.scoring import evaluate
from handful.learners.cavia import CAVIA
from handful.tasks.sine import Sine
from handful.training.loop import meta_train


def by_hand(learner, task):
    """Gradient steps on the context alone, from zero, with a network written out."""
    parts = learner.decoder
    width = parts.hidden.in_features

    def loss(context, examples):
        modulation = F.linear(context, parts.modulation.weight, parts.modulation.bias)
        scale, shift = modulation[:width], modulation[width:]
        hidden = F.relu(parts.hidden(learner.backbone(examples.inputs) * (1 + scale) + shift))
        return (parts.output(hidden) - examples.targets).square().mean()

    context = torch.zeros(learner.context, dtype=torch.float64, requires_grad=True)
    for _ in range(learner.inner_steps):
        (slope,) = torch.autograd.grad(loss(context, task.support), context, create_graph=True)
        context = context - learner.inner_lr * slope
    return loss(context, task.query), context


def test_context_loss_and_gradient_are_those_of_the_loop_written_by_hand():
    learner, task = VALUES.learner(CAVIA, inner_lr=0.1, inner_steps=3, context=5), VALUES.task()
    expected, context = by_hand(learner, task)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    loss = learner(task, VALUES.spec)
    torch.testing.assert_close(loss, expected)
    close(learner.adapt(task.support, VALUES.spec), {"context": context.unsqueeze(0)})
    own, hand = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    close(own, hand)


@pytest.mark.parametrize("way", [3, 5])
def test_the_state_is_a_few_numbers_for_each_class(way):
    learner = ROWS.learner(CAVIA, context=6)
    task = ROWS.task(way=way)
    spec = type(ROWS.spec)("classification", ROWS.spec.input_shape, way)
    flat = flatten(learner.adapt(task.support, spec))
    assert {name: tuple(leaf.shape) for name, leaf in flat.items()} == {"context": (way, 6)}


def test_no_class_number_is_special():
    """T15: renamed classes give renamed answers."""
    renamed = torch.tensor([2, 0, 1])
    learner, task = ROWS.learner(CAVIA), ROWS.task()
    support = task.support._replace(targets=renamed[task.support.targets])
    logits = learner.predict(learner.adapt(task.support, ROWS.spec), task.query.inputs).logits
    others = learner.predict(learner.adapt(support, ROWS.spec), task.query.inputs).logits
    assert logits.std(-1).min() > 0
    torch.testing.assert_close(others[:, renamed], logits, rtol=1e-10, atol=1e-12)


def test_a_short_meta_training_beats_the_untrained_start():
    waves = Sine().with_sizes(shot=10)
    options = {"backbone": "mlp", "backbone_options": {"hidden": (32, 32)}, "inner_lr": 0.3}
    learner = CAVIA.build(waves.spec, **options)
    before = evaluate(learner, waves.split("test"), tasks=60).score.mean
    meta_train(learner, waves, steps=150, outer_lr=1e-2, validate_every=150, validation_tasks=20, plan="vmap")
    assert evaluate(learner, waves.split("test"), tasks=60).score.mean < 0.6 * before


@pytest.mark.parametrize("options", [{"context": 0}, {"hidden": 0}])
def test_sizes_of_nothing_are_refused(options):
    with pytest.raises(UserError, match="of 1 or more"):
        ROWS.learner(CAVIA, **options)
