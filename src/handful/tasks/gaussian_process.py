"""Functions drawn from Gaussian processes: noisy regression with a known oracle (Bayes-optimal) prediction."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Generator, Tensor

from handful import streams
from handful.errors import UserError
from handful.tasks.distribution import BLOCK, SPLITS, SizeRanges, Sizes, TaskDistribution
from handful.types import Examples, Gaussian, Task, TaskSpec, take

Kernel: TypeAlias = Literal["rbf", "matern", "periodic"]

NOISE = 0.02
"""Standard deviation of the noise on each value."""
POINTS = 49
"""The most points of support and query together, if the number of queries is a range."""
HYPERPARAMETERS = 3


class GaussianProcess(TaskDistribution):
    """Functions drawn from Gaussian processes of one input, with noise: `gp:rbf`, `gp:matern` or `gp:periodic`.

    The protocol of *Bootstrapping Neural Processes* (Lee et al., 2020), https://arxiv.org/abs/2008.02956, and of
    *Transformer Neural Processes* (Nguyen & Grover, 2022), https://arxiv.org/abs/2207.04179, with the numbers of its
    code, https://github.com/tung-nd/TNP-pytorch. Inputs are uniform from -2 to 2. Each task draws a lengthscale from
    0.1 to 0.6, a standard deviation of the function from 0.1 to 1 and, for the periodic kernel, a period from 0.1 to
    0.5, all uniform; the Matern kernel is the one of smoothness 5/2; noise of standard deviation 0.02 is on every
    value, the scored ones too. A task has 3 to 46 support examples; then 3 to 49 less these are scored. Departure:
    sizes are redrawn for every 64 tasks, in the paper for every 16.

    Other sizes than the default: `query_shot` as a number is that number; as a range, it ends where support and query
    would together be more than 49.
    """

    key = "gp"
    default_sizes = SizeRanges(shot=(3, 46), query_shot=(3, 46))

    def __init__(self, kernel: Kernel = "rbf", *, seed: int = 0) -> None:
        if kernel not in get_args(Kernel):
            raise UserError(f"The kernel of 'gp' is {', '.join(get_args(Kernel))}, not {kernel!r}: write gp:rbf.")
        super().__init__(seed=seed)
        self.kernel = kernel

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Regression of one value on one number."""
        return TaskSpec("regression", (1,), 1)

    def sizes_of(self, index: int) -> Sizes:
        """As everywhere, but a range of queries ends where the task has points enough."""
        sizes, query_shot = super().sizes_of(index), self.sizes.query_shot
        if not isinstance(query_shot, tuple):
            return sizes
        low, high = query_shot
        count = max(low, min(high, POINTS - sizes.shot)) - low + 1
        generator = streams.block_queries(self.seed, SPLITS.index(self.split_name), index // BLOCK)
        return replace(sizes, query_shot=low + int(torch.randint(count, (), generator=generator)))

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw one function at its points."""
        return take(self._tasks([generator], sizes), 0)

    def batch(self, indices: Sequence[int]) -> Task:
        """As `task(i)` for each, all functions computed in one go."""
        return self._tasks([self.generator_of(index) for index in indices], self.sizes_of(indices[0]))

    def oracle(self, index: int) -> Gaussian:
        """The exact posterior of the task's own process given its support, including the noise of the targets."""
        sizes, task = self.sizes_of(index), self.task(index)
        inputs = torch.cat([part.inputs for part in task]).double().squeeze(-1)
        uniform, _ = _randomness(self.generator_of(index), sizes)
        covariance = self._covariance(uniform, inputs)
        support, shot = task.support.targets.double(), sizes.shot
        factor = torch.linalg.cholesky(covariance[:shot, :shot])
        half = torch.linalg.solve_triangular(factor, covariance[:shot, shot:], upper=False)  # (shot, queries)
        mean = half.mT @ torch.linalg.solve_triangular(factor, support, upper=False)
        variance = covariance.diagonal()[shot:] - half.square().sum(0)
        return Gaussian(mean.float(), variance.float().unsqueeze(-1))

    def _tasks(self, generators: Sequence[Generator], sizes: Sizes) -> Task:
        """Stacked tasks of one size, one from each generator; in doubles, so that batches are equal to the bit."""
        drawn = [_randomness(generator, sizes) for generator in generators]
        uniform, normal = (torch.stack(part) for part in zip(*drawn, strict=True))
        x = (4 * uniform[:, HYPERPARAMETERS:] - 2).float()  # the process is at the inputs as a learner sees them
        factors = torch.linalg.cholesky(self._covariance(uniform, x.double()))
        y = (factors * normal.unsqueeze(-2)).sum(-1).float()
        x, y, shot = x.unsqueeze(-1), y.unsqueeze(-1), sizes.shot  # (tasks, points, 1)
        return Task(Examples(x[:, :shot], y[:, :shot]), Examples(x[:, shot:], y[:, shot:]))

    def _covariance(self, uniform: Tensor, inputs: Tensor) -> Tensor:
        """Covariance of values `(..., n, n)` at inputs `(..., n)`, noise included, of a task's uniform numbers."""
        lengthscale = (0.1 + 0.5 * uniform[..., 0]).unsqueeze(-1).unsqueeze(-1)
        deviation = (0.1 + 0.9 * uniform[..., 1]).unsqueeze(-1).unsqueeze(-1)
        period = (0.1 + 0.4 * uniform[..., 2]).unsqueeze(-1).unsqueeze(-1)
        distance = (inputs.unsqueeze(-1) - inputs.unsqueeze(-2)).abs()
        if self.kernel == "periodic":
            correlation = torch.exp(-2 * (torch.sin(math.pi * distance / period) / lengthscale).square())
        elif self.kernel == "matern":
            scaled = math.sqrt(5) * distance / lengthscale
            correlation = (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)
        else:
            correlation = torch.exp(-0.5 * (distance / lengthscale).square())
        return deviation.square() * correlation + NOISE**2 * torch.eye(inputs.shape[-1]).to(inputs)


def _randomness(generator: Generator, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """All randomness of a task: uniform numbers for hyperparameters and inputs, and normal ones for the values."""
    points = sizes.shot + sizes.query_shot
    uniform = torch.rand(HYPERPARAMETERS + points, generator=generator, dtype=torch.float64)
    return uniform, torch.randn(points, generator=generator, dtype=torch.float64)
