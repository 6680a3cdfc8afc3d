"""Optimization problems: tasks for training a learned optimizer on their supports."""

from typing import Literal

import torch
from torch import Generator, Tensor

from handful.errors import UserError
from handful.tasks.distribution import SizeRanges, Sizes, TaskDistribution
from handful.types import Examples, Task, TaskSpec


class Quadratics(TaskDistribution):
    """Random quadratic functions, written as linear regression without an intercept.

    *Learning to learn by gradient descent by gradient descent* (Andrychowicz et al., 2016),
    https://arxiv.org/abs/1606.04474: ||W theta - y||^2, where theta `(dimensions,)` is the head of the backbone "raw",
    with `intercept=False`. Support inputs are the rows of W `(shot, dimensions)`, normal numbers, and targets are y.
    Departures: y is W theta* for a normal theta* in place of normal numbers, so that the queries, which are further
    rows, have a solution; the least loss is 0; learners divide the loss by the number of rows.
    """

    key = "quadratics"
    default_sizes = SizeRanges(shot=10, query_shot=10)

    def __init__(self, *, dimensions: int = 10, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.dimensions = _at_least_one("dimensions", dimensions)

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Regression of one value on a row of W."""
        return TaskSpec("regression", (self.dimensions,), 1)

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw the minimum and the rows."""
        minimum = torch.randn(self.dimensions, 1, generator=generator)
        rows = torch.randn(sizes.shot + sizes.query_shot, self.dimensions, generator=generator)
        return _divided(rows, rows @ minimum, sizes.shot)


class SmallNetworks(TaskDistribution):
    """Random functions and clusters on which to train a small network.

    With `problem="regression"` targets are the outputs of a random teacher, a network of 8 units with tanh, whose first
    layer has a gain from 1 to 3; with "classification" a class is two normal clusters with a deviation of 0.5, whose
    centers are normal numbers. Inputs have `inputs` numbers. All of it is drawn anew for each task, so that classes
    have no ids.
    """

    key = "small-networks"
    default_sizes = SizeRanges(shot=64, query_shot=64)

    def __init__(
        self, *, problem: Literal["regression", "classification"] = "regression", inputs: int = 4, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        if problem not in ("regression", "classification"):
            raise UserError(f"The option problem is regression or classification, not {problem!r}.")
        self.problem, self.inputs = problem, _at_least_one("inputs", inputs)
        if problem == "classification":
            self.sizes = SizeRanges(way=4, shot=16, query_shot=16)

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Regression of one value, or classification with permuted class numbers."""
        return TaskSpec(self.problem, (self.inputs,), sizes.way if self.problem == "classification" else 1)

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw a teacher or clusters, then the examples."""
        if self.problem == "classification":
            centers = torch.randn(sizes.way, 2, self.inputs, generator=generator)
            return Task(*(self._clustered(centers, count, generator) for count in (sizes.shot, sizes.query_shot)))
        gain = 1 + 2 * torch.rand((), generator=generator)
        first = gain * torch.randn(self.inputs, 8, generator=generator) / self.inputs**0.5
        bias, last = torch.randn(8, generator=generator), torch.randn(8, 1, generator=generator)
        rows = torch.randn(sizes.shot + sizes.query_shot, self.inputs, generator=generator)
        return _divided(rows, torch.tanh(rows @ first + bias) @ last / 8**0.5, sizes.shot)

    def _clustered(self, centers: Tensor, count: int, generator: Generator) -> Examples:
        """`count` examples of each class, from either of its centers `(way, 2, inputs)`."""
        targets = torch.arange(len(centers)).repeat_interleave(count)
        which = torch.randint(2, (len(targets),), generator=generator)
        noise = 0.5 * torch.randn(len(targets), self.inputs, generator=generator)
        return Examples(centers[targets, which] + noise, targets)


def _divided(inputs: Tensor, targets: Tensor, shot: int) -> Task:
    return Task(Examples(inputs[:shot], targets[:shot]), Examples(inputs[shot:], targets[shot:]))


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"The number of {name} is at least 1, got {value}.")
    return value
