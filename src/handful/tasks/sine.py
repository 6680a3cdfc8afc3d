"""Sine waves: the regression that every meta-learning paper starts with."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from handful.tasks.distribution import SizeRanges, Sizes, TaskDistribution
from handful.types import Examples, Task, TaskSpec


class Sine(TaskDistribution):
    """Sine waves of random amplitude and phase, without noise.

    *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks* (Finn et al., 2017),
    https://arxiv.org/abs/1703.03400. Amplitude from 0.1 to 5, phase from 0 to pi, inputs from -5 to 5, all uniform; a
    task is `x -> amplitude * sin(x - phase)`. The paper draws 5, 10 or 20 points per task; here 10, scored on 50.
    """

    key = "sine"
    default_sizes = SizeRanges(shot=10, query_shot=50)

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Regression of one value on one number."""
        return TaskSpec("regression", (1,), 1)

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw one wave and its points."""
        return _task(self._uniform(generator, sizes), sizes.shot)

    def batch(self, indices: Sequence[int]) -> Task:
        """As `task(i)` for each, all sines computed in one go."""
        uniform = [self._uniform(self.generator_of(index), self.sizes_of(index)) for index in indices]
        return _task(torch.stack(uniform), self.sizes_of(indices[0]).shot)

    def wave(self, index: int) -> tuple[float, float]:
        """Amplitude and phase of task `index`: the true function, for plots."""
        amplitude, phase = _wave(self._uniform(self.generator_of(index), self.sizes_of(index)))
        return float(amplitude), float(phase)

    def _uniform(self, generator: Generator, sizes: Sizes) -> Tensor:
        """All randomness of a task: wave, then inputs."""
        return torch.rand(2 + sizes.shot + sizes.query_shot, generator=generator, dtype=torch.float64)


def _wave(uniform: Tensor) -> tuple[Tensor, Tensor]:
    return 0.1 + 4.9 * uniform[..., :1], math.pi * uniform[..., 1:2]


def _task(uniform: Tensor, shot: int) -> Task:
    """Uniform numbers `(..., 2 + shot + query_shot)` as a task; in doubles, so that batches are equal to the bit."""
    amplitude, phase = _wave(uniform)
    x = 10 * uniform[..., 2:] - 5
    y = amplitude * torch.sin(x - phase)
    x, y = x.float().unsqueeze(-1), y.float().unsqueeze(-1)  # (..., shot + query_shot, 1)
    return Task(
        Examples(x[..., :shot, :], y[..., :shot, :]),
        Examples(x[..., shot:, :], y[..., shot:, :]),
    )
