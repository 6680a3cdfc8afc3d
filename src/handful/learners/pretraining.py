"""Pre-training: ordinary training on all examples, ignoring tasks, before meta-training or instead of it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from handful import streams
from handful.engine.precision import Precision
from handful.functional.normalization import fitting, recalibrate
from handful.types import Examples, check_shape, to_device

BATCH = 128
WARM_UP = 0.1
"""The part of the steps in which the rate rises."""
FOR_FEATURES = {"lr": 0.01, "weight_decay": 1.0, "label_smoothing": 0.1}
"""Peak rate and regularization where only the features are kept: strong, since they must serve other classes. Chosen on
the validation letters of `glyphs`."""
FOR_HEAD = {"lr": 0.003, "weight_decay": 0.05, "label_smoothing": 0.0}
"""The same where the head is kept, and must have the same outputs."""
SCALE = 10.0
"""Of the cosines in a head that predicts by them."""
CALIBRATION = 10
"""Batches for the statistics of the batch norms."""


class PretrainingExamples(Protocol):
    """Globally labeled examples: what `handful.tasks` offers for pre-training."""

    @property
    def outputs(self) -> int:
        """Number of classes, or the dimension of the target."""

    @property
    def draw(self) -> Callable[[Generator, int], Examples]:
        """`(generator, count) -> Examples` at random."""


class Keeper(Protocol):
    """The storage of a running pre-training, so that it can be resumed.

    steps: of the stored one; None without one.
    """

    steps: int | None

    def begin(self, pretraining: "Pretraining") -> None:
        """Put it where it was when it was last saved, if it was."""

    def after_step(self, pretraining: "Pretraining") -> None:
        """Save it where it is time to; may end it by an exception."""


class Pretraining:
    """A pre-training in progress: the content of its checkpoint.

    planned: the number of its steps at first.
    steps: their number as corrected since; see `replan`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Linear,
        weights: list[nn.Parameter],
        pool: PretrainingExamples,
        *,
        classification: bool,
        examples: int,
        seed: int,
        rates: dict[str, float],
        precision: Precision = "fp32",
    ) -> None:
        self.backbone, self.head, self.pool = backbone, head, pool
        self.classification, self.rates, self.precision = classification, rates, precision
        self.step = 0
        self.planned = self.steps = max(1, round(examples / BATCH))
        self._since = (0, 0.0)  # the step at which `steps` was set, and its position
        self.seconds = 0.0
        self.seed, self.generator = seed, streams.pretraining(seed)
        self._draws = True  # the network, by itself: until a step shows that it does not
        self.optimizer = torch.optim.AdamW(weights, weight_decay=rates["weight_decay"])

    @property
    def identity(self) -> dict[str, Any]:
        """JSON that distinguishes it from others of the same network."""
        head = [type(self.head).__name__, *self.head.weight.shape]
        return {"steps": self.steps, "seed": self.seed, "head": head}

    @property
    def position(self) -> float:
        """The position of the next step on the schedule, which has as many steps as were planned at first."""
        step, position = self._since
        return position + (self.step - step) * (self.planned - position) / (self.steps - step)

    def replan(self, steps: int) -> None:
        """Take so many steps in all, more than so far: they move faster or slower through the rest of the schedule."""
        self._since, self.steps = (self.step, self.position), steps

    def continues(self, facts: dict[str, Any]) -> bool:
        """Whether it may continue from what `state` gave: its own, or one that has ended after as many steps."""
        if "planned" not in facts:  # of an earlier version
            return False
        saved: dict[str, Any] = facts["identity"]
        planned = saved | {"steps": facts["planned"]}
        own, ended = self.identity, facts["step"] == saved["steps"]
        return own == planned or (own == saved and ended)

    def advance(self) -> None:
        """One step."""
        start = time.perf_counter()
        self.optimizer.param_groups[0]["lr"] = self.rates["lr"] * schedule(self.position, self.planned)
        batch = to_device(self.pool.draw(self.generator, BATCH), self.head.weight.device)
        draws = streams.network_draws("pre-training", self.seed, self.step) if self._draws else nullcontext()
        with (
            fitting(self.backbone),  # batch norms that wait for a support take the batch's statistics
            draws as drawing,
            torch.autocast(self.head.weight.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            outputs = self.head(self.backbone(batch.inputs)).float()
        self._draws = drawing is not None and drawing.found is not None
        if self.classification:
            loss = F.cross_entropy(outputs, batch.targets, label_smoothing=self.rates["label_smoothing"])
        else:
            check_shape("targets", batch.targets, outputs)
            loss = F.mse_loss(outputs, batch.targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self.seconds += time.perf_counter() - start

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All of it as named tensors and JSON facts."""
        tensors = {f"backbone/{name}": tensor for name, tensor in self.backbone.state_dict().items()}
        tensors |= {f"head/{name}": tensor for name, tensor in self.head.state_dict().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in moments(self.optimizer).items()}
        facts = {"identity": self.identity, "step": self.step, "seconds": self.seconds}
        facts |= {"planned": self.planned, "since": self._since}
        return tensors | {"generator": self.generator.get_state()}, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.backbone.load_state_dict(below("backbone", tensors))
        self.head.load_state_dict(below("head", tensors))
        put_moments(self.optimizer, below("optimizer", tensors))
        self.generator.set_state(tensors["generator"])
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.planned, self.steps = facts["planned"], facts["identity"]["steps"]
        self._since = (*facts["since"],)


def pretrain(
    backbone: nn.Module,
    head: nn.Linear | None,
    weights: list[nn.Parameter],
    pool: PretrainingExamples,
    *,
    classification: bool,
    examples: int,
    seed: int,
    cosine: bool = False,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] | None = None,
    keeper: Keeper | None = None,
) -> float:
    """Train `weights` of the backbone, and a head, on about `examples` drawn from the pool.

    AdamW (*Decoupled Weight Decay Regularization*, Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101) with
    warm-up and a cosine to zero, on the cross-entropy or the squared error; then precise statistics for batch norms.

    head: the one to keep; None: a new one, which is thrown away; with `cosine` it sees the directions of features
        alone.
    precision: "bf16" lets network and head multiply in bfloat16; weights and their changes stay in float32.
    progress: gets the examples seen and all of them.
    keeper: where it is kept while it runs.

    The same seed gives the same bits, interrupted or not; whether weights require a gradient is as before. Returns the
    seconds that it took, those before an interruption included.
    """
    chosen = FOR_FEATURES if head is None else FOR_HEAD
    head = head if head is not None else _head(backbone, pool, seed, CosineClassifier if cosine else nn.Linear)
    with _trainable([*weights, *head.parameters()]) as trained, torch.enable_grad(), _training(backbone):
        pretraining = Pretraining(
            backbone,
            head,
            trained,
            pool,
            classification=classification,
            examples=examples,
            seed=seed,
            rates=chosen,
            precision=precision,
        )
        if keeper:
            keeper.begin(pretraining)
        while pretraining.step < pretraining.steps:
            pretraining.advance()
            if keeper:
                keeper.after_step(pretraining)
            if progress:
                progress(pretraining.step * BATCH, pretraining.steps * BATCH)
    device = head.weight.device
    batches = [pool.draw(pretraining.generator, BATCH).inputs.to(device) for _ in range(CALIBRATION)]
    with streams.network_draws("recalibration after pre-training", seed, 0):
        recalibrate(backbone, (partial(backbone, inputs) for inputs in batches))
    return pretraining.seconds


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer holds of each parameter, by number and name."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": tensor for index, held in state.items() for name, tensor in held.items()}


def put_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The other way."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, moment = name.partition("/")
        state.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def below(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `part/`, without it."""
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}


def schedule(step: float, steps: int) -> float:
    """The part of the peak rate at a step: a linear rise, then a cosine to zero."""
    warm_up = WARM_UP * steps
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


class CosineClassifier(nn.Linear):
    """Logits are the cosines of features and class weights, times `SCALE`."""

    def forward(self, input: Tensor) -> Tensor:
        """Features `(n, d)` to logits `(n, classes)`."""
        return SCALE * F.linear(F.normalize(input, dim=-1), F.normalize(self.weight, dim=-1))


def _head(backbone: nn.Module, pool: PretrainingExamples, seed: int, kind: type[nn.Linear]) -> nn.Linear:
    example = pool.draw(streams.pretraining(seed), 1).inputs
    example = example.to(next(backbone.parameters(), example).device)
    training = backbone.training
    with torch.no_grad():
        features: Tensor = backbone.eval()(example)
    backbone.train(training)
    with streams.weights(seed):
        return kind(features.shape[1], pool.outputs, bias=kind is nn.Linear).to(features)


@contextmanager
def _trainable(weights: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield weights
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.grad = None
            weight.requires_grad_(required)


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.train()
    try:
        yield
    finally:
        module.train(training)
