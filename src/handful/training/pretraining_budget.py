"""The pre-training that fits into a time budget: the number of examples, and the size of images."""

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from handful.engine.precision import Precision
from handful.events import StoppedError
from handful.functional.stateless import own_copy
from handful.learners.learner import Learner
from handful.learners.pretrained_blocks import PretrainedBlocks
from handful.learners.pretraining import BATCH, CALIBRATION, Pretraining, PretrainingExamples
from handful.tasks.distribution import Pool
from handful.types import Examples, TaskSpec

LEAST_BATCHES = 300
"""That an image size is worth its while from: with fewer, smaller images and more of them are better."""
SIZES = (84, 64, 32)
"""Pixels a side that are tried, with the size that images have."""
LARGE = 48
"""Pixels from which `resnet3` is used, which does three batches in the time of one of `conv4` at 64 pixels."""
WIDENING: dict[str, Any] = {"widths": [32, 64, 128, 128]}
"""Channels of `conv4`. They take half the time of 64 throughout, and have twice the features: after as much time of the
processor, 5-way 1-shot accuracy on validation classes was higher by 1 point on glyphs, 6 on emoji, 19 on Omniglot."""
TIMED, TIMED_SHARE = 3, 0.02
"""The fewest steps that are timed, after one that warms up; and the share of the budget after which they suffice."""
TOO_SLOW = 3
"""Times the seconds a step may take, from which one timed step is enough to leave a size or a precision out."""
CHOOSING_SHARE, FASTER = 0.005, 1.1
"""The same for each precision where one is chosen; and how many times as fast bfloat16 must be, to be taken."""
FORWARD = 1 / 3
"""The part of a step that its forward pass takes, as the batches do from which norms get their statistics."""
ENDLESS = BATCH * 10**9
"""Examples of a pre-training that its timer ends."""
CLASSES, WAY = 64, 5
"""The number of random images that time sizes before tasks of these sizes exist."""


@dataclass(frozen=True)
class SizeChoice:
    """The pre-training within a budget.

    size: pixels a side.
    batches: of `BATCH` examples, that the budget holds.
    """

    size: int
    backbone: str
    batches: int

    def __str__(self) -> str:
        return f"images of {self.size} pixels and {self.backbone}, {self.batches:,} batches of {BATCH}"


class _Timer:
    """A `Keeper` that ends a pre-training once the time of its steps is known."""

    steps: int | None = None

    def __init__(self, seconds: float, slow: float) -> None:
        self.seconds, self.slow, self.times = seconds, slow, [time.perf_counter()]

    def begin(self, pretraining: Pretraining) -> None:
        """Nothing was saved."""

    def after_step(self, pretraining: Pretraining) -> None:
        """Take the time; see `Keeper`."""
        self.times.append(time.perf_counter())
        timed = len(self.times) - 2  # steps after the first
        enough = timed >= TIMED and self.times[-1] - self.times[1] >= self.seconds
        if enough or (timed and self.times[-1] - self.times[-2] > self.slow):
            raise StoppedError("The time of a step is known.")

    def per_step(self) -> float:
        """The median."""
        each = sorted(later - earlier for earlier, later in zip(self.times[1:], self.times[2:], strict=False))
        return each[len(each) // 2]


def quicker_precision(learner: Learner, pool: PretrainingExamples, seconds: float, *, seed: int = 0) -> Precision:
    """The precision in which steps of `learner.pretrain` take less time on this processor; some of each are timed.

    A processor that multiplies in bfloat16 trains `conv4` on images of 28 pixels 1.4 times as fast, and as well after
    as many steps; one that does not is slower so. On other devices it was not measured, and is float32.

    seconds: of the budget.
    """
    if learner.device.type != "cpu":
        return "fp32"
    timed = CHOOSING_SHARE * seconds
    single = _seconds_per_step(learner, pool, timed, seed)
    half = _seconds_per_step(learner, pool, timed, seed, TOO_SLOW * single, "bf16")
    return "bf16" if single > FASTER * half else "fp32"


def examples_within(
    learner: Learner, pool: PretrainingExamples, seconds: float, *, seed: int = 0, precision: Precision = "fp32"
) -> int:
    """How many examples `learner.pretrain` processes in the rest of so many seconds, at least one batch.

    Some steps of a copy are timed first, in about a fiftieth of the seconds; the learner is not changed.

    seconds: above 0, the timing included.
    """
    start = time.perf_counter()
    per_step = _seconds_per_step(learner, pool, TIMED_SHARE * seconds, seed, precision=precision)
    left = seconds - (time.perf_counter() - start)
    return BATCH * max(1, int(left / per_step - FORWARD * CALIBRATION))


def network_for(size: int) -> tuple[str, dict[str, Any]]:
    """The backbone for images of so many pixels a side, and its options."""
    return ("resnet3", {}) if size >= LARGE else ("conv4", WIDENING)


def choose_size(seconds: float, input_shape: tuple[int, ...], *, seed: int = 0) -> SizeChoice:
    """The largest images, with the network for them, of which a budget holds `LEAST_BATCHES`; else the smallest.

    seconds: of the budget.
    input_shape: `(channels, height, width)` that the images have; larger ones are not made of them.

    Larger images contain more detail, but a network trained on too few batches of them is worse than one trained on
    many of smaller ones; a step is timed on random images of each size, the largest first.
    """
    own = min(input_shape[1:])
    sizes = sorted({min(own, SIZES[0]), *(size for size in SIZES if size < own)}, reverse=True)
    for size in sizes:
        backbone, options = network_for(size)
        spec = TaskSpec("classification", (input_shape[0], size, size), WAY)
        learner = PretrainedBlocks.build(spec, backbone=backbone, backbone_options=options, seed=seed)
        slow = TOO_SLOW * seconds / LEAST_BATCHES
        per_step = _seconds_per_step(learner, _random_images(spec.input_shape), 0.0, seed, slow)
        choice = SizeChoice(size, backbone, max(1, int(seconds / per_step)))
        if choice.batches >= LEAST_BATCHES:
            break
    return choice


def _seconds_per_step(
    learner: Learner,
    pool: PretrainingExamples,
    seconds: float,
    seed: int,
    slow: float = math.inf,
    precision: Precision = "fp32",
) -> float:
    """Of steps that are timed for so many seconds at least."""
    timer = _Timer(seconds, slow)
    with suppress(StoppedError):
        own_copy(learner).pretrain(pool, examples=ENDLESS, seed=seed, precision=precision, keeper=timer)
    return timer.per_step()


def _random_images(shape: tuple[int, ...]) -> Pool:
    def draw(generator: Generator, count: int) -> Examples:
        images = torch.rand(count, *shape, generator=generator)
        return Examples(images, torch.randint(CLASSES, (count,), generator=generator))

    return Pool(CLASSES, draw)
