"""Networks as users bring them, under every learner: each works in all that is done with it, or is refused at once.

They recompute, freeze, reparametrize, cast or keep state. `python -m tests.contracts.networks` takes each of them with
each learner on each kind of task through training, measuring, evaluation, saving, loading and adapting; a sample of
that is a test.
"""

import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from handful.engine.cost import operations
from handful.engine.plan import Plan
from handful.engine.planner import measure
from handful.errors import UserError
from handful.evaluation.scoring import evaluate
from handful.learners.learner import Learner
from handful.learners.options import options_of
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.task_collection import TaskCollection
from handful.training.loop import Training, meta_train
from handful.training.settings import Settings

WIDTH = 6
ROW, IMAGE = (4,), (1, 8, 8)


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


class Plain(nn.Module):
    """Layers, which a subclass changes."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network: nn.Module = self.made(layers())

    def made(self, network: nn.Sequential) -> nn.Module:
        return network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)


class OldWeightNorm(Plain):
    def made(self, network):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.weight_norm(network[0])
        return network


class NewWeightNorm(Plain):
    def made(self, network):
        parametrizations.weight_norm(network[0])
        return network


class OldSpectralNorm(Plain):
    def made(self, network):
        nn.utils.spectral_norm(network[0])
        return network


class NewSpectralNorm(Plain):
    def made(self, network):
        parametrizations.spectral_norm(network[0])
        return network


class Orthogonal(Plain):
    def made(self, network):
        parametrizations.orthogonal(network[2])
        return network


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


class OwnParametrization(Plain):
    def made(self, network):
        parametrize.register_parametrization(network[2], "weight", Symmetric())
        return network


class KeptActivations(Plain):
    """Keeps what it saw, as to show or to regularize it."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.last, self.seen = None, []

    def forward(self, inputs):
        self.last = self.network(inputs)
        self.seen.append(self.last.detach())
        return self.last


class Hooked(Plain):
    def made(self, network):
        self.kept = {}
        network[0].register_forward_hook(lambda module, inputs, output: self.kept.update(last=output))
        return network


class PartlyFrozen(Plain):
    def made(self, network):
        network[0].requires_grad_(False)
        return network


class Frozen(Plain):
    def made(self, network):
        return network.requires_grad_(False)


class SyncBatchNorm(Plain):
    def made(self, network):
        return nn.Sequential(network[0], nn.SyncBatchNorm(WIDTH), nn.ReLU())


class Bfloat16(Plain):
    def made(self, network):
        return network.to(torch.bfloat16)


class CastBfloat16(Bfloat16):
    """Casts by itself, with weights that stay as they are."""

    def made(self, network):
        return super().made(network).requires_grad_(False)

    def forward(self, inputs):
        return self.network(inputs.bfloat16()).float()


class Double(Plain):
    def made(self, network):
        return network.double()


class Complex(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, WIDTH, dtype=torch.complex64))

    def forward(self, inputs):
        return (inputs.to(torch.complex64) @ self.weight).abs()


class Locked(Plain):
    """Holds a lock, which cannot be copied."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.lock = threading.Lock()

    def forward(self, inputs):
        with self.lock:
            return self.network(inputs)


class Computed(Plain):
    """Holds a tensor that was computed from its weights."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.scale = 2 * self.network[0].weight.sum(1)

    def forward(self, inputs):
        return self.network(inputs) * (1 + self.scale.tanh())


class NeededOptions(nn.Module):
    def __init__(self, input_shape, width):
        super().__init__()
        self.network = nn.Linear(4, width)

    def forward(self, inputs):
        return self.network(inputs).relu()


class Scripted(Plain):
    def made(self, network):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.script(network)


class Traced(Plain):
    def made(self, network):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.trace(network, torch.zeros(2, 4))


class InPlace(Plain):
    """Layers that work in place, the first one on the inputs."""

    def made(self, network):
        return nn.Sequential(nn.ReLU(inplace=True), network[0], nn.ReLU(inplace=True), network[2])


class ChangesInputs(Plain):
    def forward(self, inputs):
        return self.network(inputs.sub_(1))


class Tied(nn.Module):
    """One weight in two places."""

    def __init__(self, input_shape):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, WIDTH)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.out(self.second(self.first(inputs).relu()).relu())


class ChannelsLast(Plain):
    def made(self, network):
        convolutions = nn.Conv2d(1, WIDTH, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(WIDTH, WIDTH, 3), nn.Flatten()
        return nn.Sequential(*convolutions).to(memory_format=torch.channels_last)


class Checkpointed(Plain):
    reentrant = False

    def forward(self, inputs):
        return self.network[2](checkpoint(self.network[:2], inputs, use_reentrant=self.reentrant))


class CheckpointedReentrant(Checkpointed):
    reentrant = True


class Recurrent(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.lstm = nn.LSTM(1, WIDTH, batch_first=True)

    def forward(self, inputs):
        return self.lstm(inputs.unsqueeze(-1))[0][:, -1]


class Attentive(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, inputs):
        return self.layer(self.embed(inputs.unsqueeze(-1))).flatten(1)


class Counting(Plain):
    """Counts its calls in a buffer."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, inputs):
        self.calls += 1
        return self.network(inputs)


class Square(torch.autograd.Function):
    """Without a batching rule."""

    @staticmethod
    def forward(ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs.square()

    @staticmethod
    def backward(ctx, slopes):
        return 2 * ctx.saved_tensors[0] * slopes


class OwnFunction(Plain):
    def forward(self, inputs):
        return Square.apply(self.network(inputs))


class NoWeights(nn.Module):
    def __init__(self, input_shape):
        super().__init__()

    def forward(self, inputs):
        return torch.cat([inputs.sin(), inputs.cos()], 1)


class ThroughNumPy(Plain):
    """Computes a part where no gradient and no batching rule is."""

    def forward(self, inputs):
        return self.network(inputs + torch.from_numpy(np.sin(inputs.detach().numpy())))


class DataDependent(Plain):
    """Looks at numbers, which `vmap` does not have."""

    def forward(self, inputs):
        features = self.network(inputs)
        return features if float(features.detach().sum()) > 0 else 2 * features


class Tokens(nn.Module):
    """Takes numbers for those of tokens."""

    def __init__(self, input_shape):
        super().__init__()
        self.embedding = nn.Embedding(9, WIDTH)

    def forward(self, inputs):
        return self.embedding(inputs.long() % 9).mean(1)


class BagOfTokens(Tokens):
    """By an operation that has no second derivative."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.embedding = nn.EmbeddingBag(9, WIDTH)

    def forward(self, inputs):
        return self.embedding(inputs.long() % 9)


class Lazy(Plain):
    def made(self, network):
        return nn.Sequential(nn.LazyLinear(WIDTH), network[1])


WORKING = [
    *(
        OldWeightNorm,
        NewWeightNorm,
        OldSpectralNorm,
        NewSpectralNorm,
        Orthogonal,
        OwnParametrization,
        KeptActivations,
        Hooked,
        PartlyFrozen,
        Frozen,
    ),
    *(SyncBatchNorm, CastBfloat16, Locked, Computed, NeededOptions, InPlace, Tied, ChannelsLast, Recurrent, Attentive),
    *(OwnFunction, NoWeights, ThroughNumPy, DataDependent, Tokens),
]
REFUSED = {
    Bfloat16: r"does not support inputs of shape .*network\.float\(\)",
    Double: r"does not support inputs of shape .*network\.float\(\)",
    Complex: "weights weight are complex",
    Scripted: "compiled by TorchScript",
    Traced: "compiled by TorchScript",
    ChangesInputs: "changes its inputs in place",
    Checkpointed: r"torch\.utils\.checkpoint",
    CheckpointedReentrant: r"torch\.utils\.checkpoint",
    Counting: "writes into calls",
    Lazy: "have no shape yet",
}
"""And why."""


def tasks(network: type[nn.Module], kind: str) -> TaskDistribution:
    """Tiny tasks for a network: classes drawn anew, shared classes, or values."""
    shape = IMAGE if network is ChannelsLast else ROW
    generator = torch.Generator().manual_seed(0)
    if kind == "permuted":
        classes = torch.arange(12).repeat_interleave(6)
        noise = 0.1 * torch.randn(len(classes), *shape, generator=generator)
        inputs = torch.randn(12, *shape, generator=generator)[classes] + noise
        splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
        pool = LabeledPool(inputs, classes, [str(name) for name in range(12)], splits=splits)
        return pool.with_sizes(way=2, shot=2, query_shot=2)
    owners = torch.arange(12).repeat_interleave(10)
    inputs = torch.randn(len(owners), *shape, generator=generator)
    values = inputs.flatten(1)[:, :1]
    targets, classes = (values, None) if kind == "values" else ((values > 0).long().flatten(), 2)
    splits = {"train": range(8), "val": range(8, 10), "test": range(10, 12)}
    names = [str(name) for name in range(12)]
    collection = TaskCollection(inputs, targets, owners, names, splits=splits, classes=classes)
    return collection.with_sizes(shot=4, query_shot=4)


def fitting(learner: type[Learner]) -> list[str]:
    """The kinds of task that a learner can do."""
    classes = sorted(learner.labels) if "classification" in learner.kinds else []
    return classes + (["values"] if "regression" in learner.kinds else [])


def built(network: type[nn.Module], key: str, kind: str) -> Learner:
    """A learner with few inner steps; `UserError` where it is refused."""
    cls = LEARNERS[key]
    options = {name: 2 for name in ("inner_steps", "steps") if name in options_of(cls)}
    backbone_options = {"width": WIDTH} if network is NeededOptions else {}
    spec = tasks(network, kind).spec
    return cls.build(spec, backbone=network, backbone_options=backbone_options, **options)


def through(network: type[nn.Module], key: str, kind: str, folder: Path) -> None:
    """All that is done with a learner; whatever is raised is a fault."""
    learner, source = built(network, key, kind), tasks(network, kind)
    trained = any(parameter.requires_grad for parameter in learner.parameters())
    if trained or learner.start == "pretrained":
        more = {"pretrain_examples": 8} if learner.start == "pretrained" else {}
        meta_train(learner, source, steps=2, meta_batch_size=2, validation_tasks=2, **more)
    if trained:
        batch, spec, noise = Training(learner, source, source, Settings(steps=1, meta_batch_size=2)).draw(range(2))
        plans = [Plan("loop"), Plan("vmap"), Plan("loop", memory="recompute")]
        measure(learner.train(), batch, spec, noise=noise, plans=plans, seconds=0.01)
        operations(learner, batch, spec, noise)
        learner.eval()
    evaluate(learner, source.split("test"), tasks=2)
    MetaModel(learner).save_pretrained(folder)
    model = MetaModel.from_pretrained(folder, trust=(__name__.partition(".")[0],))
    inputs = torch.randn(4, *source.spec.input_shape)
    answers = torch.randn(4, 1) if kind == "values" else ["0", "1", "0", "1"]
    alone = model.predict(model.adapt(inputs, answers), inputs)[0]
    many = model.adapt_many([(inputs, answers), (inputs + 1, answers)])
    assert not any(isinstance(task, Exception) for task in many), many
    assert torch.allclose(model.predict(many[0], inputs)[0], alone, atol=1e-3)


def matrix() -> list[tuple[type[nn.Module], str, str]]:
    """Each network that works, with each learner on each kind of task that it can do."""
    pairs = [(key, kind) for key, cls in LEARNERS.items() for kind in fitting(cls)]
    return [
        (network, key, kind)
        for network in WORKING
        for key, kind in pairs
        if not (key == "boil" and network in (Frozen, CastBfloat16, NoWeights))  # which has nothing to adapt then
    ]


def main() -> int:
    start, outcomes, faults = time.perf_counter(), Counter[str](), []
    warnings.simplefilter("ignore")
    for network, key, kind in matrix():
        with tempfile.TemporaryDirectory() as folder, collecting():
            try:
                through(network, key, kind, Path(folder) / "model")
                outcomes["works"] += 1
            except Exception as error:
                faults.append(f"{network.__name__} {key} {kind}: {type(error).__name__}: {str(error)[:200]}")
    for network in REFUSED:
        for key, cls in LEARNERS.items():
            for kind in fitting(cls) if cls.start != "raw" else ():  # which takes no network
                try:
                    built(network, key, kind)
                    faults.append(f"{network.__name__} {key} {kind}: not refused")
                except UserError:
                    outcomes["refused"] += 1
                except Exception as error:
                    faults.append(f"{network.__name__} {key} {kind}: {type(error).__name__}: {str(error)[:200]}")
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    sys.stdout.write(f"{dict(outcomes)}, {len(faults)} faults, {time.perf_counter() - start:.0f} s\n")
    return bool(faults)


if __name__ == "__main__":
    from tests.contracts import networks  # as this module the networks have no name that could be imported again

    sys.exit(networks.main())
