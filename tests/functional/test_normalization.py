"""Whose statistics normalize what: the three policies, and why the layer is our own."""

import copy

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F

from contracts.problems import Problem
from contracts.test_learners import check_meta_gradient
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.functional.normalization import MODES, BatchNorm, _Normalized, convert, fitting, recalibrate, transforms
from handful.functional.stateless import call, tensors
from handful.learners.maml import MAML
from handful.types import Examples, Task, TaskSpec


def inputs(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1


def layer(mode, channels=3):
    generator = torch.Generator().manual_seed(1)
    own = BatchNorm(channels, mode).double()
    with torch.no_grad():
        for tensor in (own.weight, own.bias, own.mean, own.variance):
            tensor.copy_(torch.rand(channels, generator=generator) + 0.5)
    return own.eval()


# Why it is our own


def through(normalize):
    """The slope, by `grad(vmap(grad(...)))`, of the losses of some tasks after an inner step; and as measured."""
    tasks, targets = inputs(4, 6, 3, seed=3), inputs(6, 3, seed=6)
    weights = {"linear": inputs(3, 3, seed=4) / 3, "scale": inputs(3, seed=7).exp(), "shift": inputs(3, seed=8)}
    directions = {name: inputs(*weight.shape, seed=9) for name, weight in weights.items()}

    def loss(own, task):
        outputs = torch.tanh(normalize(task @ own["linear"], own["scale"], own["shift"]))
        return (outputs - targets).square().mean()

    def after_a_step(own, task):
        gradients = grad(loss)(own, task)
        return loss({name: weight - 0.5 * gradients[name] for name, weight in own.items()}, task)

    gradients = grad(lambda own: vmap(after_a_step, (None, 0))(own, tasks).sum())(weights)
    slope = sum((gradients[name] * direction).sum() for name, direction in directions.items())
    sides = []
    for sign in (1, -1):
        shifted = {name: weight + sign * 1e-6 * directions[name] for name, weight in weights.items()}
        sides.append(sum(after_a_step(shifted, task) for task in tasks))
    return slope, (sides[0] - sides[1]) / 2e-6


def test_the_meta_gradient_through_our_layer_is_right_whatever_the_native_one_does(record_property):
    """In torch 2.13 `grad(vmap(grad(...)))` through `F.batch_norm` is off by some percent where its weight and bias
    differ from task to task, as fast weights do; where they are the same for all tasks it is right.

    Only ours has to be right: should torch mend its own, this passes as before, and the recorded error of the native
    layer (`--junit-xml`) says that this reason for a formula of our own is gone.
    """
    own = layer("transductive")

    def ours(x, weight, bias):
        return call(own, tensors(own) | {"weight": weight, "bias": bias}, x)

    def native(x, weight, bias):
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=own.epsilon)

    slope, measured = through(ours)
    torch.testing.assert_close(slope, measured, rtol=1e-7, atol=1e-9)
    native_slope, native_measured = through(native)
    torch.testing.assert_close(native_measured, measured, rtol=1e-7, atol=1e-9)
    record_property("error of the native layer", float(native_slope / measured - 1))


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 4), (6, 3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize(("mode", "training"), [("frozen", False), ("frozen", True), ("transductive", False)])
def test_our_formula_is_the_native_kernel(shape, mode, training):
    own, x = layer(mode).train(training), inputs(*shape).requires_grad_()
    fast = own(x)
    slow = vmap(own)(x.unsqueeze(0)).squeeze(0)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    for a, b in zip(
        *(torch.autograd.grad(y.pow(3).sum(), [x, own.weight, own.bias]) for y in (fast, slow)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (3, 3, 4, 4)], ids=str)
def test_first_and_second_derivatives_are_the_measured_ones(shape):
    """Of the outputs and of the statistics, with respect to inputs, weight and bias."""
    at = [inputs(*size, seed=seed).requires_grad_() for seed, size in enumerate((shape, (3,), (3,)))]

    def normalized(*tensors):
        return _Normalized.apply(*tensors, 1e-3)

    assert torch.autograd.gradcheck(normalized, at)
    assert torch.autograd.gradgradcheck(normalized, at)


def test_given_statistics_have_a_gradient():
    """Those of a support, by which a query is normalized; the native kernel has none."""
    own, x = layer("support"), inputs(6, 3)
    statistics = {name: tensor.clone().requires_grad_() for name, tensor in own.named_buffers()}
    values = tensors(own) | statistics
    gradients = torch.autograd.grad(call(own, values, x).pow(3).sum(), list(statistics.values()))
    assert all(part.abs().sum() > 0 for part in gradients)


@pytest.mark.parametrize("mode", ["frozen", "transductive"])
def test_one_value_per_channel_is_normalized_as_any_batch(mode):
    own, x = layer(mode).train(), inputs(1, 3)
    torch.testing.assert_close(own(x), own.bias.expand(1, 3))
    torch.testing.assert_close(vmap(own)(x.unsqueeze(0))[0], own(x))


# The policies


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [False, True])
def test_no_forward_pass_writes_a_buffer(mode, training):
    """T4."""
    own = layer(mode).train(training)
    before = copy.deepcopy(own.state_dict())
    own(inputs(6, 3, 4))
    with fitting(own):
        own(inputs(6, 3, 4))
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


@pytest.mark.parametrize("mode", ["frozen", "support"])
def test_a_query_alone_is_normalized_as_among_others(mode):
    """T1, T3."""
    own, x = layer(mode), inputs(6, 3, 4)
    torch.testing.assert_close(own(x[:1]), own(x)[:1], rtol=1e-13, atol=1e-13)


def test_transductive_normalizes_by_the_whole_batch():
    own, x = layer("transductive"), inputs(6, 3, 4)
    assert not torch.allclose(own(x[:1]), own(x)[:1])


@pytest.mark.parametrize("mode", ["frozen", "support"])
def test_changed_statistics_change_the_output(mode):
    """T2."""
    own, x = layer(mode), inputs(6, 3)
    before = own(x)
    with torch.no_grad():
        own.mean += 1
    assert not torch.allclose(own(x), before)
    expected = (x - own.mean) / (own.variance + own.epsilon).sqrt() * own.weight + own.bias
    torch.testing.assert_close(own(x), expected)


def test_support_statistics_are_used_while_fitting_and_handed_out():
    own, x = layer("support"), inputs(6, 3, 4)
    apart = inputs(2, 3, 4, seed=9)
    with fitting(own) as collect:
        outputs = own(x)
        statistics = collect()
    torch.testing.assert_close(outputs, layer("transductive")(x))
    torch.testing.assert_close(call(own, tensors(own) | statistics, apart), own_formula(own, apart, x))
    assert not own.fitted
    torch.testing.assert_close(own(x[:1]), own(x)[:1])


def own_formula(own, x, of):
    mean, variance = of.mean((0, 2), keepdim=True), of.var((0, 2), correction=0, keepdim=True)
    return (x - mean) / (variance + own.epsilon).sqrt() * own.weight[:, None] + own.bias[:, None]


def test_fitting_ends_after_an_error():
    own = layer("support")
    with pytest.raises(RuntimeError, match="must match"), fitting(own):
        own(inputs(6, 3) + inputs(2, 7))
    assert not own.fits
    assert not own.fitted


def test_an_unknown_policy_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="frozen, support, transductive"):
        BatchNorm(3, "running")


def test_running_transforms_are_named():
    seen = []

    def look(x):
        seen.append(transforms())
        return x.sum()

    look(inputs(2))
    vmap(grad(look))(inputs(2, 2))
    assert seen == [set(), {"Vmap", "Grad"}]


# Converting stock networks


class Residual(nn.Module):
    """A block as torchvision writes it: one layer used after the sum, one inside."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.relu(x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


def images(*layers):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def transformer():
    return nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Flatten())


STOCK = {
    "batch norm of rows": ((3,), lambda: nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU())),
    "batch norm of images": ((1, 8, 8), lambda: images(nn.BatchNorm2d(4), nn.ReLU())),
    "residual": ((1, 8, 8), lambda: images(nn.BatchNorm2d(4), Residual(), Residual())),
    "no affine": ((1, 8, 8), lambda: images(nn.BatchNorm2d(4, affine=False), nn.ReLU())),
    "no running statistics": ((1, 8, 8), lambda: images(nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())),
    "dropout": ((3,), lambda: nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Tanh())),
    "group norm": ((1, 8, 8), lambda: images(nn.GroupNorm(2, 4), nn.SiLU(), nn.Dropout2d())),
    "instance norm": ((1, 8, 8), lambda: images(nn.InstanceNorm2d(4, affine=True), nn.Tanh())),
    "layer norm": ((3,), lambda: nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Tanh())),
    "transformer": ((4, 6), transformer),
}


@pytest.mark.parametrize("normalization", MAML.normalizations)
@pytest.mark.parametrize("name", STOCK)
def test_stock_networks_adapt_in_second_order(name, normalization):
    """T12, T13."""
    shape, factory = STOCK[name]
    spec = TaskSpec("classification", shape, 3)
    learner = MAML.build(spec, backbone=factory(), inner_steps=2, normalization=normalization).double().train()

    def examples(each, seed):
        return Examples(inputs(2, 3 * each, *shape, seed=seed), torch.arange(3).repeat(2, each))

    problem = Problem(name, spec, factory)
    check_meta_gradient(learner, problem, plan=Plan("vmap"), tasks=Task(examples(2, 0), examples(3, 1)))


@pytest.mark.parametrize("name", STOCK)
def test_a_converted_network_answers_as_the_native_one_in_evaluation(name):
    shape, factory = STOCK[name]
    # Without running statistics the native layer is transductive even in evaluation (T3).
    mode = "transductive" if name == "no running statistics" else "frozen"
    native = factory().double().train()
    for seed in range(3):
        native(inputs(8, *shape, seed=seed))
    own = convert(copy.deepcopy(native), mode).eval()
    native.eval()
    torch.testing.assert_close(own(inputs(4, *shape)), native(inputs(4, *shape)))
    assert not any(isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.Dropout)) for m in own.modules())


def test_a_network_that_is_one_layer_and_a_layer_under_two_names_are_converted():
    assert isinstance(convert(nn.BatchNorm1d(3), "frozen"), BatchNorm)
    assert isinstance(convert(nn.Dropout(), "frozen"), nn.Identity)
    shared = nn.BatchNorm1d(3)
    twice = nn.Module()
    twice.first, twice.second, twice.inside = shared, shared, nn.Sequential(shared)
    convert(twice, "frozen")
    assert isinstance(twice.first, BatchNorm)
    assert twice.first is twice.second is twice.inside[0]


def test_conversion_keeps_numbers_type_and_mode():
    native = nn.BatchNorm1d(3, eps=1e-3).double().eval()
    native(inputs(4, 3))
    own = convert(nn.Sequential(native), "support")[0]
    assert own.weight.dtype == own.mean.dtype == torch.float64
    assert (own.epsilon, own.mode, own.training) == (1e-3, "support", False)
    again = convert(nn.Sequential(own), "frozen")[0]
    assert again is own
    assert again.mode == "frozen"


def test_weights_that_were_frozen_stay_frozen():
    native = nn.BatchNorm1d(3).requires_grad_(False)
    own = convert(nn.Sequential(native), "frozen")[0]
    assert not own.weight.requires_grad
    assert not own.bias.requires_grad


# The statistics of frozen layers


def test_recalibration_sets_the_mean_statistics_of_the_present_weights():
    network = nn.Sequential(
        BatchNorm(3), nn.Linear(3, 2), BatchNorm(2), nn.Sequential(BatchNorm(2, "support"))
    ).double()
    network.eval()
    batches = [inputs(8, 3, seed=seed) for seed in range(3)]
    recalibrate(network, (lambda x=x: network(x) for x in batches))
    torch.testing.assert_close(network[0].mean, torch.stack([x.mean(0) for x in batches]).mean(0))
    torch.testing.assert_close(network[0].variance, torch.stack([x.var(0, correction=0) for x in batches]).mean(0))
    with torch.no_grad():  # the second layer saw the first one normalize by the batch
        hidden = [network[1](F.batch_norm(x, None, None, training=True)) for x in batches]
    torch.testing.assert_close(network[2].mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
    assert torch.equal(network[3][0].mean, torch.zeros(2, dtype=torch.float64))
    assert not network.training
    assert not network[0]._forward_pre_hooks


def test_recalibration_of_a_network_without_frozen_layers_runs_nothing():
    recalibrate(nn.Sequential(BatchNorm(3, "support")), iter([pytest.fail]))


def test_recalibration_hears_of_skeletons_and_leaves_them_as_they_were():
    """A learner may call its backbone by way of a skeleton, and queries stay alone afterwards."""
    network = convert(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "frozen").double()
    given = inputs(6, 3)
    recalibrate(network, (lambda: call(network, tensors(network), given) for _ in range(2)))
    network.eval()
    normalization = network[1]
    assert not torch.equal(normalization.mean, torch.zeros(4, dtype=torch.float64))
    among = call(network, tensors(network), given)
    torch.testing.assert_close(call(network, tensors(network), given[:1]), among[:1])
    torch.testing.assert_close(among.mean(0), normalization.bias, rtol=0, atol=1e-6)
