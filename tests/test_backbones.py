"""Backbones: their shapes, their numbers, and what is said when they do not fit."""

import functools
import sys

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.nn import functional as F

from handful.backbones import (
    MLP,
    Conv4,
    Raw,
    ResNet3,
    backbone,
    default,
    feature_count,
    last_blocks,
    make,
    resolve,
    written,
)
from handful.errors import UserError
from handful.functional.normalization import BatchNorm
from handful.registry import BACKBONES
from handful.types import Examples


def named(value: object) -> str:
    """A name for a case that is the same in every process: an address is not."""
    return getattr(value, "__name__", str(value))


def custom(input_shape, *, width=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], width))


class Custom(nn.Linear):
    def __init__(self, input_shape, *, width=3):
        super().__init__(input_shape[0], width)


@pytest.fixture
def registered(monkeypatch):
    """A function of this module that is registered, for one test."""
    monkeypatch.setattr(BACKBONES, "_members", dict(BACKBONES._members))
    return backbone(custom)


def with_any_options(input_shape, **options):
    return nn.Linear(input_shape[0], options.get("width", 2))


@pytest.mark.parametrize(
    ("backbone", "shape", "options", "features"),
    [
        ("conv4", (1, 28, 28), {}, 64),
        ("conv4", (3, 84, 84), {"widths": (8, 8, 8, 32)}, 32 * 25),
        ("conv4", (1, 16, 20), {"widths": (4, 4, 4, 4)}, 4),
        ("conv4", (1, 8, 8), {"widths": [4, 6]}, 6 * 4),
        ("resnet3", (3, 21, 18), {"stem": 3, "widths": (4, 5, 6)}, 6),
        ("mlp", (5,), {}, 64),
        ("mlp", (2, 3), {"hidden": (7, 9)}, 9),
        ("raw", (2, 3), {}, 6),
        ("linear", (2, 3), {}, 6),
        ("auto", (1, 28, 28), {}, 64),
        ("auto", (5,), {}, 64),
        (custom, (5,), {"width": 4}, 4),
        (with_any_options, (5,), {"width": 4}, 4),
        (Custom, (5,), {"width": 4}, 4),
        ("test_backbones:Custom", (5,), {"width": 4}, 4),
    ],
    ids=named,
)
def test_features_are_rows_of_numbers(backbone, shape, options, features):
    network = make(backbone, shape, options=options)
    assert feature_count(network, shape) == features
    assert network(torch.zeros(2, *shape)).shape == (2, features)


def test_auto_is_by_the_shape_of_an_example():
    assert [default(shape) for shape in ((3, 28, 28), (1, 8, 8), (40,), (2, 30))] == ["conv4", "mlp", "mlp", "mlp"]


def test_linear_starts_as_the_identity_and_can_become_any_map():
    network, inputs = make("linear", (2, 3)).double(), torch.randn(5, 2, 3, dtype=torch.float64)
    assert torch.equal(network(inputs), inputs.flatten(1))
    (weight,) = network.parameters()
    wanted = torch.randn(6, 6, dtype=torch.float64)
    with torch.no_grad():
        weight.copy_(wanted - torch.eye(6))
    assert torch.allclose(network(inputs), inputs.flatten(1) @ wanted.mT)


def test_conv4_is_the_papers_network():
    """Convolution, batch norm, ReLU, pooling, four times."""
    network = Conv4((1, 16, 16), widths=(4, 4, 4, 4)).double().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 1, 16, 16, generator=generator, dtype=torch.float64)
    maps = inputs
    for convolution, norm in zip(network.convolutions, network.normalizations, strict=True):
        with torch.no_grad():
            norm.mean.normal_(generator=generator)
            norm.weight.normal_(generator=generator)
        maps = F.conv2d(maps, convolution.weight, padding=1)
        maps = F.batch_norm(maps, norm.mean, norm.variance, norm.weight, norm.bias)
        maps = F.max_pool2d(F.relu(maps), 2)
    torch.testing.assert_close(network(inputs), maps.flatten(1))
    torch.testing.assert_close(vmap(network)(inputs.unsqueeze(1)).squeeze(1), maps.flatten(1))


def test_resnet3_is_a_strided_convolution_and_three_residual_blocks():
    network = ResNet3((3, 20, 17), stem=3, widths=(4, 5, 6)).double().eval()
    generator = torch.Generator().manual_seed(0)

    def normalized(maps, norm):
        with torch.no_grad():
            norm.mean.normal_(generator=generator)
            norm.weight.normal_(generator=generator)
        return F.batch_norm(maps, norm.mean, norm.variance, norm.weight, norm.bias)

    inputs = torch.randn(2, 3, 20, 17, generator=generator, dtype=torch.float64)
    maps = F.conv2d(inputs, network.stem.weight, stride=2, padding=2)
    maps = F.relu(normalized(maps, network.stem_normalization))
    assert maps.shape == (2, 3, 10, 9)
    blocks = []
    for block in network.residuals:
        first, second, past = block.normalizations
        inner = F.relu(normalized(F.conv2d(maps, block.first.weight, stride=2, padding=1), first))
        inner = normalized(F.conv2d(inner, block.second.weight, padding=1), second)
        maps = F.relu(inner + normalized(F.conv2d(maps, block.past.weight, stride=2), past))
        blocks.append(maps)
    blocks[-1] = blocks[-1].mean((2, 3))
    found = network.blocks(inputs)
    assert [one.shape for one in found] == [(2, 4, 5, 5), (2, 5, 3, 3), (2, 6)]
    for one, wanted in zip(found, blocks, strict=True):
        torch.testing.assert_close(one, wanted)
    torch.testing.assert_close(vmap(network)(inputs.unsqueeze(1)).squeeze(1), blocks[-1])


@pytest.mark.parametrize(
    ("name", "options"), [("conv4", {"widths": (2, 3)}), ("resnet3", {"stem": 2, "widths": (3, 4)})]
)
def test_the_last_blocks_end_with_the_features(name, options):
    network, inputs = make(name, (1, 16, 16), options=options), torch.rand(2, 1, 16, 16)
    maps, features = last_blocks(network, inputs)
    assert maps.shape == (2, options["widths"][0], *[8 if name == "conv4" else 4] * 2)
    assert torch.equal(features, network(inputs))


def test_a_network_without_blocks_has_its_features_alone():
    network, inputs = make(Custom, (5,)), torch.rand(2, 5)
    (features,) = last_blocks(network, inputs)
    assert torch.equal(features, network(inputs))
    single = make("conv4", (1, 8, 8), options={"widths": (3,)})
    assert [block.shape for block in last_blocks(single, torch.rand(2, 1, 8, 8))] == [(2, 48)]


def test_the_policy_of_normalization_reaches_every_layer():
    network = make("conv4", (1, 16, 16), normalization="support")
    assert {layer.mode for layer in network.modules() if isinstance(layer, BatchNorm)} == {"support"}


def test_the_callers_module_stays_as_it_was():
    own = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    network = make(own, (3,), normalization="support")
    assert isinstance(own[1], nn.BatchNorm1d)
    assert isinstance(network[1], BatchNorm)
    assert network[0].weight is not own[0].weight
    assert torch.equal(network[0].weight, own[0].weight)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"backbone": "conv5"}, "Did you mean 'conv4'"),
        ({"backbone": "mlp", "options": {"hiden": (3,)}}, "Did you mean 'hidden'"),
        ({"backbone": "mlp", "options": {"widths": (3,)}}, "option of the backbone mlp 'widths'.*Known: hidden"),
        ({"backbone": "mlp", "options": {"hidden": [0]}}, r"'hidden' is a list of whole numbers of 1 or more.*\[0\]"),
        ({"backbone": "mlp", "options": {"hidden": "a"}}, "'hidden' is a list of whole numbers"),
        ({"backbone": "conv4", "options": {"widths": [4, -1]}}, "'widths' is a list of whole numbers"),
        ({"backbone": nn.Linear(5, 2), "options": {"width": 3}}, "Unknown backbone option 'width'"),
        ({"backbone": "conv4"}, "takes images"),
        ({"backbone": "resnet3"}, "resnet3 backbone takes images"),
        ({"backbone": "surely_no_package:network"}, r"surely_no_package.*cannot be imported"),
        ({"backbone": "json:network"}, "cannot be imported"),
        ({"backbone": ":network"}, "cannot be imported"),
        ({"backbone": "builtins:print"}, "neither a subclass of nn.Module nor a function with the decorator"),
        ({"backbone": "subprocess:Popen"}, "neither a subclass of nn.Module nor a function with the decorator"),
        ({"backbone": "test_backbones:custom"}, "neither a subclass of nn.Module nor a function with the decorator"),
    ],
    ids=named,
)
def test_a_backbone_that_there_is_not_is_answered_by_what_there_is(request_, message):
    with pytest.raises(UserError, match=message):
        make(input_shape=(5,), **request_)


class ReturnsAPair(nn.Module):
    def forward(self, inputs):
        return inputs, inputs


class Counts(nn.Module):
    def forward(self, inputs):
        raise ValueError("expected 7 channels")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(4, 2), r"does not support inputs of shape \(5,\)"),
        (nn.Sequential(nn.Embedding(9, 2), nn.Flatten()), r"token ids, embed inputs\.long\(\)"),
        (Counts(), "expected 7 channels"),
        (nn.Unflatten(1, (5, 1)), r"\(1, 5, 1\).*nn.Flatten"),
        (ReturnsAPair(), "a tuple"),
    ],
    ids=named,
)
def test_a_network_that_does_not_fit_is_answered_by_what_would(network, message):
    with pytest.raises(UserError, match=message):
        feature_count(network, (5,))


@pytest.mark.parametrize("mode", ["frozen", "support", "transductive"])
def test_features_are_counted_without_a_trace(mode):
    network = make(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).double(), (5,), normalization=mode).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert feature_count(network, (5,)) == 3
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("network", ["conv4", Conv4, MLP, Raw, Custom], ids=named)
def test_a_name_on_disk_stands_for_the_same_backbone(network):
    name = written(network)
    assert isinstance(name, str)
    assert resolve(name, (5,)) is resolve(network, (5,))


def test_a_registered_function_is_named_on_disk_by_its_module(registered):
    """Its short name is unknown to a process that has not imported the module."""
    for given in (registered, "custom", f"{__name__}:custom"):
        assert resolve(given, (5,)) is custom
        assert written(given) == f"{__name__}:custom"


@pytest.mark.parametrize(
    "network", [nn.Linear(2, 2), custom, lambda shape: nn.Flatten(), functools.partial(custom, width=2)]
)
def test_what_cannot_be_imported_again_has_no_name(network):
    assert written(network) is None


def test_a_class_within_a_function_has_no_name():
    class Inner(Custom):
        pass

    assert written(Inner) is None


def test_a_factory_of_the_running_script_has_no_name(monkeypatch):
    monkeypatch.setattr(Custom, "__module__", "__main__")
    assert written(Custom) is None
    assert "test_backbones" in sys.modules


def test_features_of_the_own_networks_are_counted_without_a_pass():
    """A saved shape may be of terabytes."""
    with torch.device("meta"):
        wide = make("conv4", (1, 2**20, 2**20), options={"widths": (2, 2, 2, 2)})
    wide.forward = None
    assert feature_count(wide, (1, 2**20, 2**20)) == 2 * (2**16) ** 2


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("conv4", (3, 37, 50), {}),
        ("conv4", (1, 9, 8), {"widths": (5, 3)}),
        ("resnet3", (1, 16, 17), {"stem": 2, "widths": (3, 4, 5)}),
        ("mlp", (2, 3), {"hidden": (5, 7)}),
        ("mlp", (2, 3), {"hidden": ()}),
        ("linear", (2, 3), {}),
        ("raw", (2, 3), {}),
    ],
)
def test_the_own_networks_make_as_many_features_as_they_say(name, shape, options):
    network = make(name, shape, options=options)
    assert network.made_for == (shape, network(torch.zeros(1, *shape)).shape[1])
    assert name in BACKBONES


def test_a_network_that_was_made_for_other_inputs_is_told():
    with pytest.raises(UserError, match=r"does not support inputs of shape \(5,\)"):
        feature_count(make("mlp", (4,)), (5,))


def rows_of_tasks(count=8, outputs=1):
    """Rows whose value is a step that a tree finds, and noise of each task."""
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for _ in range(count):
        inputs = torch.randn(30, 2, generator=generator)
        values = 3 * (inputs[:, :1] > 0) + torch.randn(1, generator=generator)
        tasks.append(Examples(inputs, values.repeat(1, outputs)))
    return tasks


def test_boosted_trees_stand_beside_the_inputs():
    network, tasks = make("boosted", (2,)), rows_of_tasks()
    inputs = tasks[0].inputs
    plain = network.mlp(torch.cat([inputs, torch.zeros(30, 1)], 1))
    assert torch.equal(network(inputs), plain), "not fitted yet"
    columns = network.fit(tasks)
    assert [column.shape for column in columns] == [(30, 1)] * 8
    assert columns[0][inputs[:, 0] > 0].mean() - columns[0][inputs[:, 0] < 0].mean() > 2
    assert torch.equal(network(inputs), network.mlp(torch.cat([inputs, network.trees(inputs)], 1)))
    assert torch.equal(network(torch.cat([inputs, columns[0]], 1)), network.mlp(torch.cat([inputs, columns[0]], 1)))
    assert not torch.equal(columns[0], network.trees(inputs)), "in training by trees of other tasks"


@pytest.mark.parametrize(("columns", "outputs"), [(1, 2), (3, 2)])
def test_boosted_trees_refuse_another_number_of_values(columns, outputs):
    network = make("boosted", (2,), options={"columns": columns})
    with pytest.raises(UserError, match=rf"made for {columns} target values or classes"):
        network.fit(rows_of_tasks(outputs=outputs))
    classes = [Examples(task.inputs, torch.full((30,), 4)) for task in rows_of_tasks()]
    with pytest.raises(UserError, match=rf"made for {columns} target values or classes"):
        network.fit(classes)


def test_boosted_takes_rows_only():
    with pytest.raises(UserError, match="takes rows of numbers"):
        make("boosted", (1, 8, 8))
