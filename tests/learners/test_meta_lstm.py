"""The meta-learner LSTM: its steps against numpy's, its start against gradient descent, and what training gains."""

import numpy as np
import pytest
import torch

from contracts.problems import ROWS, VALUES
from contracts.test_learners import check_meta_gradient
from handful import evaluate, meta_train
from handful.engine.meta_gradient import meta_gradient
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.functional.differentiation import gradient
from handful.learners.meta_lstm import FACTOR, KEEPING, Gates, MetaLSTM, encoded
from handful.tasks.sine import Sine
from handful.types import stack

WIDTH = 3
NETWORK = ("first.weight", "first.bias", "second.weight", "forget.weight", "forget.bias", "enter.weight", "enter.bias")


def network() -> dict[str, torch.Tensor]:
    """Random weights of the LSTM and the gates."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4 * WIDTH, 4), (4 * WIDTH,), (4 * WIDTH, WIDTH), *2 * [(1, WIDTH + 2), (1,)]]
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return dict(zip(NETWORK, drawn, strict=True))


def encoded_by_numpy(number: float) -> list[float]:
    if abs(number) >= np.exp(-10):
        return [np.log(abs(number)) / 10, np.sign(number)]
    return [-1.0, np.exp(10) * number]


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def step_by_numpy(own, weight, gradient, loss, memory):
    """One weight's step, as the paper writes it."""
    hidden, cell, forget, enter = memory
    seen = np.array(encoded_by_numpy(gradient) + encoded_by_numpy(loss))
    sums = (own["first.weight"] @ seen + own["first.bias"] + own["second.weight"] @ hidden).reshape(4, WIDTH)
    cell = sigmoid(sums[1] + 1) * cell + sigmoid(sums[0]) * np.tanh(sums[2])
    hidden = sigmoid(sums[3]) * np.tanh(cell)
    forget = sigmoid(own["forget.weight"][0] @ [*hidden, weight, forget] + own["forget.bias"][0])
    enter = sigmoid(own["enter.weight"][0] @ [*hidden, weight, enter] + own["enter.bias"][0])
    return forget * weight - enter * gradient, (hidden, cell, forget, enter)


def test_two_steps_are_those_of_the_paper_weight_by_weight():
    slopes = np.array([[0.5, -2.0, 1e-6, 0.0, -3e-3], [-0.1, 40.0, -2e-6, 0.0, 1e-5]])
    losses, start = (2.5, 1e-7), np.array([0.3, -1.2, 0.0, 2.0, 0.7])
    rule, own = Gates(network()), {name: weight.numpy() for name, weight in network().items()}
    weights = {"a": torch.tensor(start[:2]).view(2, 1), "b": torch.tensor(start[2:])}
    weights[FACTOR] = torch.ones((), dtype=torch.float64)
    state, expected = rule.start(weights), start
    memories = [(np.zeros(WIDTH), np.zeros(WIDTH), 1.0, 0.0)] * 5
    for row, loss in zip(slopes, losses, strict=True):
        gradients = {"a": torch.tensor(row[:2]).view(2, 1), "b": torch.tensor(row[2:]), FACTOR: torch.tensor(loss)}
        weights, state = rule.step(weights, gradients, state)
        steps = [step_by_numpy(own, *each) for each in zip(expected, row, [loss] * 5, memories, strict=True)]
        expected, memories = np.array([weight for weight, _ in steps]), [memory for _, memory in steps]
        np.testing.assert_allclose(torch.cat([weights["a"].flatten(), weights["b"]]).numpy(), expected, rtol=1e-9)
        assert weights["a"].shape == (2, 1)
        assert weights[FACTOR] == 1


def test_numbers_are_encoded_without_a_jump_and_with_finite_slopes():
    edge = np.exp(-10)
    numbers = torch.tensor([0.0, edge * (1 - 1e-9), edge * (1 + 1e-9), -edge, 1.0, -1e30], dtype=torch.float64)
    numbers.requires_grad_()
    pairs = encoded(numbers)
    expected = [encoded_by_numpy(number) for number in numbers.tolist()]
    np.testing.assert_allclose(pairs.detach().numpy(), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(pairs[1].detach(), pairs[2].detach(), atol=1e-8)
    pairs.sum().backward()
    assert numbers.grad.isfinite().all()


def descent_by_hand(learner, task, steps, rate, kept):
    """Gradient descent with decay on the mean squared error of a linear network of two layers and a head."""
    names = ["backbone.layers.0.weight", "backbone.layers.0.bias", "backbone.layers.1.weight", "backbone.layers.1.bias"]
    names += ["head.weight", "head.bias"]
    parameters = dict(learner.named_parameters())
    weights = [parameters[name].detach().clone().requires_grad_() for name in names]
    for _ in range(steps):
        hidden = torch.relu(task.support.inputs @ weights[0].mT + weights[1])
        outputs = torch.relu(hidden @ weights[2].mT + weights[3]) @ weights[4].mT + weights[5]
        slopes = torch.autograd.grad((outputs - task.support.targets).square().mean(), weights)
        weights = [(kept * w - rate * s).detach().requires_grad_() for w, s in zip(weights, slopes, strict=True)]
    return dict(zip(names, weights, strict=True))


def test_a_fresh_one_is_gradient_descent_with_a_little_decay():
    learner = MetaLSTM.build(VALUES.spec, backbone="mlp", backbone_options=VALUES.options, inner_lr=0.03).double()
    task = VALUES.task()
    state = learner.adapt(task.support, VALUES.spec)
    expected = descent_by_hand(learner, task, steps=5, rate=0.03, kept=float(sigmoid(KEEPING)))
    assert set(state["weights"]) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(state["weights"][name], weight, rtol=1e-6, atol=1e-8)  # built in single precision


def test_the_slope_along_the_factor_is_the_loss():
    learner, task = VALUES.learner(MetaLSTM), VALUES.task()
    weights, slow = learner._start(VALUES.spec)
    context = {"slow": slow, "support": task.support}
    weights[FACTOR] = torch.ones((), dtype=torch.float64)
    slopes, _ = gradient(learner._multiplied_loss, weights, context)
    torch.testing.assert_close(slopes[FACTOR], learner._inner_loss(weights, context)[0])
    plain, _ = gradient(learner._inner_loss, weights, context)
    for name in learner.fast:
        torch.testing.assert_close(slopes[name], plain[name])


def by_hand(learner, task, *, first_order):
    """The query's loss after the steps, in a plain loop of autograd."""
    rule, (weights, slow) = Gates(dict(learner.rule.named_parameters())), learner._start(VALUES.spec)
    one = torch.ones((), dtype=torch.float64)
    state = rule.start(weights | {FACTOR: one})
    for _ in range(learner.inner_steps):
        loss, _ = learner._inner_loss(weights, {"slow": slow, "support": task.support})
        slopes = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()), create_graph=True), strict=True))
        told = slopes | {FACTOR: loss}
        if first_order:
            told = {name: slope.detach() for name, slope in told.items()}
        moved, state = rule.step(weights | {FACTOR: one}, told, state)
        weights = {name: moved[name] for name in weights}
    return learner._query_loss(weights, {}, task.query)


def test_first_order_takes_gradients_and_losses_for_constants():
    task, found = VALUES.task(), {}
    for first_order in (False, True):
        learner = VALUES.learner(MetaLSTM, first_order=first_order, hidden=3)
        expected = by_hand(learner, task, first_order=first_order)
        expected.backward()
        for plan in (Plan("loop"), Plan("vmap", memory="recompute")):
            losses, gradients = meta_gradient(learner, stack([task]), VALUES.spec, plan=plan)
            torch.testing.assert_close(losses[0], expected.detach())
            for name, parameter in learner.named_parameters():
                torch.testing.assert_close(gradients[name], parameter.grad)
        found[first_order] = gradients
    for name in ("head.weight", "backbone.layers.0.weight", "rule.forget.weight"):
        assert not torch.allclose(found[True][name], found[False][name]), name


def test_its_meta_gradient_is_exact_with_a_start_for_each_class_too():
    check_meta_gradient(ROWS.learner(MetaLSTM, head="slots", hidden=3, inner_steps=3), ROWS, plan=Plan("vmap"))


@pytest.mark.parametrize("option", [{"hidden": 0}, {"inner_steps": 0}, {"inner_lr": 0.0}, {"inner_lr": 1.0}], ids=str)
def test_options_that_cannot_be_are_refused(option):
    with pytest.raises(UserError, match=next(iter(option))):
        VALUES.learner(MetaLSTM, **option)


@pytest.mark.slow
def test_training_lowers_the_error_and_moves_the_gates():
    waves = Sine()
    learner = MetaLSTM.build(waves.spec, backbone="mlp", backbone_options={"hidden": (20, 20)}, inner_lr=0.02)
    fresh = {name: weight.detach().clone() for name, weight in learner.rule.named_parameters()}
    before = evaluate(learner, waves.split("test"), tasks=100).score.mean
    meta_train(learner, waves, steps=70, outer_lr=0.01, validation_tasks=20, plan="vmap")
    assert evaluate(learner, waves.split("test"), tasks=100).score.mean < 0.75 * before
    for name, weight in learner.rule.named_parameters():
        assert not torch.equal(weight, fresh[name]), name
