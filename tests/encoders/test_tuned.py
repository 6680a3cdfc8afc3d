"""The backbone `encoder`: what is trained of a pretrained network, what is stored, and what it computes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from handful.encoders import tuned
from handful.encoders.texts import PADDING
from handful.encoders.tuned import TunedEncoder, layers_of
from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.functional.inner_loop import remembering
from handful.functional.stateless import call, own_copy, tensors
from handful.learners.prototypical import PrototypicalNetwork
from handful.types import Examples, Task, TaskSpec

LENGTH = 6


class Block(nn.Module):
    """A layer that draws in training and counts what it has seen, as those of pretrained networks may."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, features):
        return features + self.dropout(self.norm(torch.tanh(self.linear(features))))


class Words(nn.Module):
    """The mean of embedded tokens, through layers."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.head = nn.Linear(4, 5)
        self.lengths: list[int] = []

    def embedded(self, inputs):
        there = (inputs != PADDING).unsqueeze(-1)
        return (self.embedding(inputs.long().clamp_min(0)) * there).sum(1) / there.sum(1).clamp_min(1)

    def forward(self, inputs):
        self.lengths.append(inputs.shape[1])
        features = self.embedded(inputs)
        for layer in self.layers:
            features = layer(features)
        return self.head(features)


@pytest.fixture
def network(monkeypatch) -> Words:
    """The network of every encoder."""
    torch.manual_seed(0)
    network = Words().eval()
    encoder = SimpleNamespace(network=lambda: network, input_shape=(LENGTH,), width=5, relative_rate=0.5)
    monkeypatch.setattr(tuned, "encoder_of", lambda *_: encoder)
    return network


def encoder(layers: int | None) -> TunedEncoder:
    return TunedEncoder((LENGTH,), **TunedEncoder.options("texts", "words", "1", layers))


def tokens(count: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    found = torch.randint(10, (count, LENGTH), generator=generator).float()
    lengths = torch.randint(1, LENGTH + 1, (count, 1), generator=generator)
    return torch.where(torch.arange(LENGTH) < lengths, found, PADDING)


def trained(network: nn.Module) -> set[str]:
    return {name.removeprefix("network.") for name, _ in network.named_parameters()}


@pytest.mark.parametrize(
    ("layers", "first"),
    [
        (0, ()),
        (1, ("layers.2", "head")),
        (2, ("layers.1", "layers.2", "head")),
        (None, ("embedding", "layers", "head")),
    ],
)
def test_what_is_trained_is_all_that_is_stored(layers, first, network):
    own = encoder(layers)
    assert trained(own) == {name for name, _ in network.named_parameters() if name.startswith(first)}
    assert {name.removeprefix("network.") for name in own.state_dict()} == trained(own)
    assert all(weight.requires_grad for weight in own.parameters())


def test_more_layers_than_there_are_is_told(network):
    with pytest.raises(UserError, match="has 3 layers, fewer than the 4"):
        encoder(4)


def test_it_computes_as_the_network_in_any_mode_and_changes_nothing_of_it(network):
    inputs, before = tokens(), {name: tensor.clone() for name, tensor in network.state_dict().items()}
    own, expected = encoder(2), network(inputs)
    for mode in (True, False):
        assert torch.allclose(own.train(mode)(inputs), expected, atol=1e-6)
    with torch.no_grad():
        for weight in own.parameters():
            weight.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not torch.allclose(own(inputs), expected)


def test_texts_go_through_with_others_of_their_length(network, monkeypatch):
    monkeypatch.setattr(tuned, "TOKENS_AT_ONCE", 8)
    inputs = tokens(20)
    expected = network(inputs)
    own = encoder(1)
    own.network.lengths.clear()
    assert torch.allclose(own(inputs), expected, atol=1e-6), "in the order of the inputs"
    seen = own.network.lengths
    assert seen == sorted(seen)
    assert seen[0] < LENGTH == max(seen)
    assert own(inputs[:0]).shape == (0, 5)


def test_what_is_computed_again_has_the_same_gradient(network):
    inputs = tokens()
    found = []
    for memory in ("whole", "recompute"):
        own = encoder(2)
        with remembering(memory):
            outputs = own(inputs)
            found.append(torch.autograd.grad(outputs.square().sum(), list(own.parameters())))
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*found, strict=True))
    assert any(gradient.abs().max() > 1e-3 for gradient in found[0])


@pytest.mark.parametrize("memory", ["whole", "recompute"])
def test_the_meta_gradient_is_that_of_finite_differences(memory, network):
    network.double()
    spec = TaskSpec("classification", (LENGTH,), 3)
    learner = PrototypicalNetwork.build(
        spec,
        backbone="encoder",
        backbone_options=TunedEncoder.options("texts", "words", "1", 1),
        loss="neighbors",
        distance="cosine",
    ).double()
    rows = tokens().double()
    part = Examples(rows[None, :6], torch.arange(3).repeat(2)[None])
    task = Task(part, Examples(rows[None, 6:], torch.arange(3).repeat(2)[None]))
    run = MetaGradient(learner, Plan("loop", memory=memory))
    _, gradients = run(task, spec)
    name = "backbone.network.layers.2.linear.weight"
    weight, step = dict(learner.named_parameters())[name], 1e-5
    for place in ((0, 0), (2, 3)):
        losses = []
        for change in (step, -2 * step):
            weight.data[place] += change
            losses.append(float(run(task, spec)[0]))
        weight.data[place] += step
        assert float(gradients[name][place]) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """How many examples go through each run of a layer."""
    found, forward = [], Block.forward

    def counted(self, features):
        found.append(len(features))
        return forward(self, features)

    monkeypatch.setattr(Block, "forward", counted)
    return found


def classified(rows: torch.Tensor) -> tuple[Task, TaskSpec]:
    """One task of these texts, three classes."""
    halves = rows[None].chunk(2, 1)
    return Task(*(Examples(own, torch.arange(3).repeat(2)[None]) for own in halves)), TaskSpec(
        "classification", (LENGTH,), 3
    )


@pytest.mark.parametrize("threads", [0, 2])
def test_lower_layers_run_once_and_the_meta_gradient_stays_the_same(threads, network, runs):
    task, spec = classified(tokens())
    learner = PrototypicalNetwork.build(
        spec,
        backbone="encoder",
        backbone_options=TunedEncoder.options("texts", "words", "1", 1),
        loss="neighbors",
        distance="cosine",
    )
    gradient = MetaGradient(learner, Plan("loop", threads=threads))
    runs.clear()
    losses, whole = gradient(task, spec)
    assert sum(runs) == 3 * 12, "all layers"
    runs.clear()
    learner.backbone.keep_below(tokens())
    assert sum(runs) == 2 * 12, "the lower two, and not the one that is trained"
    runs.clear()
    kept_losses, kept = gradient(task, spec)
    assert sum(runs) == 12
    assert torch.allclose(kept_losses, losses, atol=1e-6)
    assert all(torch.allclose(kept[name], slope, rtol=1e-4, atol=1e-5) for name, slope in whole.items())
    learner.backbone.forget_below()
    runs.clear()
    again, _ = gradient(task, spec)
    assert sum(runs) == 3 * 12
    assert torch.equal(again, losses)


def test_kept_outputs_are_those_of_their_inputs_alone(network, runs):
    own, inputs = encoder(2), tokens(20)
    expected = own(inputs)
    own.keep_below(inputs[:10])
    assert torch.allclose(own(inputs[:10].flip(0)), expected[:10].flip(0), atol=1e-6)
    runs.clear()
    assert torch.allclose(own(inputs), expected, atol=1e-6), "of others, too, whose lower layers run"
    assert sum(runs) == 3 * 20
    copy = own_copy(own)
    assert copy.bytes_kept() == own.bytes_kept() == 10 * 4 * 4
    own.forget_below()
    assert copy.bytes_kept() == 0, "a copy does not double what is kept"


def test_what_the_layers_below_keep_is_known_before(network):
    assert encoder(2).bytes_below(tokens()) == 4 * 4
    assert encoder(None).bytes_below(tokens()) is None
    assert encoder(3).bytes_below(tokens()) is None, "of no layer below"
    own = encoder(2)
    own.bytes_below(tokens())
    assert own.bytes_kept() == 0


class Shared(Words):
    """What is behind its layers has a part in what is before them."""

    def embedded(self, inputs):
        return super().embedded(inputs) + 0 * self.head.weight.sum()


class Collecting(Words):
    """Takes what each of its layers makes, and not of the last one alone."""

    def forward(self, inputs):
        features = [self.embedded(inputs)]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return self.head(sum(features))


class Widening(Words):
    """Its second layer changes the shape of what goes through, as those of convolutional networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 7), nn.Linear(7, 4)])

    def forward(self, inputs):
        first, second, last = self.layers
        return self.head(last(second(first(self.embedded(inputs))) @ torch.eye(7)))


def test_layers_below_may_change_the_shape(monkeypatch):
    network = Widening().eval()
    found = SimpleNamespace(network=lambda: network, input_shape=(LENGTH,), width=5, relative_rate=0.5)
    monkeypatch.setattr(tuned, "encoder_of", lambda *_: found)
    own, expected = encoder(1), network(tokens())
    call(own, tensors(own), tokens())  # as a step did before
    assert own.bytes_below(tokens()) == 7 * 4
    own.keep_below(tokens())
    assert torch.allclose(own(tokens()), expected, atol=1e-6)
    assert torch.allclose(call(own, tensors(own), tokens()), expected, atol=1e-6)


@pytest.mark.parametrize("kind", [Shared, Collecting])
def test_networks_that_cannot_start_from_their_lower_layers_keep_nothing(kind, monkeypatch):
    network = kind().eval()
    found = SimpleNamespace(network=lambda: network, input_shape=(LENGTH,), width=5, relative_rate=0.5)
    monkeypatch.setattr(tuned, "encoder_of", lambda *_: found)
    own = encoder(1)
    expected = network(tokens())
    assert own.bytes_below(tokens()) is None
    assert torch.allclose(own(tokens()), expected, atol=1e-6)


class Stage(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.shrink, self.layers = nn.Linear(4, 4), nn.Sequential(*(Block() for _ in range(count)))


def test_layers_in_stages_are_counted_one_by_one():
    network = nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Sequential(Stage(2), Stage(3)))
    assert layers_of(network) == ["2.0.layers.0", "2.0.layers.1", "2.1.layers.0", "2.1.layers.1", "2.1.layers.2"]


def test_layers_of_several_kinds_are_those_with_weights():
    assert layers_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4))) == ["0", "2"]
    assert layers_of(nn.Linear(2, 2)) == []


class Tied(Words):
    """Its tokens are embedded by weights that have two names."""

    def __init__(self) -> None:
        super().__init__()
        self.lookup = self.embedding


def test_tied_weights_stay_tied_where_they_are_trained(monkeypatch):
    network = Tied().eval()
    found = SimpleNamespace(network=lambda: network, input_shape=(LENGTH,), width=5, relative_rate=0.5)
    monkeypatch.setattr(tuned, "encoder_of", lambda *_: found)
    own = encoder(None)
    assert own.network.lookup.weight is own.network.embedding.weight
    assert torch.autograd.grad(own(tokens()).sum(), own.network.lookup.weight)[0].abs().sum() > 0
