"""Ordinary training on all examples at once, as if there were no tasks: before meta-training, or instead of it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from handful import streams
from handful.normalization import fitting, recalibrate
from handful.types import Examples, check_shape

BATCH = 128
WARM_UP = 0.1
"""The part of the steps in which the rate rises."""
FOR_FEATURES = {"lr": 0.01, "weight_decay": 1.0, "label_smoothing": 0.1}
"""Peak rate and regularization where only the features are kept: strong, since they must serve other classes. Chosen on
the validation letters of `glyphs`."""
FOR_ANSWERS = {"lr": 0.003, "weight_decay": 0.05, "label_smoothing": 0.0}
"""The same where the head is kept, and must answer for the same outputs."""
SCALE = 10.0
"""Of the cosines in a head that answers by them."""
CALIBRATION = 10
"""Batches for the statistics of the batch norms."""


class Pool(Protocol):
    """Globally labeled examples: what `handful.tasks` offers for pre-training."""

    @property
    def outputs(self) -> int:
        """Number of classes, or the dimension of the target."""

    @property
    def draw(self) -> Callable[[Generator, int], Examples]:
        """`(generator, count) -> Examples` at random."""


def pretrain(
    backbone: nn.Module,
    head: nn.Linear | None,
    weights: list[nn.Parameter],
    pool: Pool,
    *,
    classification: bool,
    examples: int,
    seed: int,
    cosine: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train `weights` of the backbone, and a head, on about `examples` drawn from the pool.

    AdamW (*Decoupled Weight Decay Regularization*, Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101) with
    warm-up and a cosine to zero, on the cross-entropy or the squared error; then precise statistics for batch norms.
    head: the one to keep; None: a new one, which is thrown away; with `cosine` it sees the directions of features
    alone. progress: gets the examples seen and all of them. The same seed gives the same bits; whether weights require
    a gradient is as before.
    """
    chosen = FOR_FEATURES if head is None else FOR_ANSWERS
    head = head if head is not None else _head(backbone, pool, seed, CosineClassifier if cosine else nn.Linear)
    steps = max(1, round(examples / BATCH))
    generator = streams.pretraining(seed)
    with _trainable([*weights, *head.parameters()]) as trained, torch.enable_grad(), _training(backbone):
        optimizer = torch.optim.AdamW(trained, weight_decay=chosen["weight_decay"])
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = chosen["lr"] * schedule(step, steps)
            batch = pool.draw(generator, BATCH)
            with fitting(backbone):  # batch norms that wait for a task's support take the batch's statistics
                outputs = head(backbone(batch.inputs))
            if classification:
                loss = F.cross_entropy(outputs, batch.targets, label_smoothing=chosen["label_smoothing"])
            else:
                check_shape("targets", batch.targets, outputs)
                loss = F.mse_loss(outputs, batch.targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if progress:
                progress((step + 1) * BATCH, steps * BATCH)
    batches = [pool.draw(generator, BATCH).inputs for _ in range(CALIBRATION)]
    recalibrate(backbone, (partial(backbone, inputs) for inputs in batches))


def schedule(step: int, steps: int) -> float:
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


def _head(backbone: nn.Module, pool: Pool, seed: int, kind: type[nn.Linear]) -> nn.Linear:
    example = pool.draw(streams.pretraining(seed), 1).inputs
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
