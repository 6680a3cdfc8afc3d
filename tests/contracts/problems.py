"""Tiny problems, one of each kind, that any learner can be asked to solve, in float64."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils import _pytree as pytree

from handful.learners.learner import Learner
from handful.learners.options import defaults_of
from handful.registry import LEARNERS
from handful.types import Examples, Task, TaskSpec, stack

STEPS, LONG = 5, 15
"""Inner steps at most, since what holds for a longer loop holds for a short one; and more than usual ones."""

SUPPORT, QUERY = 3, 5
"""Examples of each class but one; that one has three times as many, so that even label counts tell something."""


def normalized(input_shape: tuple[int, ...]) -> nn.Module:
    """A stock network with native batch norm, as users bring it."""
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


class Pause(nn.Module):
    """Lets another thread run in the middle of a forward pass."""

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(1e-5)
        return inputs


def pausing(input_shape: tuple[int, ...]) -> nn.Module:
    """`normalized`, with a pause before each layer that has weights."""
    first, norm, activation, last = normalized(input_shape)
    return nn.Sequential(Pause(), first, Pause(), norm, activation, Pause(), last)


class Unbatchable(nn.Module):
    """Looks at a number, which `vmap` does not have."""

    def __init__(self, input_shape):
        super().__init__()
        self.linear = nn.Linear(input_shape[0], 4)

    def forward(self, inputs):
        features = self.linear(inputs)
        return features if float(features.detach().sum()) > 0 else 2 * features


@dataclass(frozen=True)
class Problem:
    """A kind of task with a small network for it."""

    name: str
    spec: TaskSpec
    backbone: str | Callable[..., nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    normalizes: bool = True

    def __str__(self) -> str:
        return self.name

    def learner(
        self, cls: type[Learner], *, normalization: Any = None, seed: int = 0, steps: int = STEPS, **options: Any
    ) -> Any:
        """A learner of float64, away from the special values of a fresh start, in evaluation mode.

        Inner loops longer than `steps` are made of fewer, longer steps. Long ones go twice as far in all, since a rate
        that suits a hundred thousand weights moves a network of a hundred too little.
        """
        known = defaults_of(cls, self.spec.kind)
        if "inner_steps" not in options and known.get("inner_steps", 0) > steps:
            faster = (2 if known["inner_steps"] > LONG else 1) * known["inner_steps"] / steps
            options = {"inner_steps": steps, "inner_lr": faster * known["inner_lr"]} | options
        learner = cls.build(
            self.spec,
            backbone=self.backbone,
            backbone_options=self.options,
            normalization=normalization,
            seed=seed,
            **options,
        ).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in learner.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return learner.eval()

    def tasks(self, count: int, *, seed: int = 0, way: int | None = None) -> Task:
        """Stacked tasks, all different."""
        generator = torch.Generator().manual_seed(seed)
        spec = self.spec if way is None else replace(self.spec, outputs=way)
        draw = _classes if spec.classification else _planes
        return stack([draw(spec, generator) for _ in range(count)])

    def task(self, *, seed: int = 0, way: int | None = None) -> Task:
        """One task."""
        stacked = self.tasks(1, seed=seed, way=way)
        return Task(*(Examples(*(leaf[0] for leaf in examples)) for examples in stacked))


def single(tree: Any) -> Any:
    """A pytree with its floats in single precision."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, tree)


def _classes(spec: TaskSpec, generator: Generator) -> Task:
    """Clusters anywhere in input space: class numbers carry no information."""
    means = 1.5 * _pattern((spec.outputs, *spec.input_shape), generator)
    frequent = int(torch.randint(spec.outputs, (), generator=generator))

    def examples(each: int) -> Examples:
        targets = torch.arange(spec.outputs).repeat_interleave(each)
        targets = torch.cat([targets, torch.full((2 * each,), frequent)])
        noise = torch.randn(len(targets), *spec.input_shape, generator=generator, dtype=torch.float64)
        return Examples(means[targets] + 0.3 * noise, targets)

    return Task(examples(SUPPORT), examples(QUERY))


def _planes(spec: TaskSpec, generator: Generator) -> Task:
    """Affine functions."""
    slopes = 0.5 * torch.randn(*spec.input_shape, spec.outputs, generator=generator, dtype=torch.float64)
    offset = 2 * torch.randn(spec.outputs, generator=generator, dtype=torch.float64)

    def examples(count: int) -> Examples:
        inputs = torch.randn(count, *spec.input_shape, generator=generator, dtype=torch.float64)
        return Examples(inputs, inputs @ slopes + offset)

    return Task(examples(2 * SUPPORT), examples(2 * QUERY))


def _pattern(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Random vectors, or random coarse images."""
    if len(shape) == 2:
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    coarse = torch.randn(*shape[:2], 4, 4, generator=generator, dtype=torch.float64)
    return nn.functional.interpolate(coarse, size=shape[2:])


IMAGES = Problem("images", TaskSpec("classification", (1, 16, 16), 3, "permuted"), "conv4", {"widths": (4, 4, 4, 4)})
ROWS = Problem("rows", TaskSpec("classification", (5,), 3, "permuted"), normalized)
SHARED = Problem("shared", TaskSpec("classification", (5,), 3, "shared"), "mlp", {"hidden": (8, 4)}, normalizes=False)
VALUES = Problem("values", TaskSpec("regression", (3,), 2), "mlp", {"hidden": (8, 6)}, normalizes=False)

PROBLEMS = (IMAGES, ROWS, SHARED, VALUES)


def cases() -> list[tuple[type[Learner], Problem]]:
    """Every learner with every problem of a kind that it can do."""
    return [(cls, problem) for _, cls in LEARNERS.items() for problem in PROBLEMS if can(cls, problem.spec)]


def slow_on(found: list[tuple[type[Learner], Problem]], *problems: Problem) -> list[Any]:
    """The same cases, of which those on these problems are slow tests: on images they take as long as all others, and
    on shared labels as on rows, for nearly the same learners."""
    return [pytest.param(*case, marks=pytest.mark.slow if case[1] in problems else ()) for case in found]


def can(cls: type[Learner], spec: TaskSpec) -> bool:
    """Whether a learner declares to do tasks of this spec."""
    return spec.kind in cls.kinds and (not spec.classification or spec.labels in cls.labels)


def name_of(value: Any) -> str:
    """How a parametrized case is called."""
    return getattr(value, "key", None) or str(value)
